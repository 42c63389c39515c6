"""Runs, actions and their attempts, as RunService shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flyteidl2.common import identity_pb2
from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2 as pb

from flyte_manager.domain.actions import Action, ActionHistory, Run, events_of
from flyte_manager.domain.attempts import Attempt, ErrorKind, Event, Failure
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.wire import places, told
from flyte_manager.wire.caching import status_proto
from flyte_manager.wire.ids import action_proto, task_proto
from flyte_manager.wire.links import LinkTemplate, task_logs
from flyte_manager.wire.phases import phase_proto
from flyte_manager.wire.times import timestamp


@dataclass(frozen=True, slots=True)
class Platform:
    """What all attempts are shown with."""

    links: Sequence[LinkTemplate] = ()
    cluster: str = ""
    """name of the cluster where they run; empty where there is none"""


BARE = Platform()


def action(record: Action, *, run: Run | None = None) -> pb.Action:
    """An action as lists show it. `run` is given for a root action, which tells of the whole run."""
    return pb.Action(id=action_proto(record.id), metadata=_metadata(record, run), status=_status(record))


def run(record: Run, root: Action) -> pb.Run:
    spec = run_pb2.RunSpec.FromString(record.run_spec)
    return pb.Run(action=action(root, run=record), labels=spec.labels.values)


def run_details(record: Run, root: ActionHistory, platform: Platform = BARE) -> pb.RunDetails:
    details = action_details(root, run=record, platform=platform)
    return pb.RunDetails(run_spec=run_pb2.RunSpec.FromString(record.run_spec), action=details)


def action_details(history: ActionHistory, *, run: Run | None = None, platform: Platform = BARE) -> pb.ActionDetails:
    record = history.action
    details = pb.ActionDetails(
        id=action_proto(record.id),
        metadata=_metadata(record, run),
        status=_status(record),
        attempts=[_attempt(each, events_of(record, each), platform) for each in history.attempts],
    )
    if record.failure and record.final:
        details.error_info.CopyFrom(_error(record.failure))
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


def _metadata(record: Action, run: Run | None) -> pb.ActionMetadata:
    task = record.task
    metadata = pb.ActionMetadata(
        parent=record.parent,
        group=record.group,
        action_type=cast(pb.ActionType, record.kind.value),
        environment_name=task.environment,
        funtion_name=task.function,
    )
    match record.kind:
        case Kind.TASK:
            metadata.task.CopyFrom(
                pb.TaskActionMetadata(id=task_proto(task.name), task_type=task.type, short_name=task.short_name)
            )
        case Kind.TRACE:
            metadata.trace.name = task.short_name
        case Kind.CONDITION:
            condition = pb.ConditionAction.FromString(record.spec)
            metadata.condition.CopyFrom(pb.ConditionActionMetadata(name=condition.name, type=condition.type))
    if run is not None:
        metadata.source = cast(pb.RunSource, run.source)
        spec = run_pb2.RunSpec.FromString(run.run_spec)
        if spec.HasField("relation"):
            metadata.relation.CopyFrom(spec.relation)
        if run.created_by:
            metadata.executed_by.MergeFromString(run.created_by)
    return metadata


def _status(record: Action) -> pb.ActionStatus:
    status = pb.ActionStatus(
        phase=phase_proto(record.phase), attempts=record.attempt, cache_status=status_proto(record.cache_status)
    )
    status.start_time.CopyFrom(timestamp(record.started_at or record.created_at))
    if record.ended_at:
        status.end_time.CopyFrom(timestamp(record.ended_at))
    if record.duration_ms is not None:
        status.duration_ms = record.duration_ms
    return status


def _attempt(record: Attempt, events: Sequence[Event], platform: Platform) -> pb.ActionAttempt:
    attempt = pb.ActionAttempt(
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
        source = attempt.cache_metadata.source_action_attempt
        source.action_id.CopyFrom(action_proto(record.cache_source.action))
        source.attempt = record.cache_source.number
    attempt.start_time.CopyFrom(timestamp(record.started_at or record.created_at))
    if record.ended_at:
        attempt.end_time.CopyFrom(timestamp(record.ended_at))
    if record.failure:
        attempt.error_info.CopyFrom(_error(record.failure))
    told.show(record, attempt)
    for number, each in enumerate(record.transitions):
        transition = attempt.phase_transitions.add(phase=phase_proto(each.phase), start_time=timestamp(each.at))
        following = record.transitions[number + 1 : number + 2]
        if following:
            transition.end_time.CopyFrom(timestamp(following[0].at))
        elif each.phase.final:
            transition.end_time.CopyFrom(transition.start_time)  # as the proto says of final phases
    return attempt


def cluster_event(event: Event) -> pb.ClusterEvent:
    kind = pb.ClusterEvent.TYPE_WARNING if event.warning else pb.ClusterEvent.TYPE_NORMAL
    return pb.ClusterEvent(
        occurred_at=timestamp(event.at),
        message=event.message,
        type=kind,
        reason=event.reason,
        source_component=event.source or "flyte-manager",
        count=event.count,
    )


def _error(failure: Failure) -> pb.ErrorInfo:
    kinds = {
        ErrorKind.UNKNOWN: pb.ErrorInfo.KIND_UNSPECIFIED,
        ErrorKind.USER: pb.ErrorInfo.KIND_USER,
        ErrorKind.SYSTEM: pb.ErrorInfo.KIND_SYSTEM,
    }
    return pb.ErrorInfo(message=failure.message, kind=kinds[failure.kind], code=failure.code)
