"""Creating, enqueueing, reporting, aborting, signalling: what the rows say afterwards."""

from dataclasses import replace

import pytest

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure
from flyte_manager.domain.errors import ActionDiffers, NotGiven, RunDiffers, RunEnded, UnknownAction, UnknownRun
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.lifecycle import NotATaskPhase
from flyte_manager.domain.orders import NewAction
from flyte_manager.domain.phases import Phase
from flyte_manager.ledger.ledger import BaseDiffers, NotACondition, SignalledAlready
from flyte_manager.ledger.watch import UnknownAttempt
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle, told
from tests.fakes.orders import action_id, new_condition, new_run, new_task, new_trace, run_id, task_spec

ROOT = action_id()
NONE = Budget()
USER = Failure(ErrorKind.USER, "ValueError", "no", recoverable=True)


async def report(middle: Middle, name: str, phase: Phase, clock: FakeClock, budget: Budget = NONE) -> None:
    action = await middle.action(action_id(name))
    failure = USER if phase in (Phase.FAILED, Phase.TIMED_OUT) else None
    await middle.ledger.report(told(action, phase, clock, failure=failure), budget)


async def test_creating_a_run_again_gives_the_same_run(middle: Middle, clock: FakeClock) -> None:
    run, root = await middle.ledger.create_run(new_run())
    await report(middle, "a0", Phase.RUNNING, clock)
    clock.advance(5)
    again, found = await middle.ledger.create_run(new_run())
    assert again.created_at == run.created_at
    assert (root.phase, found.phase) == (Phase.QUEUED, Phase.RUNNING)
    assert len(await middle.attempts(ROOT)) == 1


async def test_a_run_with_the_same_name_and_other_content_is_refused(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    with pytest.raises(RunDiffers):
        await middle.ledger.create_run(new_run(digest="other"))


async def test_the_run_mirrors_its_root(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    clock.advance(1)
    await report(middle, "a0", Phase.RUNNING, clock)
    started = (await middle.reader.run(run_id())).started_at
    clock.advance(1)
    await report(middle, "a0", Phase.SUCCEEDED, clock)
    run = await middle.reader.run(run_id())
    assert (run.phase, run.started_at, run.ended_at) == (Phase.SUCCEEDED, started, clock())


async def test_enqueueing_again_changes_nothing(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    before = await middle.action(action_id("c1"))
    await middle.ledger.enqueue(new_task("c1"))
    assert await middle.action(action_id("c1")) == before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (new_task("c1", parent="c0"), "parent"),
        (new_trace("c1"), "kind"),
        (new_task("c1", spec=task_spec("hello.other")), "task"),
        (new_task("c1", spec=task_spec("hello.child", version="v2")), "task"),
        (replace(new_task("c1"), input_uri="/elsewhere/inputs.pb"), "input_uri"),
    ],
)
async def test_an_action_enqueued_with_other_content_is_refused(
    middle: Middle, other: NewAction, difference: str
) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c0"))
    await middle.ledger.enqueue(new_task("c1"))
    with pytest.raises(ActionDiffers, match=difference):
        await middle.ledger.enqueue(other)


async def test_an_enqueue_tells_what_is_missing(middle: Middle, clock: FakeClock) -> None:
    with pytest.raises(UnknownRun):
        await middle.ledger.enqueue(new_task("c1"))
    await middle.ledger.create_run(new_run())
    with pytest.raises(UnknownAction):
        await middle.ledger.enqueue(new_task("c1", parent="nobody"))
    with pytest.raises(NotGiven):
        await middle.ledger.enqueue(new_task("c1", parent=""))
    with pytest.raises(BaseDiffers):
        await middle.ledger.enqueue(replace(new_task("c1"), base_uri="/elsewhere"))
    await middle.ledger.enqueue(replace(new_task("c1"), base_uri=f"{new_run().base_uri}/"))
    await report(middle, "a0", Phase.SUCCEEDED, clock)
    with pytest.raises(RunEnded):
        await middle.ledger.enqueue(new_task("c2"))
    await middle.ledger.enqueue(new_task("c1"))
    assert await middle.phase(action_id("c1")) is Phase.ABORTED


async def test_a_failed_attempt_and_the_next_one_appear_together(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await report(middle, "a0", Phase.RUNNING, clock)
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1, backoff_base=10))
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt, root.failure) == (Phase.QUEUED, 2, None)
    assert root.not_before is not None
    assert (root.not_before - clock()).total_seconds() == 10
    assert (await middle.reader.run(run_id())).phase is Phase.QUEUED
    first, second = await middle.attempts(ROOT)
    assert (first.phase, first.failure, second.phase) == (Phase.FAILED, USER, Phase.QUEUED)
    assert second.output_uri.endswith("/a0/2")


