"""Reads that watchers share: never one that is older than the news that woke them."""

import asyncio
from contextlib import ExitStack

import pytest

from flyte_manager.ledger.wakeups import Wakeups

TOPIC, KEY = "topic", "key"


class Table:
    """Reads end when they are let; each gives its number."""

    def __init__(self, wakeups: Wakeups) -> None:
        self.wakeups = wakeups
        self.begun = 0
        self.open = asyncio.Event()

    async def read(self) -> int:
        self.begun += 1
        number = self.begun
        await self.open.wait()
        return number

    def asked(self, key: str = KEY) -> "asyncio.Task[int]":
        return asyncio.create_task(self.wakeups.together(TOPIC, key, self.read))


@pytest.fixture
async def table() -> Table:
    return Table(Wakeups())


@pytest.fixture
async def watched(table: Table) -> "ExitStack":
    """The topic has several subscribers."""
    stack = ExitStack()
    for _ in range(3):
        stack.enter_context(table.wakeups.subscribe(TOPIC))
    return stack


async def ended(*tasks: "asyncio.Task[int]") -> list[int]:
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks)


async def test_those_who_are_woken_together_share_a_read(table: Table, watched: ExitStack) -> None:
    with watched:
        table.wakeups.notify([TOPIC])
        asked = [table.asked(), table.asked(), table.asked("another")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        table.open.set()
        assert await ended(*asked) == [1, 1, 2]


async def test_who_comes_when_it_has_ended_reads_anew(table: Table, watched: ExitStack) -> None:
    with watched:
        table.open.set()
        assert await ended(table.asked()) == [1]
        assert await ended(table.asked()) == [2]


async def test_who_is_woken_while_a_read_is_under_way_reads_anew(table: Table, watched: ExitStack) -> None:
    with watched:
        first = table.asked()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        table.wakeups.notify(["another topic", TOPIC])
        later = [table.asked(), table.asked()]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        table.open.set()
        assert await ended(first, *later) == [1, 2, 2]


async def test_who_leaves_takes_the_read_from_nobody(table: Table, watched: ExitStack) -> None:
    with watched:
        leaving, staying = table.asked(), table.asked()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        table.open.set()
        assert await ended(staying) == [1]
        assert table.begun == 1


async def test_what_a_read_raises_all_are_told(table: Table, watched: ExitStack) -> None:
    async def fail() -> int:
        await table.read()
        raise LookupError("gone")

    with watched:
        asked = [asyncio.create_task(table.wakeups.together(TOPIC, KEY, fail)) for _ in range(3)]
        table.open.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(each) for each in outcomes] == ["gone"] * 3
        assert table.begun == 1


async def test_who_comes_when_all_others_left_takes_no_read_of_theirs(table: Table, watched: ExitStack) -> None:
    with watched:
        first = table.asked()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    table.wakeups.notify([TOPIC])
    with table.wakeups.subscribe(TOPIC), table.wakeups.subscribe(TOPIC):
        later = table.asked()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        table.open.set()
        assert await ended(first, later) == [1, 2]


async def test_nothing_is_left_behind(table: Table, watched: ExitStack) -> None:
    with watched:
        first = table.asked()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        table.wakeups.notify([TOPIC])
        second = table.asked()
        await asyncio.sleep(0)
        table.open.set()
        await ended(first, second)
        await asyncio.sleep(0)
        assert table.wakeups._reads == {}
