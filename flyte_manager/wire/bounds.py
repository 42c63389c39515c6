"""`timeout=` of a task: TaskMetadata.timeout is flyte.Timeout's max_runtime, TaskMetadata.timeouts has the others."""

from collections.abc import Iterator

from flyteidl2.core import tasks_pb2

from flyte_manager.domain.bounds import NAMES, Allowance, Bound
from flyte_manager.domain.errors import Invalid
from flyte_manager.wire.times import seconds


class NegativeTime(Invalid):
    """{what} is {seconds:g} s: give a positive time, or 0 for no bound."""


def asked_bounds(metadata: tasks_pb2.TaskMetadata) -> Iterator[Allowance]:
    """Those that the task sets."""
    timeouts = metadata.timeouts
    for bound, duration in (
        (Bound.MAX_RUNTIME, metadata.timeout),
        (Bound.QUEUED_TIMEOUT, timeouts.queued_timeout),
        (Bound.DEADLINE, timeouts.deadline),
    ):
        if asked := seconds(duration):
            yield Allowance(bound, asked)


def check_bounds(template: tasks_pb2.TaskTemplate) -> None:
    """Raises NegativeTime."""
    for each in asked_bounds(template.metadata):
        if each.seconds < 0:
            raise NegativeTime(what=f"{NAMES[each.bound][0]} of task {template.id.name!r}", seconds=each.seconds)
