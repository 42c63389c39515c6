"""The world of attempts: it goes on while the manager is dead, and is slow, forgetful and repeats itself.

What is asked of it may be done though the answer is lost; what it tells may be old when it arrives; a wake-up may come
late, twice, before an earlier one, or not at all. What it never does: start an attempt twice, or tell of an end that
was not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from flyte_manager.domain.attempts import Exit, Observation, Presence, StopReason, Usage
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.ports import Clock, Launch, LaunchDelayed, Unsettled, Wake
from tests.chaos.simulated.disk import Crashed
from tests.chaos.simulated.scenario import Ending

LONGEST_DELAY = 0.4
GRACE_SECONDS = 1.0

Program = Callable[[AttemptId], Awaitable[Ending]]
"""What an attempt does, and how it ends."""


class LostAnswer(Unavailable):
    """the world does not answer"""


@dataclass(slots=True)
class Life:
    """One attempt, as it really is."""

    started_at: datetime
    presence: Presence = Presence.ALIVE
    exit: Exit | None = None
    ending: Ending | None = None
    """None while it lives, and when it was stopped"""
    stopped: bool = False
    task: "asyncio.Task[None] | None" = None


@dataclass(slots=True)
class World:
    """What is true, whoever looks."""

    clock: Clock
    random: Random
    program: Program
    lives: dict[AttemptId, Life] = field(default_factory=dict)
    forbidden: set[AttemptId] = field(default_factory=set)
    """stopped before they were launched"""
    settled: set[AttemptId] = field(default_factory=set)
    troubles: list[str] = field(default_factory=list)
    wake: Wake | None = None
    """of the manager that lives now"""

    def start(self, attempt: AttemptId, run_seconds: float) -> None:
        if attempt in self.lives or attempt in self.forbidden:
            return
        alive = [each for each in self.alive(attempt.action) if each != attempt]
        if alive:
            self.troubles.append(f"{attempt} was started while {alive[0]} lives")
        life = self.lives[attempt] = Life(self.clock())
        life.task = asyncio.create_task(self._live(attempt, life), name=f"attempt {attempt}")
        if run_seconds:
            self._kill_later(run_seconds, attempt, life, StopReason.TIMEOUT)

    def stop(self, attempt: AttemptId) -> None:
        life = self.lives.get(attempt)
        if life is None:
            self.forbidden.add(attempt)
        elif not life.stopped and life.presence is Presence.ALIVE:
            life.stopped = True
            self._kill_later(self.random.uniform(0, GRACE_SECONDS), attempt, life, StopReason.ABORTED)

    def alive(self, action: ActionId | None = None) -> list[AttemptId]:
        return [
            attempt
            for attempt, life in self.lives.items()
            if life.presence is Presence.ALIVE and action in (None, attempt.action)
        ]

    async def _live(self, attempt: AttemptId, life: Life) -> None:
        ending = await self.program(attempt)
        if life.presence is not Presence.ALIVE:
            return
        life.ending = ending
        code, reason = 0, None
        if ending is Ending.OUT_OF_MEMORY:
            code, reason = -9, StopReason.OUT_OF_MEMORY
        elif ending is not Ending.GOOD and ending is not Ending.NO_OUTPUTS:
            code = 1
        presence = Presence.VANISHED if ending is Ending.VANISHED else Presence.EXITED
        self._end(attempt, life, presence=presence, code=code, reason=reason)

    def _kill_later(self, seconds: float, attempt: AttemptId, life: Life, reason: StopReason) -> None:
        asyncio.get_running_loop().call_later(seconds, self._kill, attempt, life, reason)

    def _kill(self, attempt: AttemptId, life: Life, reason: StopReason) -> None:
        if life.presence is Presence.ALIVE:
            assert life.task is not None
            life.task.cancel()
            self._end(attempt, life, presence=Presence.EXITED, code=-15, reason=reason)

    def _end(self, attempt: AttemptId, life: Life, *, presence: Presence, code: int, reason: StopReason | None) -> None:
        life.presence = presence
        if presence is Presence.EXITED:
            life.exit = Exit(code, life.started_at, self.clock(), reason=reason, usage=Usage(0.1, 1 << 20))
        self._tell(attempt)

    def _tell(self, attempt: AttemptId) -> None:
        """Not at all, once, or several times, sooner or later."""
        for _ in range(self.random.choice((0, 1, 1, 1, 1, 2, 3))):
            delay = self.random.choice((0.0, 0.0, self.random.uniform(0, 5)))
            asyncio.get_running_loop().call_later(delay, self._wake, attempt)

    def _wake(self, attempt: AttemptId) -> None:
        if self.wake is not None:
            self.wake(attempt)


@dataclass(slots=True)
class SimulatedRuntime:
    """Implements ports.Runtime for one life of the manager."""

    world: World
    dead: bool = False

    async def launch(self, launch: Launch) -> None:
        await self._way()
        if self.world.random.random() < 0.05:
            raise LaunchDelayed(problem="no room: the world is full for a moment")
        self.world.start(launch.attempt, launch.run_seconds)
        await self._way()

    async def observe(self, attempt: AttemptId, *, begun: bool = False) -> Observation:  # noqa: ARG002
        await self._way()
        life = self.world.lives.get(attempt)
        if life is not None:
            seen = Observation(life.presence, started_at=life.started_at, exit=life.exit)
        elif attempt in self.world.forbidden:
            now = self.world.clock()
            seen = Observation(Presence.EXITED, exit=Exit(-15, now, now, reason=StopReason.ABORTED))
        else:
            seen = Observation(Presence.ABSENT)
        await self._way()
        return seen

    async def stop(self, attempt: AttemptId) -> None:
        await self._way()
        self.world.stop(attempt)
        await self._way()

    async def settle(self, attempt: AttemptId) -> None:
        await self._way()
        if self.world.random.random() < 0.1:
            raise Unsettled(problem="the store is away for a moment")
        self.world.settled.add(attempt)

    async def forget(self, attempt: AttemptId, results: bytes) -> None:
        await self._way()
        if not results or self.world.lives[attempt].ending is not Ending.GOOD:
            self.world.troubles.append(f"{attempt} was forgotten though it did not end well")

    async def _way(self) -> None:
        """There, or back: it takes time, and on the way things are lost."""
        random = self.world.random
        late = random.random() < 0.3
        await asyncio.sleep(random.uniform(0, LONGEST_DELAY) if late else 0)
        if self.dead:
            raise Crashed
        if random.random() < 0.02:
            raise LostAnswer
