"""RunService.WatchGroups: runs counted by their task."""

from collections.abc import Sequence
from datetime import timedelta

from flyteidl2.common import identity_pb2, list_pb2
from flyteidl2.workflow import run_definition_pb2 as pb
from flyteidl2.workflow import run_service_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_manager.domain.attempts import ErrorKind
from flyte_manager.domain.errors import Invalid, NotGiven
from flyte_manager.domain.filters import Order, UnknownField
from flyte_manager.domain.groups import Average, Group, Span
from flyte_manager.domain.phases import Phase
from flyte_manager.wire import ids, listing
from flyte_manager.wire.phases import phase_proto
from flyte_manager.wire.times import moment, timestamp

RECENT = 10
"""Runs that each group tells one by one, unless the request's limit says how many; as upstream."""
MOST_RECENT = 100
SORTED = ("created_at", "task_name")


class TooManyRecent(Invalid):
    """request.limit {limit} is too large: it is how many runs each group tells one by one, at most {most}."""


class NoPages(Invalid):
    """a watch of groups has no pages: leave request.token empty."""


def span(request: run_service_pb2.WatchGroupsRequest) -> Span:
    """Raises NotGiven, IllegalName, UnknownDomain, BadTime, TooManyRecent, NoPages, and what `listing.query` raises."""
    if request.WhichOneof("scope_by") is None:
        raise NotGiven(field="project_id")
    if not request.HasField("start_date"):
        raise NotGiven(field="start_date")
    if request.request.token:
        raise NoPages
    if request.request.limit > MOST_RECENT:
        raise TooManyRecent(limit=request.request.limit, most=MOST_RECENT)
    return Span(
        project=ids.project_id(request.project_id),
        since=moment(request.start_date),
        until=moment(request.end_date) if request.HasField("end_date") else None,
        filters=listing.query(request.request).filters,
        recent=request.request.limit or RECENT,
    )


def order(request: run_service_pb2.WatchGroupsRequest) -> Sequence[Order]:
    """By the making of each group's newest run, newest first unless the request says otherwise. Raises UnknownField."""
    known = [
        Order("created_at", each.created_at == list_pb2.Sort.DESCENDING)
        for each in request.known_sort_fields
        if each.WhichOneof("sort_by")
    ]
    asked = [*known, *listing.query(request.request).order]
    for each in asked:
        if each.field not in SORTED:
            raise UnknownField(field=each.field[:60], verb="sort", known=", ".join(SORTED))
    return asked or [Order("created_at")]


def response(
    found: Sequence[Group], gone: Sequence[str], order: Sequence[Order], *, first: bool
) -> run_service_pb2.WatchGroupsResponse:
    for each in reversed([*order, Order("task_name", descending=False)]):
        found = sorted(
            found,
            key=lambda group, by=each: group.latest if by.field == "created_at" else group.task_name,  # type: ignore[misc]
            reverse=each.descending,
        )
    told = [_group(each) for each in found] + [pb.TaskGroup(task_name=name, should_delete=True) for name in gone]
    return run_service_pb2.WatchGroupsResponse(task_groups=told, sentinel=first)


def _group(group: Group) -> pb.TaskGroup:
    total = group.phases.total()
    told = pb.TaskGroup(
        task_name=group.task_name,
        environment_name=group.environment,
        short_name=group.short_name,
        total_runs=total,
        latest_run_time=timestamp(group.latest),
        recent_statuses=[
            pb.TaskGroup.RecentStatus(run_name=name, phase=phase_proto(phase)) for name, phase in group.recent
        ],
        average_failure_rate=group.phases[Phase.FAILED] / total,
        average_duration=_average(group.duration),
        average_time_to_running=_average(group.waiting),
        error_counts=pb.TaskGroup.ErrorCounts(
            user_error=group.errors.get(ErrorKind.USER, 0),
            system_error=group.errors.get(ErrorKind.SYSTEM, 0),
            unspecified_error=group.errors.get(ErrorKind.UNKNOWN, 0),
        ),
        phase_counts=[
            pb.TaskGroup.PhaseCounts(phase=phase_proto(phase), count=count)
            for phase, count in sorted(group.phases.items())
        ],
        created_by=[identity_pb2.EnrichedIdentity.FromString(each) for each in sorted(group.created_by)],
    )
    if group.latest_ended is not None:
        told.latest_finished_time.CopyFrom(timestamp(group.latest_ended))
    return told


def _average(average: Average) -> Duration | None:
    if average.milliseconds is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(milliseconds=average.milliseconds))
    return duration
