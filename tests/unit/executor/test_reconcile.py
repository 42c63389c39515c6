"""One action at a time, over the fake world: what is launched, stopped, reported, counted."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from flyteidl2.core import execution_pb2, security_pb2
from flyteidl2.task import run_pb2, task_definition_pb2

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Event, Failure, Place, StopReason
from flyte_manager.domain.errors import Unready
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.orders import NewAction, NewRun
from flyte_manager.domain.phases import ROAD, Phase
from flyte_manager.domain.ports import Launch
from flyte_manager.executor import launching, outcome
from flyte_manager.executor.admission import Demand
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.wire.updates import ERROR_LIMIT
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.middle import middle as open_middle
from tests.fakes.orders import action_id, new_condition, new_run, new_task, run_id, task_spec

ROOT = action_id()
FIRST = AttemptId(ROOT, 1)


def run_in(middle: Middle, name: str = "r1", spec: task_definition_pb2.TaskSpec | None = None) -> NewRun:
    return new_run(name, spec=spec, base=middle.blobs.join("flytesnacks", "development"))


def child_in(middle: Middle, name: str, spec: task_definition_pb2.TaskSpec | None = None) -> NewAction:
    return new_task(name, spec=spec, base=middle.blobs.join("flytesnacks", "development"))


async def start(middle: Middle, spec: task_definition_pb2.TaskSpec | None = None) -> None:
    await middle.ledger.create_run(run_in(middle, spec=spec))
    assert await middle.reconciler.reconcile(ROOT) == Done()


async def write_error(middle: Middle, attempt: AttemptId, *, recoverable: bool = True, system: bool = False) -> None:
    kinds, error = execution_pb2.ContainerError, execution_pb2.ContainerError(code="ValueError", message="no")
    error.kind = kinds.RECOVERABLE if recoverable else kinds.NON_RECOVERABLE
    error.origin = execution_pb2.ExecutionError.SYSTEM if system else execution_pb2.ExecutionError.USER
    document = execution_pb2.ErrorDocument(error=error)
    action = await middle.action(attempt.action)
    uri = f"{action.output_prefix(attempt.number)}/error.pb"
    await middle.blobs.write(uri, document.SerializeToString())


def is_idle(middle: Middle) -> bool:
    each = middle.admission
    return not (each._held or each._waiting or each._children or each._depths or each._leaves)


async def test_a_queued_action_is_launched_once_however_often_it_is_looked_at(middle: Middle) -> None:
    await start(middle)
    for _ in range(3):
        assert await middle.reconciler.reconcile(ROOT) == Done()
    assert [launch.attempt for launch in middle.runtime.launched] == [FIRST]
    assert await middle.phase(ROOT) is Phase.RUNNING
    (attempt,) = await middle.attempts(ROOT)
    assert [each.phase for each in attempt.transitions] == [Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING]


async def test_a_launch_carries_what_the_task_needs(middle: Middle) -> None:
    await middle.ledger.create_run(replace(run_in(middle), run_spec=new_run(envs={"LOG_LEVEL": "10"}).run_spec))
    await middle.reconciler.reconcile(ROOT)
    (launch,) = middle.runtime.launched
    base = run_in(middle).base_uri
    assert list(launch.args) == ["a0", "--inputs", f"{base}/inputs.pb", "--outputs-path", f"{base}/a0/1"]
    assert launch.env["LOG_LEVEL"] == "10"
    assert launch.env["_U_RUN_BASE"] == base
    assert launch.env["ACTION_NAME"] == "a0"
    assert launch.env["FLYTE_ATTEMPT_NUMBER"] == "0"


async def test_each_launch_tells_when_the_run_began(middle: Middle, clock: FakeClock) -> None:
    """Of children, too: upstream fills it in for roots only."""
    spec = task_spec()
    spec.task_template.container.args.append("{{.runStartTime}}")
    order = run_in(middle, spec=spec)
    run_spec = run_pb2.RunSpec()
    run_spec.run_start_time.FromJsonString("2026-01-02T03:04:05Z")
    await middle.ledger.create_run(replace(order, run_spec=run_spec.SerializeToString()))
    await middle.reconciler.reconcile(ROOT)
    clock.advance(60)
    await middle.ledger.enqueue(child_in(middle, "c1", spec))
    await middle.reconciler.reconcile(action_id("c1"))
    assert [launch.args[-1] for launch in middle.runtime.launched] == ["2026-01-02T03:04:05.000000Z"] * 2


async def test_an_end_is_reported_with_all_phases_and_frees_what_was_held(middle: Middle, clock: FakeClock) -> None:
    await start(middle)
    clock.advance(2)
    middle.runtime.finish(FIRST)
    for _ in range(2):
        await middle.reconciler.reconcile(ROOT)
    root = await middle.action(ROOT)
    assert (root.phase, root.ended_at) == (Phase.SUCCEEDED, clock())
    (attempt,) = await middle.attempts(ROOT)
    assert attempt.usage is not None
    assert attempt.usage.peak_memory == 64 << 20
    assert middle.runtime.forgotten == [FIRST]
    assert is_idle(middle)


async def test_where_it_runs_and_what_is_told_of_it_is_kept_also_when_nothing_else_changes(
    middle: Middle, clock: FakeClock
) -> None:
    pulled, evicted = Event(clock(), "pulled"), Event(clock(), "no space left", "Evicted", warning=True)
    late = Event(clock(), "node went away", "NodeNotReady", warning=True)
    middle.runtime.place, middle.runtime.events = Place("flyte", "r1-a0-0"), (pulled,)
    await start(middle)
    present = await middle.reader.attempt(ROOT)
    assert (present.place, present.events) == (Place("flyte", "r1-a0-0"), (pulled,))
    middle.runtime.events = (pulled, evicted)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    assert (await middle.reader.attempt(ROOT)).events == (pulled, evicted)
    middle.runtime.place = Place("flyte", "r1-a0-0", node="node-1")
    middle.runtime.finish(FIRST, 0)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    middle.runtime.events = (pulled, evicted, late)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    ended = await middle.reader.attempt(ROOT)
    assert (ended.phase, ended.place) == (Phase.SUCCEEDED, middle.runtime.place)
    assert ended.events == (pulled, evicted, late)


async def test_a_fast_task_is_first_seen_finished_with_the_phases_between(middle: Middle) -> None:
    async def at_once(_launch: Launch) -> int:
        return 0

    middle.runtime.program = at_once
    await start(middle)
    await asyncio.sleep(0.01)
    await middle.reconciler.reconcile(ROOT)
    (attempt,) = await middle.attempts(ROOT)
    assert [each.phase for each in attempt.transitions if each.phase in ROAD][-1] is Phase.RUNNING
    assert attempt.phase is Phase.SUCCEEDED


async def test_after_a_restart_running_attempts_are_adopted_and_counted(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock) as before:
        await start(before)
        await before.ledger.enqueue(child_in(before, "c1"))
        world = before.runtime
    async with open_middle(tmp_path, clock) as after:
        after.runtime._lives = world._lives
        keys = list(await after.reconciler.list_all())
        assert keys == [ROOT, action_id("c1")]
        for key in keys:
            await after.reconciler.reconcile(key)
        assert [launch.attempt.action.name for launch in after.runtime.launched] == ["c1"]
        assert after.admission._held.keys() == set(keys)


@pytest.mark.parametrize(("recoverable", "attempts"), [(True, 2), (False, 1)])
async def test_user_failures_are_retried_while_the_budget_lasts(
    middle: Middle, recoverable: bool, attempts: int
) -> None:
    await start(middle, task_spec(retries=1))
    for number in range(1, attempts + 1):
        await write_error(middle, AttemptId(ROOT, number), recoverable=recoverable)
        middle.runtime.finish(AttemptId(ROOT, number))
        for _ in range(2):
            await middle.reconciler.reconcile(ROOT)
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt, root.user_failures) == (Phase.FAILED, attempts, attempts)
    assert root.failure == Failure(ErrorKind.USER, "ValueError", "no", recoverable)
    assert len(middle.runtime.launched) == attempts
    assert is_idle(middle)


async def test_a_vanished_attempt_is_a_system_failure_and_does_not_cost_the_users_budget(middle: Middle) -> None:
    await start(middle)
    for number in range(1, 5):
        middle.runtime.vanish(AttemptId(ROOT, number))
        for _ in range(2):
            await middle.reconciler.reconcile(ROOT)
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt, root.user_failures, root.system_failures) == (Phase.FAILED, 4, 0, 4)
    assert root.failure is not None
    assert (root.failure.kind, root.failure.code) == (ErrorKind.SYSTEM, "ProcessVanished")


async def test_a_process_that_dies_without_a_word_counts_as_the_users(middle: Middle) -> None:
    await start(middle)
    middle.runtime.finish(FIRST, 3)
    await middle.reconciler.reconcile(ROOT)
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert (root.phase, root.failure.kind) == (Phase.FAILED, ErrorKind.USER)
    assert "exit code 3" in root.failure.message


async def test_outputs_that_the_manager_can_not_hold_fail_the_task_for_good(
    middle: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "LARGEST_OUTPUTS", 1 << 20)
    await start(middle, task_spec(outputs=True, retries=3))
    await middle.blobs.write(f"{run_in(middle).base_uri}/a0/1/outputs.pb", b"x" * ((1 << 20) + 1))
    middle.runtime.finish(FIRST)
    await middle.reconciler.reconcile(ROOT)
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert (root.phase, root.failure.code) == (Phase.FAILED, "OutputsTooLarge")
    assert "more than 1 MiB" in root.failure.message


@pytest.mark.parametrize(("inputs", "code"), [(b"\xff\xff", "Unreadable"), (b"x" * ((1 << 20) + 1), "ObjectTooLarge")])
async def test_arguments_of_inputs_that_can_not_be_read_fail_the_task(
    middle: Middle, monkeypatch: pytest.MonkeyPatch, inputs: bytes, code: str
) -> None:
    monkeypatch.setattr(launching, "LARGEST_INPUTS", 1 << 20)
    spec = task_spec(retries=3)
    spec.task_template.container.args.append("{{.inputs.x}}")
    await middle.blobs.write(run_in(middle).input_uri, inputs)
    await start(middle, spec)
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert (root.phase, root.failure.code) == (Phase.FAILED, code)


class KeyLost(Unready):
    """the key of the secrets is another one."""


async def test_a_secret_that_can_not_be_opened_fails_the_task(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise KeyLost

    monkeypatch.setattr(type(middle.secrets), "give", fails)
    spec = task_spec(retries=3)
    spec.task_template.security_context.secrets.append(security_pb2.Secret(key="token", env_var="TOKEN"))
    await start(middle, spec)
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert (root.phase, root.failure.code) == (Phase.FAILED, "KeyLost")


async def test_a_timeout_of_the_world_ends_as_timed_out(middle: Middle) -> None:
    await start(middle)
    middle.runtime.finish(FIRST, -15, reason=StopReason.TIMEOUT)
    await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.TIMED_OUT


async def test_an_error_too_large_to_read_still_ends_the_attempt(middle: Middle) -> None:
    await start(middle)
    await middle.blobs.write(f"{run_in(middle).base_uri}/a0/1/error.pb", b"x" * (ERROR_LIMIT + 1))
    middle.runtime.finish(FIRST)
    await middle.reconciler.reconcile(ROOT)
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert (root.phase, root.failure.code) == (Phase.FAILED, "ErrorTooLarge")


@pytest.mark.parametrize("content", [b"", b"\xff\xff"])
async def test_a_broken_error_is_a_system_failure(middle: Middle, content: bytes) -> None:
    await start(middle)
    await middle.blobs.write(f"{run_in(middle).base_uri}/a0/1/error.pb", content)
    middle.runtime.finish(FIRST)
    await middle.reconciler.reconcile(ROOT)
    (first, _) = await middle.attempts(ROOT)
    assert first.failure is not None
    assert first.failure.code == "BrokenErrorDocument"


async def test_the_next_attempt_waits_for_its_backoff(middle: Middle, clock: FakeClock) -> None:
    await start(middle, task_spec(retries=1, backoff=10))
    middle.runtime.finish(FIRST, 1)
    await middle.reconciler.reconcile(ROOT)
    assert await middle.reconciler.reconcile(ROOT) == Requeue(10)
    clock.advance(4)
    assert await middle.reconciler.reconcile(ROOT) == Requeue(6)
    clock.advance(6)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    assert [launch.attempt.number for launch in middle.runtime.launched] == [1, 2]


async def test_an_aborted_action_is_stopped_and_never_launched_again(middle: Middle) -> None:
    await start(middle)
    await middle.ledger.abort_run(run_id(), "enough")
    for _ in range(3):
        assert await middle.reconciler.reconcile(ROOT) == Done()
    assert middle.runtime.stopped == [FIRST]
    root = await middle.action(ROOT)
    assert (root.phase, root.reason) == (Phase.ABORTED, "enough")
    assert is_idle(middle)


async def test_an_action_aborted_before_its_launch_is_never_launched(middle: Middle) -> None:
    await middle.ledger.create_run(run_in(middle))
    await middle.ledger.abort_run(run_id(), "enough")
    await middle.reconciler.reconcile(ROOT)
    assert middle.runtime.launched == []
    assert is_idle(middle)


async def test_an_abort_in_the_middle_of_a_launch_leaves_nothing_running_or_held(middle: Middle) -> None:
    """The turn works with a row that has become old; the next one puts it right."""
    await middle.ledger.create_run(run_in(middle))
    turn = asyncio.create_task(middle.reconciler.reconcile(ROOT))
    await middle.ledger.abort_run(run_id(), "enough")
    await turn
    await middle.reconciler.reconcile(ROOT)
    assert middle.runtime.alive() == []
    assert is_idle(middle)


async def test_what_an_old_row_took_is_given_back_by_the_next_turn(middle: Middle) -> None:
    await start(middle)
    old = await middle.action(ROOT)
    await middle.ledger.abort_run(run_id(), "enough")
    middle.admission.track(old)
    middle.admission.adopt(old, Demand())
    assert not is_idle(middle)
    await middle.reconciler.reconcile(ROOT)
    assert is_idle(middle)


async def test_a_former_attempt_that_lives_is_stopped_before_the_next_starts(middle: Middle, clock: FakeClock) -> None:
    await start(middle)
    middle.runtime.stubborn = True
    failure = Failure(ErrorKind.USER, "Reported", "by somebody else")
    await middle.ledger.report(AttemptReport(FIRST, Phase.FAILED, clock(), failure=failure), Budget(retries=1))
    assert isinstance(await middle.reconciler.reconcile(ROOT), Requeue)
    assert [launch.attempt for launch in middle.runtime.launched] == [FIRST]
    middle.runtime.finish(FIRST)
    await middle.reconciler.reconcile(ROOT)
    assert [launch.attempt.number for launch in middle.runtime.launched] == [1, 2]


async def test_a_former_attempt_that_lives_is_stopped_when_the_action_is_aborted(
    middle: Middle, clock: FakeClock
) -> None:
    await start(middle)
    failure = Failure(ErrorKind.USER, "Reported", "by somebody else")
    await middle.ledger.report(AttemptReport(FIRST, Phase.FAILED, clock(), failure=failure), Budget(retries=1))
    await middle.ledger.abort_run(run_id(), "enough")
    await middle.reconciler.reconcile(ROOT)
    assert middle.runtime.alive() == []


async def test_a_world_that_is_not_ready_fails_nothing(middle: Middle) -> None:
    middle.runtime.failing = 1
    await middle.ledger.create_run(run_in(middle))
    with pytest.raises(OSError, match="not ready"):
        await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.QUEUED
    await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.RUNNING


async def test_a_refusal_of_the_world_fails_the_action_with_its_words(middle: Middle) -> None:
    middle.runtime.refusal = "no such program"
    await start(middle, task_spec(retries=3))
    root = await middle.action(ROOT)
    assert root.failure == Failure(ErrorKind.USER, "LaunchRefused", "no such program", recoverable=False)
    assert (root.phase, root.attempt) == (Phase.FAILED, 1)
    await middle.reconciler.reconcile(ROOT)
    assert is_idle(middle)


@pytest.mark.parametrize("memory", ["lots", "1e400"])
async def test_a_task_that_cannot_be_read_fails_with_the_reason(middle: Middle, memory: str) -> None:
    await start(middle, task_spec(memory=memory))
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert (root.phase, root.failure.code) == (Phase.FAILED, "BadQuantity")


async def test_a_missing_secret_fails_the_action_and_a_present_one_reaches_the_task(middle: Middle) -> None:
    spec = task_spec()
    secret = security_pb2.Secret(key="token", mount_requirement=security_pb2.Secret.ENV_VAR)
    spec.task_template.security_context.secrets.append(secret)
    await start(middle, spec)
    root = await middle.action(ROOT)
    assert root.failure is not None
    assert root.failure.code == "SecretMissing"
    assert "flyte create secret token" in root.failure.message
    middle.secrets.values["token"] = b"hush"
    await middle.ledger.create_run(run_in(middle, "r2", spec))
    await middle.reconciler.reconcile(action_id(run="r2"))
    assert middle.runtime.launched[0].secret_env == {"TOKEN": b"hush"}


async def test_what_does_not_fit_waits_and_is_woken_by_an_end(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock, cpu=1) as middle:
        await start(middle, task_spec(cpu="1"))
        await middle.ledger.create_run(run_in(middle, "r2", task_spec(cpu="1")))
        second = action_id(run="r2")
        for _ in range(2):
            await middle.reconciler.reconcile(second)
        waiting = await middle.action(second)
        assert waiting.phase is Phase.WAITING_FOR_RESOURCES
        assert waiting.reason.startswith("waits for 1 CPU")
        assert list(await middle.reconciler.list_all()) == [ROOT]  # its turn wakes it, a listing need not
        middle.runtime.finish(FIRST)
        await middle.reconciler.reconcile(ROOT)
        assert second in middle.controller._news
        await middle.reconciler.reconcile(second)
        assert await middle.phase(second) is Phase.RUNNING


async def test_one_in_line_has_a_turn_when_it_may_start_or_has_ended_and_not_for_being_there(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with open_middle(tmp_path, clock, cpu=1) as middle:
        await start(middle, task_spec(cpu="1"))
        await middle.ledger.create_run(run_in(middle, "r2", task_spec(cpu="1")))
        second, lines = action_id(run="r2"), (middle.controller._waiting, middle.controller._news)
        assert second in middle.controller._waiting
        middle.controller._waiting.clear()
        await middle.reconciler.reconcile(second)
        assert await middle.phase(second) is Phase.WAITING_FOR_RESOURCES
        assert not any(second in line for line in lines)
        await middle.ledger.abort_run(second.run, "no more")
        assert any(second in line for line in lines)


async def test_one_that_waits_is_not_written_again_when_others_come_and_go(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock, cpu=1) as middle:
        await start(middle, task_spec(cpu="1"))
        await middle.ledger.create_run(run_in(middle, "r2", task_spec(cpu="1")))
        await middle.reconciler.reconcile(action_id(run="r2"))
        waiting = await middle.action(action_id(run="r2"))
        await middle.ledger.create_run(run_in(middle, "r3", task_spec(cpu="1")))
        await middle.reconciler.reconcile(action_id(run="r3"))
        assert "2 in line" in (await middle.action(action_id(run="r3"))).reason
        await middle.reconciler.reconcile(waiting.id)
        assert await middle.action(waiting.id) == waiting


async def test_a_request_above_the_machine_is_clamped_and_the_log_says_so(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock, cpu=2) as middle:
        await start(middle, task_spec(cpu="64"))
        assert any("it asks for 64 CPU" in note for note in middle.runtime.launched[0].notes)


async def test_a_condition_times_out_and_one_without_a_timeout_waits_for_ever(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(run_in(middle))
    for name, timeout in (("c1", 10), ("c2", 0)):
        base = run_in(middle).base_uri
        await middle.ledger.enqueue(replace(new_condition(name, timeout=timeout), base_uri=base))
    assert await middle.reconciler.reconcile(action_id("c2")) == Done()
    clock.advance(4)
    assert await middle.reconciler.reconcile(action_id("c1")) == Requeue(6)
    clock.advance(6)
    assert await middle.reconciler.reconcile(action_id("c1")) == Done()
    condition = await middle.action(action_id("c1"))
    assert condition.phase is Phase.TIMED_OUT
    assert condition.failure is not None
    assert condition.failure.message == "nobody answered condition 'ok?' in 10 s"


async def test_a_key_without_a_row_is_done(middle: Middle) -> None:
    assert await middle.reconciler.reconcile(action_id("nobody")) == Done()


async def test_a_tree_of_tasks_runs_through_the_whole_executor(tmp_path: Path, clock: FakeClock) -> None:
    """Parents enqueue children and wait for them, three levels deep, with less room than parents."""

    async def program(launch: Launch) -> int:
        action = launch.attempt.action
        depth = action.name.count("-")
        if depth == 2:
            return 0
        names = [f"{action.name}-{number}" for number in range(4)]
        for name in names:
            order = child_in(middle, name, task_spec("hello.child", cpu="1"))
            await middle.ledger.enqueue(replace(order, parent=action.name))
        left = set(names)
        async for page in middle.reader.follow_children(ActionId(action.run, action.name)):
            left -= {child.id.name for child in page or () if child.phase is Phase.SUCCEEDED}
            if not left:
                return 0
        return 1

    async with open_middle(tmp_path, clock, cpu=2, memory=1 << 30, program=program) as middle, middle.operating():
        await middle.ledger.create_run(run_in(middle, spec=task_spec(cpu="1")))
        await middle.until_phase(ROOT, Phase.SUCCEEDED)

        async def idle() -> bool:
            return is_idle(middle)

        await middle.until(idle)
        assert len(middle.runtime.launched) == len({launch.attempt for launch in middle.runtime.launched}) == 21
