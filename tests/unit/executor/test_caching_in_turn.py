"""Calls that are cached one at a time, over the fake world: who runs, who waits, who is woken when."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyte_manager.domain.actions import Action
from flyte_manager.domain.caching import CacheEntry, CacheStatus, Reservation
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Phase
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.ledger.cache import Cache
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.middle import middle as open_middle
from tests.fakes.orders import task_spec
from tests.unit.executor.test_caching import (
    KEY,
    Spec,
    cached,
    content,
    create,
    enqueue,
    is_reserved,
    launched,
    succeed,
    turn,
)


async def waiting(middle: Middle, *, spec: Spec | None = None) -> tuple[ActionId, ActionId]:
    """Two calls of a task that is cached one at a time: one runs, one waits."""
    serial = spec or cached(serialize=True)
    first, second = await create(middle, "first", serial), await create(middle, "second", serial)
    await turn(middle, first)
    assert await turn(middle, second) == Done()
    row = await middle.action(second)
    assert (row.phase, row.cache_status) == (Phase.WAITING_FOR_RESOURCES, CacheStatus.MISS)
    assert row.reason == "waits for the same call of run first to fill the cache: a0"
    assert launched(middle) == ["first"]
    return first, second


def woken(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> list[ActionId]:
    """Who is woken from now on."""
    found: list[ActionId] = []
    hurry: Callable[[ActionId], None] = middle.controller.hurry

    def remember(key: ActionId) -> None:
        found.append(key)
        hurry(key)

    monkeypatch.setattr(middle.controller, "hurry", remember)
    return found


async def test_equal_calls_wait_for_the_one_that_runs(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await waiting(middle)
    assert await turn(middle, second) == Done()
    keys = woken(middle, monkeypatch)
    await succeed(middle, first)
    assert second in keys
    await turn(middle, second)
    assert (await middle.action(second)).cache_status is CacheStatus.HIT
    assert launched(middle) == ["first"]
    assert not await is_reserved(middle)


async def test_no_client_takes_the_turn_of_an_action_by_its_name(middle: Middle, clock: FakeClock) -> None:
    first, second = await waiting(middle)
    found = await Cache(middle.database, clock).reserve(KEY, str(first), 1.0)
    assert found.holder == first
    clock.advance(100)
    assert await turn(middle, second) == Done()
    assert launched(middle) == ["first"]


async def test_when_it_fails_the_next_one_runs(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await waiting(middle)
    keys = woken(middle, monkeypatch)
    middle.runtime.finish((await middle.action(first)).attempt_id, 1)
    await turn(middle, first)
    assert (await middle.action(first)).phase is Phase.FAILED
    assert second in keys
    await turn(middle, second)
    assert launched(middle) == ["first", "second"]


async def test_who_is_tried_again_keeps_its_turn(middle: Middle) -> None:
    first, second = await waiting(middle, spec=cached(serialize=True, retries=1))
    middle.runtime.finish((await middle.action(first)).attempt_id, 1)
    await turn(middle, first)
    await turn(middle, second)
    await turn(middle, first)
    assert launched(middle) == ["first", "first"]


@pytest.mark.parametrize("below", [False, True])
async def test_when_it_is_aborted_the_next_one_runs(
    middle: Middle, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    """Itself, or together with the action that called it."""
    serial = cached(serialize=True)
    await turn(middle, await create(middle, "r1", task_spec(), key=""))
    first, second = await enqueue(middle, "one", serial), await create(middle, "second", serial)
    await turn(middle, first)
    await turn(middle, second)
    keys = woken(middle, monkeypatch)
    await (middle.ledger.abort_run(first.run, "") if below else middle.ledger.abort_action(first, ""))
    assert not await is_reserved(middle)
    assert second in keys
    await turn(middle, second)
    assert launched(middle) == ["r1", "r1", "second"]


async def test_who_waits_and_is_aborted_wakes_nobody(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await waiting(middle)
    third = await create(middle, "third", cached(serialize=True))
    await turn(middle, third)
    keys = woken(middle, monkeypatch)
    await middle.ledger.abort_run(second.run, "")
    assert third not in keys
    await succeed(middle, first)
    assert third in keys


async def test_a_call_does_not_wait_for_its_own_caller(middle: Middle) -> None:
    serial = cached(serialize=True)
    root = await create(middle, "r1", serial)
    await turn(middle, root)
    middle_one = await enqueue(middle, "one", task_spec(), key="")
    below = await enqueue(middle, "two", serial, parent="one")
    for action in (middle_one, below):
        await turn(middle, action)
    assert (await middle.action(below)).phase is Phase.RUNNING


async def test_ten_equal_calls_run_once(middle: Middle) -> None:
    async def program(launch: Any) -> int:
        await middle.blobs.write(f"{launch.output_prefix}/outputs.pb", content())
        await asyncio.sleep(0.05)
        return 0

    middle.runtime.program = program
    serial = cached(serialize=True)
    async with middle.operating():
        calls = await asyncio.gather(*(create(middle, f"r{number}", serial) for number in range(10)))
        for each in calls:
            await middle.until_phase(each, Phase.SUCCEEDED)
    statuses = sorted([(await middle.action(each)).cache_status for each in calls])
    assert statuses == [CacheStatus.HIT] * 9 + [CacheStatus.POPULATED]
    assert len(middle.runtime.launched) == 1


async def test_a_reservation_survives_the_manager(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock) as before:
        first, second = await waiting(before)
        lives = before.runtime._lives
    clock.advance(3600)
    async with open_middle(tmp_path, clock) as after:
        after.runtime._lives.update(lives)
        await turn(after, first)
        assert await turn(after, second) == Done()
        assert launched(after) == []
        await succeed(after, first)
        await turn(after, second)
        assert (await after.action(second)).cache_status is CacheStatus.HIT


async def test_a_client_of_the_service_is_waited_for_until_its_reservation_ends(
    middle: Middle, clock: FakeClock
) -> None:
    reservations = Cache(middle.database, clock)
    await reservations.reserve(KEY, "elsewhere", 10.0)
    action = await create(middle, "r", cached(serialize=True))
    assert await turn(middle, action) == Requeue(1.0)
    assert "elsewhere" in (await middle.action(action)).reason
    assert (await reservations.reserve(KEY, "third", 10.0)).owner == "elsewhere"
    clock.advance(31)
    await turn(middle, action)
    assert launched(middle) == ["r"]
    held = await reservations.reserve(KEY, "third", 10.0)
    assert (held.owner, held.holder) == (str(action), action)
    clock.advance(3600)
    assert (await reservations.reserve(KEY, "third", 10.0)).owner == str(action)
    await succeed(middle, action)
    assert (await reservations.reserve(KEY, "third", 10.0)).owner == "third"


async def test_a_reservation_that_came_after_the_abort_holds_nobody(middle: Middle, clock: FakeClock) -> None:
    action = await create(middle, "first", cached(serialize=True))
    row = await middle.action(action)
    await middle.ledger.abort_run(action.run, "")
    assert await Cache(middle.database, clock).take(row, max_age=0.0, run="") is None
    second = await create(middle, "second", cached(serialize=True))
    await turn(middle, second)
    assert launched(middle) == ["second"]


async def test_who_is_aborted_before_it_knows_of_its_turn_wakes_the_others(
    middle: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = cached(serialize=True)
    first, second = await create(middle, "first", serial), await create(middle, "second", serial)
    take, keys = Cache.take, woken(middle, monkeypatch)

    async def slow(self: Cache, action: Action, *, max_age: float, run: str) -> CacheEntry | Reservation | None:
        found = await take(self, action, max_age=max_age, run=run)
        if action.id == first:
            assert await turn(middle, second) == Done()
            await middle.ledger.abort_run(first.run, "")
        return found

    monkeypatch.setattr(Cache, "take", slow)
    await turn(middle, first)
    assert second in keys
