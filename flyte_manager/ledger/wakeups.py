"""Wake-ups: "something about this topic may have changed". Hints only; the row is the truth (DESIGN.md §4.3)."""

import asyncio
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

RESYNC_SECONDS = 30.0
RUNS = "runs"
"""Topic of all runs; (RUNS, project, domain) is that of a project's."""


class Wakeups:
    """One event a subscriber, however many wake-ups come: a slow watcher costs one page, not a queue."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, dict[asyncio.Event, None]] = {}  # woken in the order of their coming

    @contextmanager
    def subscribe(self, topic: Hashable) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(topic, {})[event] = None
        try:
            yield event
        finally:
            events = self._waiting[topic]
            del events[event]
            if not events:
                del self._waiting[topic]

    def notify(self, topics: Iterable[Hashable]) -> None:
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()


async def next_change(event: asyncio.Event) -> None:
    """Returns when the event is set, at the latest after RESYNC_SECONDS."""
    try:
        async with asyncio.timeout(RESYNC_SECONDS):
            await event.wait()
    except TimeoutError:
        return
