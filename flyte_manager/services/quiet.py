"""Streams that say something now and then, for clients that give up on quiet ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

Item = TypeVar("Item")


async def with_pauses(items: AsyncIterator[Item], seconds: float) -> AsyncIterator[Item | None]:
    """The items, and None whenever none came for so long."""
    waiting: asyncio.Future[Item] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(items))
            await asyncio.wait([waiting], timeout=seconds)
            if not waiting.done():
                yield None
                continue
            came, waiting = waiting, None
            try:
                item = came.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait([waiting])


async def _next(items: AsyncIterator[Item]) -> Item:
    return await anext(items)
