"""Tasks of type core-sleep: every phase, aborts, bounds, restarts, without anything that runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.tasks import World
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.executor.sleeping import LARGEST_INPUTS
from flyte_manager.wire.plan import plan
from flyte_manager.wire.sleep import BadSleep
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import NAMESPACE, Cluster
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, bounded, new_run
from tests.unit.executor.stories import create, phases, status_of

ROOT = action_id()


def sleeper(
    simple: "types_pb2.SimpleType" = types_pb2.DURATION, *, runtime: float = 0, deadline: float = 0, retries: int = 0
) -> task_definition_pb2.TaskSpec:
    spec = bounded(runtime=runtime, deadline=deadline, retries=retries)
    spec.task_template.type = "core-sleep"
    spec.task_template.ClearField("container")
    variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=simple))
    spec.task_template.interface.inputs.variables.add(key="duration", value=variable)
    del spec.task_template.interface.outputs.variables[:]
    return spec


def duration(seconds: float) -> literals_pb2.Literal:
    value = Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(duration=value)))


async def start(
    middle: Middle,
    seconds: float = 10,
    *,
    value: literals_pb2.Literal | None = None,
    spec: task_definition_pb2.TaskSpec | None = None,
) -> None:
    order = new_run(spec=spec or sleeper(), base=middle.blobs.join("flytesnacks", "development"))
    inputs = common_pb2.Inputs()
    inputs.literals.add(name="duration", value=value or duration(seconds))
    await middle.blobs.write(order.input_uri, inputs.SerializeToString())
    await middle.ledger.create_run(order)


async def test_it_runs_for_its_time_and_ends_well_without_a_process(middle: Middle, clock: FakeClock) -> None:
    await start(middle)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    assert await middle.phase(ROOT) is Phase.RUNNING
    clock.advance(4)
    assert await middle.reconciler.reconcile(ROOT) == Requeue(6.0)
    clock.advance(6)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    (attempt,) = await middle.attempts(ROOT)
    phases = [each.phase for each in attempt.transitions]
    assert phases == [Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED]
    assert attempt.started_at
    assert attempt.ended_at
    assert (attempt.ended_at - attempt.started_at).total_seconds() == 10
    assert middle.runtime.launched == []


async def test_no_time_at_all_is_over_at_once(middle: Middle) -> None:
    await start(middle, 0)
    await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.SUCCEEDED


async def test_an_abort_ends_it(middle: Middle, clock: FakeClock) -> None:
    await start(middle)
    await middle.reconciler.reconcile(ROOT)
    await middle.ledger.abort_run(ROOT.run, "enough")
    assert await middle.reconciler.reconcile(ROOT) == Done()
    clock.advance(20)
    await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.ABORTED


async def test_its_time_counts_from_the_recorded_start_across_a_restart(middle: Middle, clock: FakeClock) -> None:
    await start(middle)
    await middle.reconciler.reconcile(ROOT)
    clock.advance(7)
    middle.reconciler._timing._countdowns._ends.clear()  # all that a process knows and a restart forgets
    assert await middle.reconciler.reconcile(ROOT) == Requeue(3.0)


async def test_max_runtime_ends_each_attempt(middle: Middle, clock: FakeClock) -> None:
    await start(middle, 10, spec=sleeper(runtime=4, retries=1))
    await middle.reconciler.reconcile(ROOT)
    for attempt in (1, 2):
        assert await middle.reconciler.reconcile(ROOT) == Requeue(4.0)
        clock.advance(4)
        await middle.reconciler.reconcile(ROOT)
        row = await middle.action(ROOT)
        assert row.phase is (Phase.QUEUED if attempt == 1 else Phase.TIMED_OUT)
        await middle.reconciler.reconcile(ROOT)
    assert [each.phase for each in await middle.attempts(ROOT)] == [Phase.TIMED_OUT, Phase.TIMED_OUT]


async def test_a_deadline_ends_it(middle: Middle, clock: FakeClock) -> None:
    await start(middle, 100, spec=sleeper(deadline=5))
    await middle.reconciler.reconcile(ROOT)
    clock.advance(5)
    await middle.reconciler.reconcile(ROOT)
    row = await middle.action(ROOT)
    assert row.phase is Phase.TIMED_OUT
    assert row.failure
    assert "deadline" in row.failure.message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (duration(-1), "must not be negative"),
        (literals_pb2.Literal(scalar={"primitive": {"integer": 3}}), "needs a duration as input"),
    ],
)
async def test_inputs_that_say_no_time_fail_it_with_words(
    middle: Middle, value: literals_pb2.Literal, words: str
) -> None:
    await start(middle, value=value)
    await middle.reconciler.reconcile(ROOT)
    row = await middle.action(ROOT)
    assert row.phase is Phase.FAILED
    assert row.failure
    assert words in row.failure.message


async def test_damaged_inputs_fail_it_with_words(middle: Middle) -> None:
    await start(middle)
    await middle.blobs.write((await middle.action(ROOT)).input_uri, b"\xff\xff")
    await middle.reconciler.reconcile(ROOT)
    assert "can't be read" in repr((await middle.action(ROOT)).failure)


async def test_inputs_that_are_too_large_fail_it_with_words(middle: Middle) -> None:
    await start(middle)
    row = await middle.action(ROOT)
    await middle.blobs.write(row.input_uri, b"x" * (LARGEST_INPUTS + 1))
    await middle.reconciler.reconcile(ROOT)
    ended = await middle.action(ROOT)
    assert ended.failure is not None
    assert (ended.phase, ended.failure.code) == (Phase.FAILED, "ObjectTooLarge")


async def test_missing_inputs_fail_it_with_words(middle: Middle) -> None:
    order = new_run(spec=sleeper(), base=middle.blobs.join("flytesnacks", "development"))
    await middle.ledger.create_run(replace(order, input_uri=""))
    await middle.reconciler.reconcile(ROOT)
    assert "finds no inputs" in repr((await middle.action(ROOT)).failure)


async def test_it_runs_by_itself_with_the_executor(middle: Middle, clock: FakeClock) -> None:
    await start(middle, 0.05)
    async with middle.operating():
        await middle.until_phase(ROOT, Phase.RUNNING)
        clock.advance(1)
        await middle.until_phase(ROOT, Phase.SUCCEEDED)


@pytest.mark.parametrize("world", World)
def test_a_template_that_can_not_say_how_long_is_refused(world: World) -> None:
    assert (plan(sleeper(), world).sleep, plan(sleeper(), world).unsupported) == ("duration", "")
    with pytest.raises(BadSleep, match="needs a duration"):
        plan(sleeper(types_pb2.INTEGER), world)
    none, back = sleeper(), sleeper()
    del none.task_template.interface.inputs.variables[:]
    back.task_template.interface.outputs.variables.add(key="o0")
    with pytest.raises(BadSleep, match="exactly one input"):
        plan(none, world)
    with pytest.raises(BadSleep, match="gives nothing back"):
        plan(back, world)


async def test_where_tasks_are_pods_it_has_a_task_action_and_no_pod(made: Cluster) -> None:
    inputs = common_pb2.Inputs()
    inputs.literals.add(name="duration", value=duration(0.2))
    await Directory(Path(made.base)).write(f"{made.base}/r1/inputs.pb", inputs.SerializeToString())
    await create(made, spec=sleeper())
    await made.api.until(lambda: "r1-a0" in made.api.names("taskactions", namespace=NAMESPACE))
    await made.api.until(lambda: "Completed" in repr(status_of(made, "r1-a0").get("conditions")))
    assert await phases(made) == [Phase.SUCCEEDED]
    assert made.api.names("pods", namespace=NAMESPACE) == []
