"""Runs, actions and their attempts, as RunService shows them.

What lists are full of is written into the message that holds it, field by field: a message that is made apart and then
put into another one is copied, which takes as long as making it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flyteidl2.common import identity_pb2
from flyteidl2.core import catalog_pb2, execution_pb2, literals_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2 as pb

from flyte_manager.domain.actions import ActionHistory, Run, events_of
from flyte_manager.domain.attempts import Attempt, ErrorKind, Event, Failure
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownAction, ShownRun
from flyte_manager.wire import places, told
from flyte_manager.wire.caching import status_proto
from flyte_manager.wire.ids import action_proto
from flyte_manager.wire.links import LinkTemplate, task_logs
from flyte_manager.wire.phases import phase_proto
from flyte_manager.wire.times import show_time, timestamp


@dataclass(frozen=True, slots=True)
class Platform:
    """What all attempts are shown with."""

    links: Sequence[LinkTemplate] = ()
    cluster: str = ""
    """name of the cluster where they run; empty where there is none"""


BARE = Platform()


def show_run(record: ShownRun, run: pb.Run) -> None:
    spec = run_pb2.RunSpec.FromString(record.run_spec or b"")
    show_action(record.root, run.action)
    _show_its_run(run.action.metadata, spec, source=record.source, created_by=record.created_by)
    if spec.HasField("labels"):
        run.labels.update(spec.labels.values)


def show_action(record: ShownAction, action: pb.Action | pb.ActionDetails, *, run: Run | None = None) -> None:
    """An action as lists show it. `run` is given for a root action, which tells of the whole run."""
    name, of_run = action.id, action.id.run
    name.name = record.name
    of_run.org, of_run.project, of_run.domain, of_run.name = record.org, record.project, record.domain, record.run
    _show_metadata(record, action.metadata)
    if run is not None:
        spec = run_pb2.RunSpec.FromString(run.run_spec)
        _show_its_run(action.metadata, spec, source=run.source, created_by=run.created_by)
    _show_status(record, action.status)


def run_details(record: Run, root: ActionHistory, platform: Platform = BARE) -> pb.RunDetails:
    details = action_details(root, run=record, platform=platform)
    return pb.RunDetails(run_spec=run_pb2.RunSpec.FromString(record.run_spec), action=details)


def action_details(history: ActionHistory, *, run: Run | None = None, platform: Platform = BARE) -> pb.ActionDetails:
    record = history.action
    details = pb.ActionDetails()
    show_action(ShownAction.of(record), details, run=run)
    details.attempts.extend(attempt(each, events_of(record, each), platform) for each in history.attempts)
    if record.failure and record.final:
        details.error_info.CopyFrom(_error(record.failure))
        if details.attempts and details.attempts[-1].HasField("error_info"):  # more may have been told of it afterwards
            details.error_info.CopyFrom(details.attempts[-1].error_info)
    elif record.phase is Phase.ABORTED:
        details.abort_info.reason = record.reason
        if record.signalled_by:
            details.abort_info.aborted_by.ParseFromString(record.signalled_by)
    elif record.value:
        output = literals_pb2.Literal.FromString(record.value)
        by = identity_pb2.EnrichedIdentity.FromString(record.signalled_by)
        details.signal_info.CopyFrom(pb.SignalInfo(output=output, signalled_by=by))
    match record.kind:
        case Kind.TASK:
            details.task.CopyFrom(task_definition_pb2.TaskSpec.FromString(history.spec))
            for shown, each in zip(details.attempts, history.attempts, strict=True):
                shown.log_info.extend(task_logs(details.task.task_template, each, platform.links))
        case Kind.TRACE:
            details.trace.CopyFrom(pb.TraceAction.FromString(history.spec).spec)
        case Kind.CONDITION:
            details.condition.CopyFrom(pb.ConditionAction.FromString(history.spec))
    return details


def _show_metadata(record: ShownAction, metadata: pb.ActionMetadata) -> None:
    metadata.parent = record.parent
    metadata.group = record.group
    metadata.action_type = cast(pb.ActionType, record.kind)
    metadata.environment_name = record.environment
    metadata.funtion_name = record.function
    match record.kind:
        case Kind.TASK:
            task, name = metadata.task, metadata.task.id
            task.task_type, task.short_name = record.task_type, record.short_name
            name.org, name.project, name.domain = record.org, record.task_project, record.task_domain
            name.name, name.version = record.task_name, record.task_version
        case Kind.TRACE:
            metadata.trace.name = record.short_name
        case Kind.CONDITION:
            condition = pb.ConditionAction.FromString(record.condition or b"")
            metadata.condition.CopyFrom(pb.ConditionActionMetadata(name=condition.name, type=condition.type))


def _show_its_run(metadata: pb.ActionMetadata, spec: run_pb2.RunSpec, *, source: int, created_by: bytes | None) -> None:
    metadata.source = cast(pb.RunSource, source)
    if spec.HasField("relation"):
        metadata.relation.CopyFrom(spec.relation)
    if created_by:
        metadata.executed_by.MergeFromString(created_by)


def _show_status(record: ShownAction, status: pb.ActionStatus) -> None:
    status.phase = phase_proto(record.phase)
    status.attempts = record.attempt
    status.cache_status = cast(catalog_pb2.CatalogCacheStatus, record.cache_status)
    show_time(status.start_time, record.started_at or record.created_at)
    if record.ended_at is not None:
        show_time(status.end_time, record.ended_at)
    if (duration := record.duration_ms) is not None:
        status.duration_ms = duration


def attempt(record: Attempt, events: Sequence[Event], platform: Platform) -> pb.ActionAttempt:
    shown = pb.ActionAttempt(
        phase=phase_proto(record.phase),
        attempt=record.id.number,
        outputs=common_pb2.OutputReferences(output_uri=record.output_uri, report_uri=record.report_uri),
        logs_available=record.logs_available,
        cluster_events=[cluster_event(each) for each in events],
        cluster=platform.cluster,
        log_context=places.log_context(record),
        cache_status=status_proto(record.cache_status),
    )
    if record.cache_source:
        source = shown.cache_metadata.source_action_attempt
        source.action_id.CopyFrom(action_proto(record.cache_source.action))
        source.attempt = record.cache_source.number
    shown.start_time.CopyFrom(timestamp(record.started_at or record.created_at))
    if record.ended_at:
        shown.end_time.CopyFrom(timestamp(record.ended_at))
    if record.failure:
        shown.error_info.CopyFrom(_error(record.failure))
    told.show(record, shown)
    for number, each in enumerate(record.transitions):
        transition = shown.phase_transitions.add(phase=phase_proto(each.phase), start_time=timestamp(each.at))
        following = record.transitions[number + 1 : number + 2]
        if following:
            transition.end_time.CopyFrom(timestamp(following[0].at))
        elif each.phase.final:
            transition.end_time.CopyFrom(transition.start_time)  # as the proto says of final phases
    return shown


def cluster_event(event: Event) -> pb.ClusterEvent:
    kind = pb.ClusterEvent.TYPE_WARNING if event.warning else pb.ClusterEvent.TYPE_NORMAL
    fault = execution_pb2.GpuFault.FromString(event.gpu_fault) if event.gpu_fault else None
    return pb.ClusterEvent(
        occurred_at=timestamp(event.at),
        message=event.message,
        type=kind,
        reason=event.reason,
        source_component=event.source or "flyte-manager",
        count=event.count,
        gpu_fault=fault,
    )


def _error(failure: Failure) -> pb.ErrorInfo:
    kinds = {
        ErrorKind.UNKNOWN: pb.ErrorInfo.KIND_UNSPECIFIED,
        ErrorKind.USER: pb.ErrorInfo.KIND_USER,
        ErrorKind.SYSTEM: pb.ErrorInfo.KIND_SYSTEM,
    }
    return pb.ErrorInfo(message=failure.message, kind=kinds[failure.kind], code=failure.code)