async def test_the_first_final_report_wins_and_later_ones_are_events(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await report(middle, "a0", Phase.SUCCEEDED, clock)
    before = await middle.action(ROOT)
    for _ in range(2):
        await report(middle, "a0", Phase.FAILED, clock)
    await report(middle, "a0", Phase.SUCCEEDED, clock)
    await report(middle, "a0", Phase.RUNNING, clock)
    assert await middle.action(ROOT) == before
    (attempt,) = await middle.attempts(ROOT)
    assert [event.message for event in attempt.events] == ["reported FAILED after the attempt had ended: no"]


async def test_a_late_report_of_a_former_attempt_leaves_the_present_one(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1))
    late = AttemptReport(AttemptId(ROOT, 1), Phase.SUCCEEDED, clock())
    await middle.ledger.report(late, NONE)
    assert await middle.phase(ROOT) is Phase.QUEUED
    first, second = await middle.attempts(ROOT)
    assert (first.phase, len(first.events), second.phase) == (Phase.FAILED, 1, Phase.QUEUED)


async def test_a_report_of_what_never_was_is_refused(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    with pytest.raises(UnknownAttempt):
        await middle.ledger.report(AttemptReport(AttemptId(ROOT, 7), Phase.RUNNING, clock()), NONE)
    with pytest.raises(UnknownAction):
        await middle.ledger.report(AttemptReport(AttemptId(action_id("x"), 1), Phase.RUNNING, clock()), NONE)
    with pytest.raises(NotATaskPhase):
        await report(middle, "a0", Phase.PAUSED, clock)
    await middle.ledger.enqueue(new_condition("c1"))
    with pytest.raises(UnknownAttempt):
        await report(middle, "c1", Phase.SUCCEEDED, clock)


async def test_live_children_end_with_their_parent(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    await middle.ledger.enqueue(new_task("c2"))
    await middle.ledger.enqueue(new_condition("c3", parent="c2"))
    await report(middle, "c1", Phase.SUCCEEDED, clock)
    await report(middle, "a0", Phase.SUCCEEDED, clock)
    assert await middle.phase(action_id("c1")) is Phase.SUCCEEDED
    for name in ("c2", "c3"):
        child = await middle.action(action_id(name))
        assert (child.phase, child.reason) == (Phase.ABORTED, "parent ended")
    assert (await middle.attempts(action_id("c2")))[0].phase is Phase.ABORTED


async def test_children_outlive_a_failed_attempt_of_their_parent(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1))
    assert await middle.phase(action_id("c1")) is Phase.QUEUED


async def test_an_abort_ends_the_action_and_what_is_below_it_only(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    for name, parent in (("c1", "a0"), ("c2", "a0"), ("d1", "c1"), ("e1", "d1")):
        await middle.ledger.enqueue(new_task(name, parent=parent))
    for _ in range(2):
        await middle.ledger.abort_action(action_id("c1"), "enough")
    phases = [await middle.phase(action_id(name)) for name in ("a0", "c1", "d1", "e1", "c2")]
    assert phases == [Phase.QUEUED, Phase.ABORTED, Phase.ABORTED, Phase.ABORTED, Phase.QUEUED]
    assert (await middle.action(action_id("c1"))).reason == "enough"
    with pytest.raises(UnknownAction):
        await middle.ledger.abort_action(action_id("nobody"), "")


async def test_an_aborted_run_stays_aborted(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.abort_run(run_id(), "first")
    await middle.ledger.abort_run(run_id(), "second")
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=3))
    root = await middle.action(ROOT)
    assert (root.phase, root.reason, root.attempt) == (Phase.ABORTED, "first", 1)
    with pytest.raises(UnknownRun):
        await middle.ledger.abort_run(run_id("r2"), "")


async def test_a_parents_next_attempt_may_run_failed_children_again(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    for name, phase in (("c1", Phase.FAILED), ("c2", Phase.TIMED_OUT), ("c3", Phase.SUCCEEDED)):
        await middle.ledger.enqueue(new_task(name))
        await report(middle, name, phase, clock)
    await middle.ledger.enqueue(new_task("c4"))
    await middle.ledger.abort_action(action_id("c4"), "a sibling failed")
    await middle.ledger.enqueue(new_task("c1"))
    assert await middle.phase(action_id("c1")) is Phase.FAILED  # in the same attempt of the parent: no
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1))
    for name in ("c1", "c2", "c3", "c4"):
        for _ in range(2):
            await middle.ledger.enqueue(new_task(name))
    found = [await middle.action(action_id(name)) for name in ("c1", "c2", "c3", "c4")]
    assert [each.attempt for each in found] == [2, 2, 1, 2]
    assert [each.phase for each in found] == [Phase.QUEUED, Phase.QUEUED, Phase.SUCCEEDED, Phase.QUEUED]
    assert {each.user_failures for each in found} == {0}
    assert (found[3].reason, found[3].ended_at) == ("", None)


