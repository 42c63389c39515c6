"""Wake-ups: "something about this topic may have changed". Hints only; the row is the truth (DESIGN.md §4.3)."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

RESYNC_SECONDS = 30.0
RUNS = "runs"
"""Topic of all runs; (RUNS, project, domain) is that of a project's."""

T = TypeVar("T")
Reads = dict[Hashable, "asyncio.Task[Any]"]


class Wakeups:
    """One event a subscriber, however many wake-ups come: a slow watcher costs one page, not a queue."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, dict[asyncio.Event, None]] = {}  # woken in the order of their coming
        self._reads: dict[Hashable, Reads] = {}

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
                self._reads.pop(topic, None)  # of which no news would be told

    def notify(self, topics: Iterable[Hashable]) -> None:
        for topic in topics:
            if events := self._waiting.get(topic):
                self._reads.pop(topic, None)  # they may have begun too early to see it
                for event in events:
                    event.set()

    async def together(self, topic: Hashable, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `read` finds. Subscribers of the topic who ask for the same key while it is under way get it too, unless
        they were woken since it began."""
        if len(self._waiting.get(topic, ())) < 2:
            return await read()
        reads = self._reads.setdefault(topic, {})
        task: asyncio.Task[T] | None = reads.get(key)
        if task is None:
            task = reads[key] = asyncio.create_task(read(), name="a read of many watchers")
            task.add_done_callback(partial(self._ended, topic, key, reads))
        return await asyncio.shield(task)  # who leaves takes it from nobody

    def _ended(self, topic: Hashable, key: Hashable, reads: Reads, _task: "asyncio.Task[Any]") -> None:
        del reads[key]
        if not reads and self._reads.get(topic) is reads:
            del self._reads[topic]


async def next_change(event: asyncio.Event) -> None:
    """Returns when the event is set, at the latest after RESYNC_SECONDS."""
    try:
        async with asyncio.timeout(RESYNC_SECONDS):
            await event.wait()
    except TimeoutError:
        return
