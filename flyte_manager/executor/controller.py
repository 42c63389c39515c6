"""A keyed queue with workers, level-based (DESIGN.md §4.1).

    enqueue(key) ─▶ waiting ─▶ worker: reconcile(key) ─▶ Done | Requeue(after) | raises
                       ▲                                      │         │
                       '────────── after a delay ◀────────────'─────────'  backoff of that key only

A key is worked on by one worker at a time; what comes meanwhile makes one more turn afterwards.
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
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._alarms: dict[K, asyncio.TimerHandle] = {}  # of what is done so far: it need not wait for them
        self._arrival = asyncio.Semaphore(0)

    def enqueue(self, key: K) -> None:
        if timer := self._timers.pop(key, None) or self._alarms.pop(key, None):
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = None
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
            key, _ = self._waiting.popitem(last=False)
            self._active.add(key)
            try:
                result = await self._turn(key)
            finally:
                self._active.discard(key)
            again = key in self._again
            self._again.discard(key)
            if isinstance(result, Requeue):
                self._timers[key] = self._later(key, min(result.after, AGAIN_SECONDS) if again else result.after)
            elif again:
                self.enqueue(key)
            elif result.after < math.inf:
                self._alarms[key] = self._later(key, result.after)

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

    def _later(self, key: K, after: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(after, 0.0), self.enqueue, key)
