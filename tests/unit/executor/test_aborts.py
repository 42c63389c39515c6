"""Aborts at every moment of an action's life: one end, nothing left running or held, and no second word about it."""

import asyncio
import logging
from dataclasses import replace

import pytest

from flyte_manager.domain.attempts import StopReason
from flyte_manager.domain.errors import RunEnded
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import FINAL, Phase
from flyte_manager.executor.controller import Done
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, bounded, new_condition, new_run, new_task, run_id, task_spec

ROOT = action_id()
FIRST = AttemptId(ROOT, 1)


async def create(middle: Middle, **asked: int) -> None:
    spec = task_spec(**asked)  # type: ignore[arg-type]
    await middle.ledger.create_run(new_run(spec=spec, base=middle.blobs.join("flytesnacks", "development")))


async def turns(middle: Middle, count: int = 3) -> None:
    for _ in range(count):
        await middle.reconciler.reconcile(ROOT)


async def test_one_that_waits_to_be_tried_again_is_not(middle: Middle, clock: FakeClock) -> None:
    await create(middle, retries=3, backoff=10)
    await middle.reconciler.reconcile(ROOT)
    middle.runtime.finish(FIRST, 1)
    await turns(middle, 2)
    await middle.ledger.abort_run(run_id(), "enough")
    clock.advance(60)
    await turns(middle)
    assert [each.phase for each in await middle.attempts(ROOT)] == [Phase.FAILED, Phase.ABORTED]
    assert len(middle.runtime.launched) == 1
    assert middle.reconciler._timing._countdowns._ends == {}


async def test_one_that_has_ended_before_it_was_reported_is_aborted_all_the_same(middle: Middle) -> None:
    """What a client was told holds: the process's end is kept as an event."""
    await create(middle)
    await middle.reconciler.reconcile(ROOT)
    middle.runtime.finish(FIRST)
    await middle.ledger.abort_run(run_id(), "enough")
    await turns(middle)
    root = await middle.action(ROOT)
    assert (root.phase, root.reason) == (Phase.ABORTED, "enough")
    assert middle.runtime.stopped == []


@pytest.mark.parametrize("code", [0, 1])
async def test_an_abort_beside_the_report_of_the_end_leaves_the_end_that_was_first(middle: Middle, code: int) -> None:
    await create(middle, retries=1)
    await middle.reconciler.reconcile(ROOT)
    middle.runtime.finish(FIRST, code)
    turn = asyncio.create_task(middle.reconciler.reconcile(ROOT))
    await asyncio.sleep(0)
    await middle.ledger.abort_run(run_id(), "enough")
    await turn
    ended = await middle.action(ROOT)
    assert ended.phase in (Phase.ABORTED, Phase.SUCCEEDED)
    await turns(middle)
    await middle.ledger.abort_run(run_id(), "more")
    assert await middle.action(ROOT) == ended
    assert {each.phase for each in await middle.attempts(ROOT)} <= FINAL
    assert middle.runtime.alive() == []


async def test_an_attempt_that_is_being_stopped_for_its_time_is_aborted_once(middle: Middle) -> None:
    middle.runtime.stubborn = True
    spec = bounded(runtime=30, retries=1)
    await middle.ledger.create_run(new_run(spec=spec, base=middle.blobs.join("flytesnacks", "development")))
    await middle.reconciler.reconcile(ROOT)
    await middle.ledger.abort_run(run_id(), "enough")
    await turns(middle)
    middle.runtime.finish(FIRST, -15, reason=StopReason.TIMEOUT)
    await turns(middle)
    (attempt,) = await middle.attempts(ROOT)
    assert attempt.phase is Phase.ABORTED
    assert await middle.reconciler.reconcile(ROOT) == Done()


@pytest.mark.parametrize("ended_by", ["success", "failure", "abort"])
async def test_an_abort_of_what_has_ended_changes_no_row_and_says_so(
    middle: Middle, caplog: pytest.LogCaptureFixture, ended_by: str
) -> None:
    await create(middle)
    await middle.reconciler.reconcile(ROOT)
    if ended_by == "abort":
        await middle.ledger.abort_run(run_id(), "enough")
    middle.runtime.finish(FIRST, int(ended_by == "failure"))
    await turns(middle)
    before = (await middle.action(ROOT), await middle.attempts(ROOT), await middle.reader.run(run_id()))
    caplog.set_level(logging.INFO, "flyte_manager.ledger.ledger")
    await middle.ledger.abort_run(run_id(), "more")
    await middle.ledger.abort_action(ROOT, "even more")
    assert (await middle.action(ROOT), await middle.attempts(ROOT), await middle.reader.run(run_id())) == before
    assert [record.getMessage() for record in caplog.records] == [
        "run flytesnacks/development/r1 has ended: nothing to abort",
        "action flytesnacks/development/r1/a0 has ended: nothing to abort",
    ]


async def test_nothing_is_enqueued_into_an_aborted_run(middle: Middle) -> None:
    await create(middle)
    await middle.ledger.abort_run(run_id(), "enough")
    base = middle.blobs.join("flytesnacks", "development")
    condition = replace(new_condition("c2"), base_uri=(await middle.action(ROOT)).base_uri)
    for order in (new_task("c1", base=base), condition):
        with pytest.raises(RunEnded, match=r"run 'r1' has ended \(ABORTED\)"):
            await middle.ledger.enqueue(order)
