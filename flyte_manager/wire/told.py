"""What executors that run apart tell: ActionStatus and ActionEvent, read as reports.

What of an event has no column of its own (links, log context, cluster, cache, GPU fault) is kept with its attempt as an
ActionEvent, joined over all the attempt's events: links by name and pods by name, the latest of each, a hundred at
most.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import internal_run_service_pb2
from flyteidl2.workflow import run_definition_pb2 as pb

from flyte_manager.domain.attempts import Attempt, AttemptReport, ErrorKind, Event, Failure, Place, Transition
from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.outside import REPORTED, RETRYABLE
from flyte_manager.domain.phases import Phase
from flyte_manager.wire.ids import action_id
from flyte_manager.wire.links import is_web
from flyte_manager.wire.phases import phase_of
from flyte_manager.wire.times import moment

ABORTED = "aborted by its executor"
NAMES_KEPT = 100
"""of links and pods of an attempt, however many are told"""

Named = TypeVar("Named")
_KINDS = {
    pb.ErrorInfo.KIND_UNSPECIFIED: ErrorKind.UNKNOWN,
    pb.ErrorInfo.KIND_USER: ErrorKind.USER,
    pb.ErrorInfo.KIND_SYSTEM: ErrorKind.SYSTEM,
}
_CACHE_STATUSES = {int(each): each for each in CacheStatus}
_STARTED = (Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT)


def status_report(request: internal_run_service_pb2.UpdateActionStatusRequest, now: datetime) -> AttemptReport:
    """Attempt 0 = the present one. Raises an Invalid refusal that names what is missing or wrong."""
    if not request.HasField("status"):
        raise NotGiven(field="status")
    status = request.status
    phase = phase_of(status.phase)
    started = moment(status.start_time) if status.HasField("start_time") and phase in _STARTED else None
    return AttemptReport(
        attempt=AttemptId(action_id(request.action_id), status.attempts),
        phase=phase,
        at=moment(status.end_time) if status.HasField("end_time") and phase.final else now,
        transitions=(Transition(Phase.RUNNING, started),) if started else (),
        failure=_vague(phase),
        reason=(request.abort_reason or ABORTED) if phase is Phase.ABORTED else "",
        cache_status=_cache_status(status.cache_status),
    )


def event_report(event: pb.ActionEvent, now: datetime) -> AttemptReport:
    """Attempt 0 = the present one. Raises an Invalid refusal that names what is missing or wrong."""
    if not event.HasField("id"):
        raise NotGiven(field="event.id")
    phase = phase_of(event.phase)
    started = moment(event.start_time) if event.HasField("start_time") and phase in _STARTED else None
    return AttemptReport(
        attempt=AttemptId(action_id(event.id), event.attempt),
        phase=phase,
        at=_when(event, now),
        transitions=(Transition(Phase.RUNNING, started),) if started else (),
        failure=_failure(event, phase),
        output_uri=event.outputs.output_uri.removesuffix("/outputs.pb"),
        report_uri=event.outputs.report_uri,
        events=tuple(_cluster_event(each, now) for each in event.cluster_events),
        reason=event.error_info.message or ABORTED if phase is Phase.ABORTED else "",
        place=_place(event.log_context),
        cache_status=_cache_status(event.cache_status),
        told=_kept(event),
    )


def merged(known: bytes, told: bytes) -> bytes:
    """Two of Attempt.told as one."""
    if not known or not told:
        return told or known
    before, after = pb.ActionEvent.FromString(known), pb.ActionEvent.FromString(told)
    links = _latest((*before.log_info, *after.log_info), lambda link: link.name)
    pods = _latest((*before.log_context.pods, *after.log_context.pods), lambda pod: pod.pod_name)
    before.MergeFrom(after)
    before.ClearField("log_info")
    before.log_info.extend(links)
    if pods:
        before.log_context.ClearField("pods")
        before.log_context.pods.extend(pods)
    return before.SerializeToString(deterministic=True)


def _latest(told: Iterable[Named], name: Callable[[Named], str]) -> Sequence[Named]:
    """The latest of each name, and of the names those that were told last."""
    found: dict[str, Named] = {}
    for each in told:
        found.pop(name(each), None)
        found[name(each)] = each
    return list(found.values())[-NAMES_KEPT:]


def show(record: Attempt, attempt: pb.ActionAttempt) -> None:
    """Adds to the attempt what was told of it."""
    if not record.told:
        return
    told = pb.ActionEvent.FromString(record.told)
    attempt.log_info.extend(told.log_info)
    attempt.cluster = told.cluster or attempt.cluster
    if told.log_context.pods:
        attempt.log_context.CopyFrom(told.log_context)
        attempt.logs_available = True
    if told.HasField("cache_metadata"):
        attempt.cache_metadata.CopyFrom(told.cache_metadata)
    if told.HasField("error_info") and attempt.HasField("error_info"):
        attempt.error_info.gpu_fault.CopyFrom(told.error_info.gpu_fault)


def _kept(event: pb.ActionEvent) -> bytes:
    links = [each for each in event.log_info if is_web(each.uri)]
    kept = pb.ActionEvent(log_info=links, cluster=event.cluster)
    if event.HasField("log_context"):
        kept.log_context.CopyFrom(event.log_context)
    if event.HasField("cache_metadata"):
        kept.cache_metadata.CopyFrom(event.cache_metadata)
    if event.error_info.HasField("gpu_fault"):
        kept.error_info.gpu_fault.CopyFrom(event.error_info.gpu_fault)
    return kept.SerializeToString(deterministic=True)


def _cache_status(number: int) -> CacheStatus:
    return _CACHE_STATUSES.get(number, CacheStatus.DISABLED)


def _when(event: pb.ActionEvent, now: datetime) -> datetime:
    for name in ("updated_time", "reported_time", "end_time"):
        if event.HasField(name):
            return moment(getattr(event, name))
    return now


def _failure(event: pb.ActionEvent, phase: Phase) -> Failure | None:
    if phase not in RETRYABLE or not event.HasField("error_info"):
        return _vague(phase)
    told = event.error_info
    return Failure(_KINDS.get(told.kind, ErrorKind.UNKNOWN), told.code or "Unknown", told.message)


def _vague(phase: Phase) -> Failure | None:
    if phase not in RETRYABLE:
        return None
    return Failure(ErrorKind.UNKNOWN, REPORTED, f"its executor reported {phase.name} and told no error")


def _cluster_event(event: pb.ClusterEvent, now: datetime) -> Event:
    return Event(
        at=moment(event.occurred_at) if event.HasField("occurred_at") else now,
        message=event.message,
        reason=event.reason,
        warning=event.type == pb.ClusterEvent.TYPE_WARNING,
        source=event.source_component,
        count=event.count,
        gpu_fault=event.gpu_fault.SerializeToString(deterministic=True),
    )


def _place(context: execution_pb2.LogContext) -> Place | None:
    """The pod that the log comes from."""
    if not context.pods:
        return None
    pod = next((each for each in context.pods if each.pod_name == context.primary_pod_name), context.pods[0])
    return Place(namespace=pod.namespace, pod=pod.pod_name, container=pod.primary_container_name)
