"""The executor's own copies of live rows: as the database has them, and no longer than they live."""

from dataclasses import replace

import pytest

from flyte_manager.domain.actions import Action
from flyte_manager.domain.errors import UnknownAction
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.lifecycle import NO_RETRIES
from flyte_manager.domain.orders import NewAction
from flyte_manager.domain.phases import Phase
from flyte_manager.executor.rows import Rows
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle, told
from tests.fakes.orders import action_id, new_run, new_task, new_trace

ROOT, CHILD = action_id(), action_id("c1")


@pytest.fixture
async def rows(middle: Middle) -> Rows:
    made = Rows(middle.reader, middle.ledger)
    await middle.ledger.create_run(new_run())
    await middle.ledger.enqueue(new_task("c1"))
    return made


def unread(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the database is not asked for an action."""

    async def read(action: ActionId) -> None:
        raise AssertionError(f"{action} was read")

    monkeypatch.setattr(middle.reader, "action", read)


async def test_a_written_row_is_given_as_the_database_has_it(middle: Middle, rows: Rows, clock: FakeClock) -> None:
    for phase in (Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED):
        child = await middle.action(CHILD)
        assert await rows.get(CHILD) == child
        await middle.ledger.report(told(child, phase, clock), NO_RETRIES)
    assert await rows.get(CHILD) == await middle.action(CHILD)


async def test_a_live_row_is_not_read_again(middle: Middle, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    unread(middle, monkeypatch)
    assert (await rows.get(CHILD)).phase is Phase.QUEUED
    assert (await rows.get(CHILD)).phase is Phase.QUEUED


async def test_a_row_that_ended_is_given_once_and_then_read(
    middle: Middle, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await middle.ledger.abort_run(ROOT.run, "enough")
    unread(middle, monkeypatch)
    assert (await rows.get(CHILD)).phase is Phase.ABORTED
    with pytest.raises(AssertionError, match="was read"):
        await rows.get(CHILD)


async def test_a_row_of_before_is_read_once(middle: Middle, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Rows(middle.reader, middle.ledger)
    found = await later.get(CHILD)
    unread(middle, monkeypatch)
    assert await later.get(CHILD) == found == await rows.get(CHILD)


async def test_what_was_not_told_is_kept_unless_the_row_changed_meanwhile(middle: Middle, rows: Rows) -> None:
    before = await rows.get(CHILD)
    await middle.ledger.put_state(CHILD, "{}", phase=None, failure=None, budget=NO_RETRIES)
    after = await middle.action(CHILD)
    rows.replace(before, after)
    assert await rows.get(CHILD) == after
    await middle.ledger.abort_action(CHILD, "enough")
    rows.replace(after, before)
    assert (await rows.get(CHILD)).phase is Phase.ABORTED


async def test_a_listing_brings_what_nobody_told_and_no_row_that_is_unknown(
    middle: Middle, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Rows(middle.reader, middle.ledger)
    await middle.ledger.put_state(CHILD, '{"a":1}', phase=None, failure=None, budget=NO_RETRIES)
    assert {action.id for action in await rows.live()} == {ROOT, CHILD} == {each.id for each in await later.live()}
    unread(middle, monkeypatch)
    assert (await rows.get(CHILD)).state == '{"a":1}'
    with pytest.raises(AssertionError, match="was read"):
        await later.get(CHILD)


async def test_a_row_of_before_that_is_told_or_listed_late_changes_nothing(
    middle: Middle, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await middle.action(CHILD)
    await rows.get(CHILD)
    await middle.ledger.abort_action(CHILD, "enough")

    async def listed() -> list[Action]:
        return [before]

    monkeypatch.setattr(middle.reader, "live", listed)
    await rows.live()
    rows._changed(before)
    assert (await rows.get(CHILD)).phase is Phase.ABORTED


@pytest.mark.parametrize("order", [replace(new_task("c2"), elsewhere=True), new_trace("c2")])
async def test_what_the_executor_has_not_to_do_with_is_not_kept(middle: Middle, rows: Rows, order: NewAction) -> None:
    await middle.ledger.enqueue(order)
    assert await rows.get(order.id) == await middle.action(order.id)
    assert set(rows._known) == {ROOT, CHILD}


async def test_an_action_without_row_is_unknown(rows: Rows) -> None:
    with pytest.raises(UnknownAction):
        await rows.get(action_id("nobody"))
