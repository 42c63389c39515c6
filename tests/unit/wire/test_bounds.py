"""`timeout=` on the wire, as the SDK writes it."""

from datetime import timedelta

import flyte
import pytest
from flyte._internal.runtime.task_serde import get_proto_max_runtime, get_proto_timeout_strategy
from flyteidl2.core import literals_pb2, tasks_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_manager.domain.bounds import Allowance, Bound
from flyte_manager.domain.tasks import World
from flyte_manager.wire.bounds import NegativeTime, asked_bounds
from flyte_manager.wire.conditions import check_condition, timeout_seconds
from flyte_manager.wire.plan import check_spec, plan
from tests.fakes.orders import bounded, condition_spec, task_spec


@pytest.mark.parametrize(
    ("timeout", "read"),
    [
        (None, []),
        (0, []),
        (90, [Allowance(Bound.MAX_RUNTIME, 90)]),
        (timedelta(minutes=2, milliseconds=500), [Allowance(Bound.MAX_RUNTIME, 120.5)]),
        (flyte.Timeout(max_queued_time=3), [Allowance(Bound.QUEUED_TIMEOUT, 3)]),
        (
            flyte.Timeout(max_runtime=timedelta(hours=1), max_queued_time=0, deadline=timedelta(days=1)),
            [Allowance(Bound.MAX_RUNTIME, 3600), Allowance(Bound.DEADLINE, 86_400)],
        ),
    ],
)
def test_what_the_sdk_writes_is_read(timeout: "flyte.Timeout | int | timedelta | None", read: list[Allowance]) -> None:
    metadata = tasks_pb2.TaskMetadata(
        timeout=get_proto_max_runtime(timeout), timeouts=get_proto_timeout_strategy(timeout)
    )
    assert list(asked_bounds(metadata)) == read


def test_a_plan_has_the_bounds_of_its_task() -> None:
    assert plan(task_spec(), World.PODS).bounds == ()
    read = plan(bounded(runtime=1, deadline=2.5), World.PODS)
    assert read.bounds == (Allowance(Bound.MAX_RUNTIME, 1), Allowance(Bound.DEADLINE, 2.5))


@pytest.mark.parametrize("negative", [{"runtime": -1}, {"queued": -2}, {"deadline": -3}])
def test_a_negative_time_is_refused_when_it_is_asked_for(negative: dict[str, float]) -> None:
    with pytest.raises(NegativeTime, match=r"of task 'hello\.main' is -"):
        check_spec(bounded(**negative))  # type: ignore[arg-type]


def test_a_negative_timeout_of_a_condition_is_none() -> None:
    condition = run_definition_pb2.ConditionAction.FromString(condition_spec())
    condition.timeout.CopyFrom(Duration(seconds=-1))
    check_condition(condition)
    assert timeout_seconds(condition.SerializeToString()) == 0


@pytest.mark.parametrize("seconds", [10**11, 315_576_000_000])
def test_the_longest_times_on_the_wire_are_no_trouble(seconds: int) -> None:
    spec = task_spec(retries=1)
    metadata = spec.task_template.metadata
    metadata.timeout.CopyFrom(Duration(seconds=seconds))
    backoff = literals_pb2.Backoff(base=Duration(seconds=seconds), factor=1e9, cap=Duration(seconds=seconds))
    metadata.retries.backoff.CopyFrom(backoff)
    read = plan(spec, World.PROCESSES)
    assert read.bounds == (Allowance(Bound.MAX_RUNTIME, seconds),)
    assert read.budget.delay(9) == 30 * 86_400
