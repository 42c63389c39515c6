"""A keyed queue with workers, level-based (DESIGN.md §4.1).

    hurry(key) ─▶ news ────┐
    enqueue(key) ─▶ waiting ─▶ worker: reconcile(key) ─▶ Done | Requeue(after) | raises
                       ▲                                      │         │
                       '────────── after a delay ◀────────────'─────────'  backoff of that key only

A key is worked on by one worker at a time; what comes meanwhile makes one more turn afterwards. News of the world go
before what waits, three times of four: a thousand that are to be started don't keep an end from being told.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from flyte_manager.domain.errors import Refusal

log = logging.getLogger(__name__)

K = TypeVar("K")

WORKERS = 32
RESYNC_SECONDS = 30.0
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MOST_SECONDS = 60.0
NEWS_OF_TURNS = 4
"""one turn of so many is left to what waits, however many news there are"""

AGAIN_SECONDS = 0.2
"""until a turn that has to wait is repeated when something came meanwhile: often that was its own report"""


@dataclass(frozen=True, slots=True)
class Done:
    """The world matches the row, as far as is known."""

    after: float = math.inf
    """look again after so many seconds at the latest"""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Look again after so many seconds."""

    after: float


class Controller(Generic[K]):
    """Calls `reconcile` for each key that was enqueued, and for all that `list_all` names, at the start and always."""

    def __init__(
        self,
        reconcile: Callable[[K], Awaitable[Done | Requeue]],
        list_all: Callable[[], Awaitable[Iterable[K]]],
    ) -> None:
        self._reconcile = reconcile
        self._list_all = list_all
        self._waiting: OrderedDict[K, None] = OrderedDict()  # a dict finds its first key slower with each one removed
        self._news: OrderedDict[K, None] = OrderedDict()
        self._turns = 0
        self._active: set[K] = set()
        self._again: dict[K, Callable[[K], None]] = {}  # key -> how it came
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._alarms: dict[K, asyncio.TimerHandle] = {}  # of what is done so far: it need not wait for them
        self._arrival = asyncio.Semaphore(0)

    def enqueue(self, key: K) -> None:
        self._stop_timer(key)
        if key in self._active:
            self._again.setdefault(key, self.enqueue)
        elif key not in self._waiting and key not in self._news:
            self._waiting[key] = None
            self._arrival.release()

    def hurry(self, key: K) -> None:
        """For what the world has done, not for what it is to do."""
        self._stop_timer(key)
        if key in self._active:
            self._again[key] = self.hurry
        elif key not in self._news:
            self._news[key] = None
            if key in self._waiting:
                del self._waiting[key]
            else:
                self._arrival.release()

    async def run(self) -> None:
        """Works until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync(), name="executor resync")
                for number in range(WORKERS):
                    group.create_task(self._work(), name=f"executor worker {number}")
        finally:
            for timer in (*self._timers.values(), *self._alarms.values()):
                timer.cancel()

    async def _resync(self) -> None:
        while True:
            try:
                for key in await self._list_all():
                    if key not in self._timers:
                        self.enqueue(key)
            except Exception:
                log.exception("listing what is to be done failed; it is tried again")
            await asyncio.sleep(RESYNC_SECONDS)

    async def _work(self) -> None:
        while True:
            await self._arrival.acquire()
            key = self._next()
            self._active.add(key)
            try:
                result = await self._turn(key)
            finally:
                self._active.discard(key)
            again = self._again.pop(key, None)
            if isinstance(result, Requeue):
                self._timers[key] = self._later(key, min(result.after, AGAIN_SECONDS) if again else result.after)
            elif again:
                again(key)
            elif result.after < math.inf:
                self._alarms[key] = self._later(key, result.after)

    def _next(self) -> K:
        self._turns += 1
        left = self._waiting and self._turns % NEWS_OF_TURNS == 0
        line = self._waiting if left or not self._news else self._news
        return line.popitem(last=False)[0]

    async def _turn(self, key: K) -> Done | Requeue:
        """One reconcile; a failed one is tried again."""
        try:
            result = await self._reconcile(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            after = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 16), BACKOFF_MOST_SECONDS)
            unforeseen = failures == 1 and not isinstance(error, Refusal)  # a refusal's words say all
            log.warning(
                "%s: %s: %s; tried again in %.1f s", key, type(error).__name__, error, after, exc_info=unforeseen
            )
            return Requeue(after)
        self._failures.pop(key, None)
        return result

    def _stop_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None) or self._alarms.pop(key, None):
            timer.cancel()

    def _later(self, key: K, after: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(after, 0.0), self.enqueue, key)
