"""A keyed queue: one worker a key, nothing lost, failures back off alone."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from flyte_manager.domain.errors import Unavailable
from flyte_manager.executor import controller as module
from flyte_manager.executor.controller import Controller, Done, Requeue

Reconcile = Callable[[str], Awaitable[Done | Requeue]]


async def nothing() -> Iterable[str]:
    return []


@asynccontextmanager
async def running(
    reconcile: Reconcile, list_all: Callable[[], Awaitable[Iterable[str]]] = nothing
) -> AsyncIterator[Controller[str]]:
    controller = Controller(reconcile, list_all)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        await asyncio.wait([task])


async def settle() -> None:
    await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_key_is_worked_on_by_one_worker_and_once_more_for_what_came_meanwhile() -> None:
    turns: list[str] = []
    active, most = 0, 0
    go = asyncio.Event()

    async def reconcile(key: str) -> Done:
        nonlocal active, most
        active += 1
        most = max(most, active)
        turns.append(key)
        await go.wait()
        active -= 1
        return Done()

    async with running(reconcile) as controller:
        controller.enqueue("a")
        controller.enqueue("a")
        await settle()
        for _ in range(5):
            controller.enqueue("a")
        await settle()
        assert turns == ["a"]
        go.set()
        await until(lambda: len(turns) == 2)
        await settle()
    assert turns == ["a", "a"]
    assert most == 1


async def test_keys_are_worked_on_side_by_side_in_the_order_of_their_coming() -> None:
    turns: list[str] = []

    async def reconcile(key: str) -> Done:
        turns.append(key)
        await asyncio.sleep(0)
        return Done()

    async with running(reconcile) as controller:
        for number in range(1000):
            controller.enqueue(str(number))
        await until(lambda: len(turns) == 1000 and not controller._active)
        assert (controller._waiting, controller._active, controller._again) == ({}, set(), {})
    assert turns == [str(number) for number in range(1000)]


async def test_news_pass_a_thousand_that_wait_and_leave_them_every_fourth_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKERS", 1)
    turns: list[str] = []

    async def reconcile(key: str) -> Done:
        turns.append(key)
        await asyncio.sleep(0)
        return Done()

    async with running(reconcile) as controller:
        for number in range(1000):
            controller.enqueue(str(number))
        controller.hurry("999")
        for number in range(9):
            controller.hurry(f"news {number}")
            controller.enqueue(f"news {number}")
        await until(lambda: len(turns) == 1009)
    assert turns[:3] == ["999", "news 0", "news 1"]
    assert [turns[number] for number in (3, 7, 11)] == ["0", "1", "2"]
    assert set(turns[:13]) == {"999", *(f"news {number}" for number in range(9)), "0", "1", "2"}
    assert turns[13:] == [str(number) for number in range(3, 999)]


async def test_news_of_a_key_that_is_worked_on_hurry_after_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKERS", 1)
    turns: list[str] = []

    async def reconcile(key: str) -> Done:
        turns.append(key)
        if turns == ["a"]:
            controller.enqueue("a")
            controller.hurry("a")
            controller.enqueue("a")
        return Done()

    async with running(reconcile) as controller:
        for key in ("a", "b", "c"):
            controller.enqueue(key)
        await until(lambda: len(turns) == 4)
    assert turns == ["a", "a", "b", "c"]


async def test_a_requeued_key_comes_back_and_an_earlier_wake_cancels_its_timer() -> None:
    turns: list[str] = []

    async def reconcile(key: str) -> Done | Requeue:
        turns.append(key)
        return Requeue(0.03 if key == "soon" else 30) if len(turns) < 3 else Done()

    async with running(reconcile) as controller:
        controller.enqueue("soon")
        controller.enqueue("late")
        await until(lambda: len(turns) == 3)
        assert turns == ["soon", "late", "soon"]
        assert list(controller._timers) == ["late"]
        controller.enqueue("late")
        await until(lambda: turns[3:] == ["late"])
        assert controller._timers == {}


async def test_a_wake_during_a_turn_comes_before_its_requeue() -> None:
    turns: list[str] = []
    go = asyncio.Event()

    async def reconcile(key: str) -> Done | Requeue:
        turns.append(key)
        await go.wait()
        return Requeue(30) if len(turns) == 1 else Done()

    async with running(reconcile) as controller:
        controller.enqueue("a")
        await settle()
        controller.enqueue("a")
        go.set()
        await until(lambda: turns == ["a", "a"])
        assert controller._timers == {}


async def test_a_failing_key_backs_off_alone_and_forgets_it_after_success(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 3
    turns: list[str] = []

    async def reconcile(key: str) -> Done:
        nonlocal failures
        turns.append(key)
        if key == "bad" and failures:
            failures -= 1
            raise OSError("the disk is away")
        return Done()

    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 100.0)
    monkeypatch.setattr(module, "BACKOFF_MOST_SECONDS", 300.0)
    with caplog.at_level(logging.WARNING):
        async with running(reconcile) as controller:
            controller.enqueue("bad")
            controller.enqueue("good")
            await until(lambda: turns == ["bad", "good"])
            for count in range(2, 5):
                controller.enqueue("bad")
                await until(lambda count=count: turns.count("bad") == count and not controller._active)  # type: ignore[misc]
                assert controller._failures == ({"bad": count} if count < 4 else {})
            assert controller._timers == {}
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "bad: OSError: the disk is away; tried again in 100.0 s"
    assert [line.rpartition(" in ")[2] for line in told] == ["100.0 s", "200.0 s", "300.0 s"]


async def test_only_what_nobody_foresaw_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    errors: dict[str, Exception] = {
        "foreseen": Unavailable(problem="the store is away"),
        "unforeseen": ValueError("what is this"),
    }

    async def reconcile(key: str) -> Done:
        if error := errors.pop(key, None):
            raise error
        return Done()

    with caplog.at_level(logging.WARNING):
        async with running(reconcile) as controller:
            controller.enqueue("foreseen")
            controller.enqueue("unforeseen")
            await until(lambda: len(caplog.records) == 2)
    traced = {record.getMessage().partition(":")[0]: bool(record.exc_info) for record in caplog.records}
    assert traced == {"foreseen": False, "unforeseen": True}


async def test_a_failing_key_comes_back_by_itself() -> None:
    turns = 0

    async def reconcile(_key: str) -> Done:
        nonlocal turns
        turns += 1
        if turns < 3:
            raise OSError("not yet")
        return Done()

    async with running(reconcile) as controller:
        controller.enqueue("a")
        await until(lambda: turns == 3)


async def test_the_start_and_each_resync_bring_what_is_listed_but_not_what_waits_for_a_timer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESYNC_SECONDS", 0.03)
    turns: list[str] = []
    listings = 0

    async def list_all() -> Iterable[str]:
        nonlocal listings
        listings += 1
        if listings == 2:
            raise OSError("no database")
        return ["a", "later"]

    async def reconcile(key: str) -> Done | Requeue:
        turns.append(key)
        return Requeue(30) if key == "later" else Done()

    async with running(reconcile, list_all):
        await until(lambda: turns.count("a") >= 3)
    assert turns.count("later") == 1
    assert "listing what is to be done failed" in caplog.text


async def test_what_is_done_for_now_is_looked_at_again_in_time_and_whenever_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[str] = []
    answers = {"soon": [Done(0.05), Done()], "told": [Done(30), Done(30)], "listed": [Done(30)] * 9}

    async def list_all() -> Iterable[str]:
        return ["listed"]

    async def reconcile(key: str) -> Done:
        turns.append(key)
        return answers[key].pop(0)

    monkeypatch.setattr(module, "RESYNC_SECONDS", 0.1)
    async with running(reconcile, list_all) as controller:
        controller.enqueue("soon")
        controller.enqueue("told")
        await until(lambda: turns.count("soon") == 2)
        controller.enqueue("told")
        await until(lambda: turns.count("told") == 2 and turns.count("listed") >= 3)
        alarms = dict(controller._alarms)
        assert sorted(alarms) == ["listed", "told"]
    assert all(alarm.cancelled() for alarm in alarms.values())


async def test_at_the_end_no_timer_is_left() -> None:
    async def reconcile(_key: str) -> Requeue:
        return Requeue(0.1)

    async with running(reconcile) as controller:
        controller.enqueue("a")
        await until(lambda: bool(controller._timers))
    waiting = dict(controller._timers)
    assert all(timer.cancelled() for timer in waiting.values())
    await asyncio.sleep(0.15)
    assert not controller._waiting


@pytest.mark.parametrize("fails", [True, False])
async def test_a_turn_that_wakes_itself_and_has_to_wait_does_not_spin(fails: bool) -> None:
    turns = 0

    async def reconcile(key: str) -> Requeue:
        nonlocal turns
        turns += 1
        controller.enqueue(key)  # as its own report does
        if fails:
            raise OSError(f"another reason each time: {turns}")
        return Requeue(5)

    async with running(reconcile) as controller:
        controller.enqueue("a")
        await until(lambda: turns >= 2)
        await asyncio.sleep(0.3)
    assert turns <= 6