async def test_a_child_that_is_run_again_may_run_its_own_children_again(middle: Middle, clock: FakeClock) -> None:
    """They were aborted when it failed, and would end its next attempt at once."""
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    await middle.ledger.enqueue(new_task("d1", parent="c1"))
    await report(middle, "c1", Phase.FAILED, clock)
    assert await middle.phase(action_id("d1")) is Phase.ABORTED
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1))
    await middle.ledger.enqueue(new_task("c1"))
    await middle.ledger.enqueue(new_task("d1", parent="c1"))
    assert await middle.phase(action_id("d1")) is Phase.QUEUED


async def test_a_state_put_after_a_childs_end_does_not_make_its_end_new(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    await report(middle, "c1", Phase.FAILED, clock)
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1))
    await middle.ledger.put_state(action_id("c1"), '{"note": 1}', phase=None, failure=None, budget=NONE)
    assert (await middle.action(action_id("c1"))).state == '{"note": 1}'
    await middle.ledger.enqueue(new_task("c1"))
    assert await middle.phase(action_id("c1")) is Phase.QUEUED


async def test_a_put_state_reports_its_phase_and_keeps_the_document(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    document = '{"phase": "PHASE_RUNNING", "more": 1}'
    for _ in range(2):
        await middle.ledger.put_state(ROOT, document, phase=Phase.RUNNING, failure=None, budget=NONE)
    root = await middle.action(ROOT)
    assert (root.phase, root.state) == (Phase.RUNNING, document)
    late = '{"phase": "PHASE_QUEUED"}'
    await middle.ledger.put_state(ROOT, late, phase=Phase.QUEUED, failure=None, budget=NONE)
    assert (await middle.action(ROOT)).state == document
    failed = '{"phase": "PHASE_FAILED"}'
    await middle.ledger.put_state(ROOT, failed, phase=Phase.FAILED, failure=USER, budget=Budget(retries=1))
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt) == (Phase.QUEUED, 2)
    assert "PHASE_QUEUED" in root.state


async def test_a_failed_trace_is_replaced_and_a_good_one_is_not(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_trace("t1", phase=Phase.FAILED), failure=USER)
    failed = await middle.action(action_id("t1"))
    assert (failed.phase, failed.failure) == (Phase.FAILED, USER)
    await middle.ledger.enqueue(new_trace("t1", phase=Phase.FAILED), failure=USER)
    assert await middle.action(action_id("t1")) == failed
    clock.advance(1)
    await middle.ledger.enqueue(new_trace("t1"))
    good = await middle.action(action_id("t1"))
    assert (good.phase, good.failure, good.ended_at) == (Phase.SUCCEEDED, None, clock())
    assert good.spec == new_trace("t1").spec
    assert good.output_uri.endswith("/t1/outputs.pb")
    assert "PHASE_SUCCEEDED" in good.state
    assert good.revision > failed.revision
    await middle.ledger.enqueue(new_trace("t1", phase=Phase.FAILED), failure=USER)
    assert await middle.action(action_id("t1")) == good


async def test_a_condition_takes_one_answer(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_condition("c1"))
    assert await middle.phase(action_id("c1")) is Phase.PAUSED
    for _ in range(2):
        await middle.ledger.signal(action_id("c1"), b"yes")
    answered = await middle.action(action_id("c1"))
    assert (answered.phase, answered.value) == (Phase.SUCCEEDED, b"yes")
    with pytest.raises(SignalledAlready):
        await middle.ledger.signal(action_id("c1"), b"no")
    await middle.ledger.expire(action_id("c1"), "too late")
    assert await middle.action(action_id("c1")) == answered
    with pytest.raises(NotACondition):
        await middle.ledger.signal(ROOT, b"yes")


async def test_an_ended_condition_takes_no_answer(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_condition("c1"))
    await middle.ledger.enqueue(new_condition("c2"))
    await middle.ledger.expire(action_id("c1"), "nobody came")
    expired = await middle.action(action_id("c1"))
    assert (expired.phase, expired.failure and expired.failure.message) == (Phase.TIMED_OUT, "nobody came")
    await report(middle, "a0", Phase.SUCCEEDED, clock)
    for name in ("c1", "c2"):
        with pytest.raises(SignalledAlready):
            await middle.ledger.signal(action_id(name), b"yes")


async def test_a_stale_condition_is_asked_again_with_a_new_timeout(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_condition("c1", timeout=10))
    clock.advance(11)
    await middle.ledger.expire(action_id("c1"), "nobody came")
    await report(middle, "a0", Phase.FAILED, clock, Budget(retries=1))
    await middle.ledger.enqueue(new_condition("c1", timeout=10))
    asked = await middle.action(action_id("c1"))
    assert (asked.phase, asked.failure, asked.started_at, asked.ended_at) == (Phase.PAUSED, None, clock(), None)
    assert "PHASE_PAUSED" in asked.state
    await middle.ledger.signal(action_id("c1"), b"yes")
    assert await middle.phase(action_id("c1")) is Phase.SUCCEEDED
