"""Bounds of tasks and timeouts of conditions, over the fake world: what is ended when, what is told, what follows."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from flyteidl2.task import task_definition_pb2

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure, StopReason
from flyte_manager.domain.bounds import Limit, Limits
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Launch, LaunchDelayed
from flyte_manager.domain.tasks import World
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.executor.reconcile import ROOM_CHECK_SECONDS
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.middle import middle as open_middle
from tests.fakes.orders import action_id, bounded, new_condition, new_run, new_task, task_spec
from tests.fakes.passing_time import PassingTime

ROOT = action_id()
Opened = AbstractAsyncContextManager[Middle]
Open = Callable[..., Opened]


@pytest.fixture
def pods(tmp_path: Path, clock: FakeClock) -> Open:
    """A world that leaves it to the executor to count max_runtime."""
    return lambda **more: open_middle(tmp_path, clock, kind=World.PODS, **more)


async def begin(middle: Middle, spec: task_definition_pb2.TaskSpec, name: str = "r1") -> Done | Requeue:
    await middle.ledger.create_run(new_run(name, spec=spec, base=middle.blobs.join("flytesnacks", "development")))
    return await middle.reconciler.reconcile(action_id(run=name))


async def turn(middle: Middle) -> Done | Requeue:
    return await middle.reconciler.reconcile(ROOT)


async def failure(middle: Middle) -> Failure:
    found = (await middle.action(ROOT)).failure
    assert found is not None
    return found


async def test_an_attempt_that_runs_too_long_is_reported_and_stopped(pods: Open, clock: FakeClock) -> None:
    async with pods() as middle:
        assert await begin(middle, bounded(runtime=30)) == Done()
        clock.advance(10)
        assert await turn(middle) == Done(20)
        clock.advance(20)
        assert await turn(middle) == Done()
        (attempt,) = await middle.attempts(ROOT)
        assert (attempt.phase, attempt.ended_at) == (Phase.TIMED_OUT, clock())
        assert await failure(middle) == attempt.failure
        assert await failure(middle) == Failure(
            ErrorKind.USER, "MAX_RUNTIME_EXCEEDED", "the task ran longer than its max_runtime of 30 s"
        )
        assert middle.runtime.stopped == [AttemptId(ROOT, 1)]
        assert not middle.admission._held
        assert await turn(middle) == Done()
        assert middle.reconciler._timing._countdowns._ends == {}


async def test_a_process_is_ended_by_its_own_shepherd_with_the_same_words(middle: Middle, clock: FakeClock) -> None:
    await begin(middle, bounded(runtime=30))
    assert middle.runtime.launched[0].run_seconds == 30
    clock.advance(31)
    assert await turn(middle) == Done()
    assert await middle.phase(ROOT) is Phase.RUNNING
    middle.runtime.finish(AttemptId(ROOT, 1), -15, reason=StopReason.TIMEOUT)
    await turn(middle)
    assert await middle.phase(ROOT) is Phase.TIMED_OUT
    assert await failure(middle) == Failure(
        ErrorKind.USER, "MAX_RUNTIME_EXCEEDED", "the task ran longer than its max_runtime of 30 s"
    )


async def test_each_attempt_may_run_as_long_and_counts_against_the_retries(pods: Open, clock: FakeClock) -> None:
    async with pods() as middle:
        await begin(middle, bounded(runtime=30, retries=1, backoff=10))
        clock.advance(30)
        await turn(middle)
        root = await middle.action(ROOT)
        assert (root.phase, root.attempt, root.user_failures, root.failure) == (Phase.QUEUED, 2, 1, None)
        assert middle.runtime.alive() == []
        assert await turn(middle) == Requeue(10)
        clock.advance(10)
        await turn(middle)
        clock.advance(29)
        assert await turn(middle) == Done(1)
        clock.advance(1)
        await turn(middle)
        assert [each.phase for each in await middle.attempts(ROOT)] == [Phase.TIMED_OUT] * 2
        assert await middle.phase(ROOT) is Phase.TIMED_OUT


async def test_one_that_does_not_stop_is_waited_for_before_the_next_attempt(pods: Open, clock: FakeClock) -> None:
    async with pods() as middle:
        middle.runtime.stubborn = True
        await begin(middle, bounded(runtime=30, retries=1))
        clock.advance(30)
        await turn(middle)
        assert isinstance(await turn(middle), Requeue)
        middle.runtime.finish(AttemptId(ROOT, 1), -9, reason=StopReason.ABORTED)
        await turn(middle)
        assert middle.runtime.alive() == [AttemptId(ROOT, 2)]


async def test_one_that_was_not_told_to_stop_is_told_in_the_backoff(pods: Open, clock: FakeClock) -> None:
    """The manager died, or its world did not answer, between the report and the stop."""
    async with pods() as middle:
        await begin(middle, bounded(runtime=30, retries=1, backoff=600))
        clock.advance(30)
        late = AttemptReport(AttemptId(ROOT, 1), Phase.TIMED_OUT, clock())
        await middle.ledger.report(late, Budget(retries=1, backoff_base=600))
        assert middle.runtime.alive() == [AttemptId(ROOT, 1)]
        assert await turn(middle) == Requeue(600)
        assert middle.runtime.alive() == []


async def test_an_attempt_that_ended_by_itself_keeps_its_end(pods: Open, clock: FakeClock) -> None:
    async with pods() as middle:
        await begin(middle, bounded(runtime=30, deadline=30))
        clock.advance(31)
        middle.runtime.finish(AttemptId(ROOT, 1))
        await turn(middle)
        assert await middle.phase(ROOT) is Phase.SUCCEEDED


async def test_what_waits_for_room_too_long_ends_with_why_it_waited(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock, cpu=1) as middle:
        await begin(middle, bounded(), "r0")
        assert await begin(middle, bounded(queued=60)) == Done(60)
        clock.advance(60)
        await turn(middle)
        told = await failure(middle)
        assert (await middle.phase(ROOT), told.code) == (Phase.TIMED_OUT, "QUEUED_TIMEOUT_EXCEEDED")
        assert "max_queued_time (queued_timeout) of 60 s: waits for 1 CPU and" in told.message
        assert not middle.admission.waits(ROOT)
        assert await turn(middle) == Done()
        assert len(middle.runtime.launched) == 1


async def test_a_world_without_room_is_asked_again_no_later_than_at_the_bound(
    middle: Middle, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_runtime: object, _launch: object) -> None:
        raise LaunchDelayed(problem="the quota is used up")

    monkeypatch.setattr(type(middle.runtime), "launch", full)
    assert await begin(middle, bounded(queued=8)) == Requeue(ROOM_CHECK_SECONDS)
    clock.advance(ROOM_CHECK_SECONDS)
    assert await turn(middle) == Requeue(3)
    clock.advance(3)
    await turn(middle)
    assert (await failure(middle)).message.endswith("of 8 s: the quota is used up")


async def test_what_runs_waits_no_more_and_a_backoff_is_no_waiting(middle: Middle, clock: FakeClock) -> None:
    await begin(middle, bounded(queued=60, retries=1, backoff=300))
    clock.advance(100)
    assert await turn(middle) == Done()
    middle.runtime.finish(AttemptId(ROOT, 1), 1)
    await turn(middle)
    assert await turn(middle) == Requeue(300)
    clock.advance(290)
    assert await turn(middle) == Requeue(10)
    clock.advance(10)
    assert await turn(middle) == Done(60)
    assert await middle.phase(ROOT) is Phase.RUNNING


async def test_what_a_crash_kept_from_being_told_as_started_waits_no_more(middle: Middle, clock: FakeClock) -> None:
    spec, base = bounded(queued=60), middle.blobs.join("flytesnacks", "development")
    await middle.ledger.create_run(new_run(spec=spec, base=base))
    await middle.runtime.launch(Launch(attempt=AttemptId(ROOT, 1), args=["a0"], env={}))
    clock.advance(100)
    await turn(middle)
    assert await middle.phase(ROOT) is Phase.RUNNING


async def test_the_deadline_counts_over_all_attempts_and_leaves_none(middle: Middle, clock: FakeClock) -> None:
    await begin(middle, bounded(deadline=100, retries=9, backoff=30))
    clock.advance(50)
    middle.runtime.finish(AttemptId(ROOT, 1), 1)
    await turn(middle)
    assert await turn(middle) == Requeue(30)
    clock.advance(30)
    assert await turn(middle) == Done(20)
    clock.advance(20)
    await turn(middle)
    assert [each.phase for each in await middle.attempts(ROOT)] == [Phase.FAILED, Phase.TIMED_OUT]
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt) == (Phase.TIMED_OUT, 2)
    told = await failure(middle)
    assert told.code == "DEADLINE_EXCEEDED"
    assert "deadline of 100 s, which counts over all attempts; this one was RUNNING" in told.message
    assert middle.runtime.alive() == []


async def test_a_deadline_in_a_backoff_ends_it(middle: Middle, clock: FakeClock) -> None:
    await begin(middle, bounded(deadline=100, retries=9, backoff=300))
    clock.advance(50)
    middle.runtime.finish(AttemptId(ROOT, 1), 1)
    await turn(middle)
    assert await turn(middle) == Requeue(50)
    clock.advance(50)
    await turn(middle)
    assert await middle.phase(ROOT) is Phase.TIMED_OUT
    assert (await failure(middle)).message.endswith("this one was QUEUED")


async def test_a_child_that_its_parents_retry_runs_again_has_its_deadline_anew(
    middle: Middle, clock: FakeClock
) -> None:
    child, spec = action_id("c1"), bounded(deadline=100, retries=1)
    order = new_task("c1", spec=spec, base=middle.blobs.join("flytesnacks", "development"))
    await begin(middle, task_spec(retries=1))
    await middle.ledger.enqueue(order)
    await middle.reconciler.reconcile(child)
    clock.advance(100)
    await middle.reconciler.reconcile(child)
    assert await middle.phase(child) is Phase.TIMED_OUT
    middle.runtime.finish(AttemptId(ROOT, 1), 1)
    for _ in range(2):
        await turn(middle)
    await middle.ledger.enqueue(order)
    assert await middle.reconciler.reconcile(child) == Done(100)
    clock.advance(60)
    middle.runtime.finish(AttemptId(child, 2), 1)
    for _ in range(2):
        await middle.reconciler.reconcile(child)
    assert await middle.reconciler.reconcile(child) == Done(40)
    assert await middle.phase(child) is Phase.RUNNING
    assert [launch.attempt.number for launch in middle.runtime.launched if launch.attempt.action == child] == [1, 2, 3]


async def test_the_managers_settings_bound_what_the_task_does_not(tmp_path: Path, clock: FakeClock) -> None:
    limits = Limits(max_runtime=Limit(default=60), deadline=Limit(most=120))
    async with open_middle(tmp_path, clock, limits=limits) as middle:
        await begin(middle, bounded(deadline=7200))
        (launch,) = middle.runtime.launched
        assert launch.run_seconds == 60
        assert "deadline is 2 min: it asks for 2 h; tasks.deadline.most allows no more" in launch.notes
        assert sum("tasks." in note for note in launch.notes) == 1
        assert await turn(middle) == Done(120)
        middle.runtime.finish(AttemptId(ROOT, 1), -15, reason=StopReason.TIMEOUT)
        await turn(middle)
        message = "the task ran longer than its max_runtime of 60 s (tasks.maxRuntime.default, as it names none)"
        assert (await failure(middle)).message == message


async def test_a_clock_that_is_set_ends_nothing_early_or_late(pods: Open, clock: FakeClock) -> None:
    time = PassingTime()
    async with pods(ticks=time) as middle:
        await begin(middle, bounded(runtime=30, queued=50, deadline=60, retries=1, backoff=10))
        assert await turn(middle) == Done(30)
        clock.advance(3600)
        time.now += 10
        assert await turn(middle) == Done(20)
        clock.advance(-7200)
        time.now += 20
        await turn(middle)
        assert (await middle.action(ROOT)).attempt == 2
        assert await turn(middle) == Requeue(10)
        clock.advance(-7200)
        time.now += 10
        assert await turn(middle) == Done(20)
        assert await middle.phase(ROOT) is Phase.RUNNING


@pytest.mark.parametrize(("away", "left"), [(10, 20), (-3600, 30), (3600, None)])
async def test_after_a_restart_the_clock_tells_how_much_has_passed(
    tmp_path: Path, clock: FakeClock, away: float, left: float | None
) -> None:
    base = ""
    async with open_middle(tmp_path, clock) as before:
        await begin(before, bounded(deadline=30))
        base = (await before.action(ROOT)).base_uri
    clock.advance(away)
    async with open_middle(tmp_path, clock) as after:
        await after.runtime.launch(replace(before.runtime.launched[0]))
        assert (await after.action(ROOT)).base_uri == base
        assert await turn(after) == (Done() if left is None else Done(left))
        assert await after.phase(ROOT) is (Phase.TIMED_OUT if left is None else Phase.RUNNING)


async def test_a_condition_times_out_after_a_restart_and_whatever_the_clock_does(
    tmp_path: Path, clock: FakeClock
) -> None:
    condition, time = action_id("c1"), PassingTime()
    async with open_middle(tmp_path, clock, ticks=time) as before:
        await begin(before, task_spec())
        order = new_condition("c1", timeout=100)
        await before.ledger.enqueue(replace(order, base_uri=(await before.action(ROOT)).base_uri))
        assert await before.reconciler.reconcile(condition) == Requeue(100)
        clock.advance(3600)
        time.now += 30
        assert await before.reconciler.reconcile(condition) == Requeue(70)
        clock.advance(-3570)
    async with open_middle(tmp_path, clock, ticks=time) as after:
        assert await after.reconciler.reconcile(condition) == Requeue(70)
        clock.advance(-3600)
        time.now += 70
        await after.reconciler.reconcile(condition)
        assert await after.phase(condition) is Phase.TIMED_OUT


async def test_a_condition_that_is_asked_again_has_its_timeout_anew(middle: Middle, clock: FakeClock) -> None:
    condition = action_id("c1")
    await begin(middle, task_spec(retries=1))
    order = replace(new_condition("c1", timeout=100), base_uri=(await middle.action(ROOT)).base_uri)
    await middle.ledger.enqueue(order)
    clock.advance(100)
    await middle.reconciler.reconcile(condition)
    assert await middle.phase(condition) is Phase.TIMED_OUT
    middle.runtime.finish(AttemptId(ROOT, 1), 1)
    await turn(middle)
    await middle.ledger.enqueue(order)
    assert await middle.reconciler.reconcile(condition) == Requeue(100)


async def test_a_spec_that_cannot_be_read_is_refused_by_its_launch(middle: Middle) -> None:
    await begin(middle, task_spec(memory="lots"))
    assert (await middle.phase(ROOT), (await failure(middle)).code) == (Phase.FAILED, "BadQuantity")
