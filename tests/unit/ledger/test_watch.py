"""Following rows: nothing is missed, stale failures are left out, a slow watcher costs nobody anything."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flyte_manager.domain.actions import Action, Budget
from flyte_manager.domain.attempts import ErrorKind, Event, Failure, Observation, Place, Presence
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.lifecycle import EVENTS_KEPT
from flyte_manager.domain.phases import Phase
from flyte_manager.store.engine import Database
from tests.fakes.clock import NOW, FakeClock
from tests.fakes.middle import Middle, told
from tests.fakes.orders import action_id, new_run, new_task, new_trace, run_id

USER = Failure(ErrorKind.USER, "ValueError", "no")


async def snapshot(pages: AsyncIterator[Sequence[Action] | None]) -> list[Action]:
    found: list[Action] = []
    async for page in pages:
        if page is None:
            return found
        found += page
    raise AssertionError("the watch ended before its sentinel")


async def failed(middle: Middle, name: str, clock: FakeClock, budget: Budget) -> None:
    action = await middle.action(action_id(name))
    await middle.ledger.report(told(action, Phase.FAILED, clock, failure=USER), budget)


async def test_a_watch_of_children_begins_with_those_that_there_are(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    assert await snapshot(middle.reader.follow_children(action_id())) == []
    await middle.ledger.enqueue(new_task("c1"))
    await middle.ledger.enqueue(new_task("d1", parent="c1"))
    found = await snapshot(middle.reader.follow_children(action_id()))
    assert [action.id.name for action in found] == ["c1"]


async def test_each_change_after_the_sentinel_is_told(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    watch = middle.reader.follow_children(action_id())
    assert await anext(watch) is None
    await middle.ledger.enqueue(new_task("c1"))
    page = await asyncio.wait_for(anext(watch), 5)
    assert page is not None
    assert [(each.id.name, each.phase) for each in page] == [("c1", Phase.QUEUED)]
    await failed(middle, "c1", clock, Budget())
    page = await asyncio.wait_for(anext(watch), 5)
    assert page is not None
    assert [(each.phase, each.failure) for each in page] == [(Phase.FAILED, USER)]


async def test_what_failed_before_the_parents_attempt_is_left_out_but_for_traces(
    middle: Middle, clock: FakeClock
) -> None:
    await middle.ledger.create_run(new_run())
    for name in ("c1", "c2", "c3"):
        await middle.ledger.enqueue(new_task(name))
    await middle.ledger.enqueue(new_trace("t1", phase=Phase.FAILED), failure=USER)
    await failed(middle, "c1", clock, Budget())
    await middle.ledger.abort_action(action_id("c2"), "a sibling failed")
    await failed(middle, "a0", clock, Budget(retries=1))
    found = await snapshot(middle.reader.follow_children(action_id()))
    assert sorted(action.id.name for action in found) == ["c3", "t1"]
    await failed(middle, "c3", clock, Budget())
    found = await snapshot(middle.reader.follow_children(action_id()))
    assert sorted(action.id.name for action in found) == ["c3", "t1"]  # c3 failed in the present attempt
    await middle.ledger.enqueue(new_task("c1"))
    found = await snapshot(middle.reader.follow_children(action_id()))
    assert sorted(action.id.name for action in found) == ["c1", "c3", "t1"]


async def test_a_watch_of_one_action_ends_when_it_is_over(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    phases = []

    async def watch() -> None:
        async for seen in middle.reader.follow_action(action_id()):
            phases.append(seen.action.phase)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    await failed(middle, "a0", clock, Budget(retries=1))
    await asyncio.sleep(0.05)
    await middle.ledger.abort_run(run_id(), "enough")
    await asyncio.wait_for(watching, 5)
    assert phases == [Phase.QUEUED, Phase.QUEUED, Phase.ABORTED]


async def test_a_change_while_a_slow_watcher_is_busy_is_not_lost(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    watch = middle.reader.follow_run(run_id())
    page = await anext(watch)  # the generator stands still here, subscribed
    assert page is not None
    await asyncio.gather(*(middle.ledger.enqueue(new_task(f"c{number}")) for number in range(20)))
    await middle.ledger.abort_run(run_id(), "enough")
    seen: dict[str, Phase] = {}
    while len(seen) < 21 or set(seen.values()) != {Phase.ABORTED}:
        page = await asyncio.wait_for(anext(watch), 5)
        seen |= {action.id.name: action.phase for action in page or ()}


async def test_watchers_that_are_woken_together_share_one_read(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    await middle.ledger.create_run(new_run())
    watches = [middle.reader.follow_action(action_id()) for _ in range(20)]
    pages = [middle.reader.follow_run(run_id()) for _ in range(20)]
    assert {seen.action.phase for seen in [await anext(each) for each in watches]} == {Phase.QUEUED}
    for each in pages:
        assert await anext(each)
        assert await anext(each) is None
    reads: list[object] = []
    read = Database.read

    async def counted(database: Database, query: Any) -> Any:
        reads.append(query)
        return await read(database, query)

    monkeypatch.setattr(Database, "read", counted)
    waiting = [asyncio.ensure_future(anext(each)) for each in watches]
    waiting_too = [asyncio.ensure_future(anext(each)) for each in pages]
    await asyncio.sleep(0.05)
    assert not reads
    await middle.ledger.abort_run(run_id(), "enough")
    async with asyncio.timeout(5):
        assert {seen.action.phase for seen in await asyncio.gather(*waiting)} == {Phase.ABORTED}
        assert all(page and len(page) == 1 for page in await asyncio.gather(*waiting_too))
    assert len(reads) == 2


async def test_a_watcher_of_events_remembers_no_more_than_is_kept(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    watch: Any = middle.reader.follow_events(action_id())
    heard: list[str] = []
    for number in range(3 * EVENTS_KEPT):
        event = Event(NOW, f"pulling failed {number}", reason="BackOff", warning=True)
        await middle.ledger.note(AttemptId(action_id(), 1), Observation(Presence.ALIVE, events=(event,)))
        async with asyncio.timeout(5):
            heard += [each.message for each in await anext(watch)]
    assert heard == [f"pulling failed {number}" for number in range(3 * EVENTS_KEPT)]
    assert len(watch.ag_frame.f_locals["told"]) == EVENTS_KEPT


async def test_watchers_that_leave_leave_nothing_behind(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    watch = middle.reader.follow_run(run_id())
    await anext(watch)
    await watch.aclose()
    assert middle.ledger._wakeups._waiting == {}


async def test_a_warning_that_comes_alone_is_kept_once_and_other_events_wait_for_the_next_report(
    middle: Middle, clock: FakeClock
) -> None:
    await middle.ledger.create_run(new_run())
    attempt = AttemptId(action_id(), 1)
    normal, warning = Event(clock(), "pulled", "Pulled"), Event(clock(), "no space", "Evicted", warning=True)
    before = (await middle.action(action_id())).revision
    await middle.ledger.note(attempt, Observation(Presence.ALIVE, events=(normal,)))
    assert (await middle.action(action_id())).revision == before
    await middle.ledger.note(attempt, Observation(Presence.ALIVE, events=(normal, warning)))
    after = (await middle.action(action_id())).revision
    assert after > before
    await middle.ledger.note(attempt, Observation(Presence.ALIVE, events=(normal, warning)))
    assert (await middle.action(action_id())).revision == after
    assert (await middle.reader.attempt(action_id())).events == (normal, warning)


async def test_late_events_of_a_failed_child_do_not_make_it_look_younger_than_its_parents_attempt(
    middle: Middle, clock: FakeClock
) -> None:
    """Its revision tells that it failed before: else the parent's retry would take the old failure for its own."""
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    await failed(middle, "c1", clock, Budget())
    await failed(middle, "a0", clock, Budget(retries=1))
    event = Event(clock(), "node went away", "NodeNotReady", warning=True)
    late = told(await middle.action(action_id("c1")), Phase.FAILED, clock, failure=USER)
    await middle.ledger.report(replace(late, events=(event,)), Budget())
    assert await snapshot(middle.reader.follow_children(action_id())) == []
    assert (await middle.reader.attempt(action_id("c1"))).events == (event,)


async def test_where_an_attempt_runs_is_kept_whole(middle: Middle, clock: FakeClock) -> None:
    await middle.ledger.create_run(new_run())
    assert (await middle.reader.attempt(action_id())).place is None
    place = Place("flyte", "r1-a0-0", "uid-1", "main", "node-1")
    report = replace(told(await middle.action(action_id()), Phase.RUNNING, clock), place=place)
    await middle.ledger.report(report, Budget())
    assert (await middle.reader.attempt(action_id())).place == place
