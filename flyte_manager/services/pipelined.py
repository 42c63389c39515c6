"""Streams both ways whose requests are worked on together: many writes share a commit, the answers keep the order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

IN_FLIGHT = 256
"""Requests of one stream that are worked on at once; the client waits with more."""


async def pipelined(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Answer]]
) -> AsyncGenerator[Answer, None]:
    """An answer for each request. What `answer` or the stream itself raises ends it, after the answers before."""
    begun: asyncio.Queue[asyncio.Future[Answer] | None] = asyncio.Queue(IN_FLIGHT)

    async def begin() -> None:
        try:
            async for request in requests:
                await begun.put(asyncio.ensure_future(answer(request)))
        finally:
            await begun.put(None)

    reader = asyncio.create_task(begin(), name="requests of a stream")
    try:
        while (each := await begun.get()) is not None:
            yield await each
        await reader
    finally:
        reader.cancel()
        while not begun.empty():
            left = begun.get_nowait()
            if left is not None:
                left.cancel()
