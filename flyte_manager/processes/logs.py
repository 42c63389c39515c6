"""Reads the framed log of an attempt from its first line on, while it grows and after its end.

The file is polled: a stat is cheaper than a watch for each reader, and works after a restart. Only whole lines are
taken. `ended()` is asked when nothing new was found, and the log is read once more after it said yes: the shepherd
writes all before it records the end.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

from flyte_manager.domain.ports import LogLine
from flyte_manager.processes import frames

PAGE_BYTES = 256 << 10
POLL_SECONDS = 0.15


async def follow(path: str, ended: Callable[[], Awaitable[bool]]) -> AsyncIterator[Sequence[LogLine]]:
    offset, over = 0, False
    while True:
        if _size(path) > offset:
            offset, page, more = await asyncio.to_thread(_read, path, offset)
            if page:
                yield page
            if more:
                continue
        if over:
            return
        over = await ended()
        if not over:
            await asyncio.sleep(POLL_SECONDS)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _read(path: str, offset: int) -> tuple[int, list[LogLine], bool]:
    """The offset behind the page, the page, whether any line was there."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(PAGE_BYTES)
        if len(data) == PAGE_BYTES and b"\n" not in data:
            data += file.readline()
    whole = data.rfind(b"\n") + 1
    page = []
    for line in data[:whole].split(b"\n"):
        if (found := frames.parse(line)) is not None:
            at, stream, text = found
            page.append(LogLine(datetime.fromtimestamp(at, UTC), text, system=stream == frames.SYSTEM))
    return offset + whole, page, whole > 0
