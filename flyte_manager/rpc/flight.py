"""Unary calls in flight: one whose client goes away, or whose deadline passes, is cancelled.

Most calls end at once, and a timer for each costs more than decoding its message. So all that are in flight are looked
at together, PATIENCE seconds after the first began; from then on each waits for its client's disconnect and has a timer
for its deadline.
"""

import asyncio

from flyte_manager.rpc.asgi import Receive

PATIENCE = 0.25


class Call:
    """One handler at work, in the task that the server made for the request, whose body has been read. `left`: seconds
    to its deadline. `expired`: that is why it was cancelled."""

    __slots__ = ("_deadline", "_loop", "_receive", "_task", "_timer", "_watcher", "expired")

    def __init__(self, receive: Receive, left: float | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._deadline = None if left is None else self._loop.time() + left
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.expired = False
        if left is not None and left < PATIENCE:
            self._set_timer()

    def mind(self) -> None:
        """It takes longer than others."""
        self._watcher = asyncio.create_task(self._watch())
        self._set_timer()

    def end(self) -> None:
        """The handler is over; nothing cancels its task any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self.expired:
            self._task.uncancel()

    def _set_timer(self) -> None:
        if self._deadline is not None and self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._task.cancel()


class Flight:
    """The calls that have not been looked at yet."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._looking = False

    def add(self, call: Call) -> None:
        self._calls.add(call)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def remove(self, call: Call) -> None:
        self._calls.discard(call)
        call.end()

    def _look(self) -> None:
        self._looking = False
        calls, self._calls = self._calls, set()
        for call in calls:
            call.mind()
