"""What another executor recorded is left to it."""

from dataclasses import replace

from flyte_manager.domain.phases import Phase
from flyte_manager.executor.controller import Done
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_trace
from tests.unit.executor.test_reconcile import child_in, run_in

ROOT, CHILD, OURS = action_id(), action_id("c1"), action_id("c2")


async def test_an_action_that_runs_elsewhere_is_never_launched_nor_stopped(middle: Middle) -> None:
    await middle.ledger.create_run(replace(run_in(middle), elsewhere=True))
    await middle.ledger.enqueue(replace(child_in(middle, "c1"), elsewhere=True))
    assert list(await middle.reconciler.list_all()) == []
    for action in (ROOT, CHILD):
        assert await middle.reconciler.reconcile(action) == Done()
    await middle.ledger.abort_run(ROOT.run, "enough")
    assert await middle.reconciler.reconcile(CHILD) == Done()
    assert await middle.phase(CHILD) is Phase.ABORTED
    assert (middle.runtime.launched, middle.runtime.stopped) == ([], [])


async def test_news_of_what_runs_elsewhere_and_of_traces_take_no_turn(middle: Middle) -> None:
    await middle.ledger.create_run(replace(run_in(middle), elsewhere=True))
    await middle.ledger.enqueue(replace(child_in(middle, "c1"), elsewhere=True))
    await middle.ledger.enqueue(replace(new_trace("t1"), base_uri=""))
    await middle.ledger.abort_action(CHILD, "enough")
    assert not middle.controller._waiting
    await middle.ledger.enqueue(child_in(middle, "c2"))
    assert list(middle.controller._waiting) == [OURS]


async def test_a_child_that_its_task_enqueues_is_run_here(middle: Middle) -> None:
    await middle.ledger.create_run(replace(run_in(middle), elsewhere=True))
    await middle.ledger.enqueue(child_in(middle, "c2"))
    assert list(await middle.reconciler.list_all()) == [OURS]
    await middle.reconciler.reconcile(OURS)
    assert [launch.attempt.action for launch in middle.runtime.launched] == [OURS]
