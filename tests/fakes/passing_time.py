"""Time that passes when a test says so, for what sleeps and measures."""

import asyncio
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class _Sleeper:
    until: float
    task: "asyncio.Task[Any]"
    woken: asyncio.Event


class PassingTime:
    """`sleep`, and when called, the seconds that have passed."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[_Sleeper] = []
        self._changed = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        sleeper = _Sleeper(self.now + seconds, task, asyncio.Event())
        self._sleepers.append(sleeper)
        self._changed.set()
        try:
            await sleeper.woken.wait()
        finally:
            self._sleepers = [each for each in self._sleepers if each is not sleeper]

    async def pass_by(self, seconds: float) -> None:
        """Wakes sleepers in their order; each has done its work, and sleeps again or has ended, before time goes on."""
        end = self.now + seconds
        while due := sorted((each for each in self._sleepers if each.until <= end), key=lambda each: each.until):
            self.now = due[0].until
            self._sleepers.remove(due[0])
            due[0].woken.set()
            await self.idle(due[0].task)
        self.now = end

    async def idle(self, task: "asyncio.Task[Any]") -> None:
        """Returns when the task sleeps here or has ended."""
        task.add_done_callback(lambda _: self._changed.set())
        async with asyncio.timeout(10):
            while not (task.done() or any(each.task is task for each in self._sleepers)):
                self._changed.clear()
                await self._changed.wait()
