"""Streams that say something now and then."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from flyte_manager.services.quiet import with_pauses


async def words(*pauses: float) -> AsyncIterator[str]:
    for pause in pauses:
        await asyncio.sleep(pause)
        yield "word"


async def test_nothing_is_said_between_items_that_come_at_once() -> None:
    assert [each async for each in with_pauses(words(0, 0), 10)] == ["word", "word"]


async def test_pauses_are_told_and_no_item_is_lost() -> None:
    told = [each async for each in with_pauses(words(0.05, 0, 0.05), 0.01)]
    assert [each for each in told if each] == ["word", "word", "word"]
    assert told[0] is None
    assert told[-2] is None


async def test_what_an_item_raises_is_raised() -> None:
    async def broken() -> AsyncIterator[str]:
        yield "word"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        _ = [each async for each in with_pauses(broken(), 10)]


async def test_who_leaves_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(with_pauses(words(60), 60)), 0.02)
    assert asyncio.all_tasks() == before
