"""A world without processes: attempts start at once, end when they are told to, and nothing depends on time.

    launch ─▶ ALIVE ─▶ finish(code) ─▶ EXITED        vanish ─▶ VANISHED
              stop ─▶ EXITED, reason ABORTED; before the launch too, which then never starts it

With a `program` each attempt runs that coroutine, whose result is its exit code: enough to play tasks that enqueue
children, for benchmarks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from flyte_manager.domain.attempts import Event, Exit, Observation, Place, Presence, StopReason, Usage
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.ports import Clock, Launch, LaunchRefused, Wake

Program = Callable[[Launch], Awaitable[int]]


@dataclass(slots=True)
class _Life:
    started_at: datetime
    presence: Presence = Presence.ALIVE
    exit: Exit | None = None


@dataclass(slots=True)
class FakeRuntime:
    """Implements ports.Runtime; what was asked of it stays to be looked at."""

    clock: Clock
    wake: Wake
    program: Program | None = None
    stubborn: bool = False
    """attempts don't end when they are told to stop"""
    failing: int = 0
    """so many launches to come raise OSError"""
    refusal: str = ""
    """why launches are refused"""
    launched: list[Launch] = field(default_factory=list)
    """attempts that really started, in order"""
    stopped: list[AttemptId] = field(default_factory=list)
    settled: list[AttemptId] = field(default_factory=list)
    forgotten: list[AttemptId] = field(default_factory=list)
    events: tuple[Event, ...] = ()
    """told of every attempt that there is"""
    place: Place | None = None
    most_alive: int = 0
    _lives: dict[AttemptId, _Life] = field(default_factory=dict)
    _alive: int = 0
    _programs: set["asyncio.Task[None]"] = field(default_factory=set)

    async def launch(self, launch: Launch) -> None:
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise OSError("the world is not ready")
        if self.refusal:
            raise LaunchRefused(problem=self.refusal)
        if launch.attempt in self._lives:
            return
        self._lives[launch.attempt] = _Life(self.clock())
        self.launched.append(launch)
        self._alive += 1
        self.most_alive = max(self.most_alive, self._alive)
        if self.program is not None:
            task = asyncio.create_task(self._run(self.program, launch), name=f"fake attempt {launch.attempt}")
            self._programs.add(task)
            task.add_done_callback(self._programs.discard)

    async def observe(self, attempt: AttemptId, *, begun: bool = False) -> Observation:  # noqa: ARG002
        await asyncio.sleep(0)
        life = self._lives.get(attempt)
        if life is None:
            return Observation(Presence.ABSENT)
        return Observation(
            life.presence, started_at=life.started_at, exit=life.exit, events=self.events, place=self.place
        )

    async def stop(self, attempt: AttemptId) -> None:
        await asyncio.sleep(0)
        self.stopped.append(attempt)
        life = self._lives.get(attempt)
        if life is None:
            self._alive += 1
            self._lives[attempt] = _Life(self.clock())
        elif life.presence is not Presence.ALIVE or self.stubborn:
            return
        self.finish(attempt, -15, reason=StopReason.ABORTED)

    async def settle(self, attempt: AttemptId) -> None:
        await asyncio.sleep(0)
        self.settled.append(attempt)

    async def forget(self, attempt: AttemptId, results: bytes) -> None:
        await asyncio.sleep(0)
        assert isinstance(results, bytes)
        self.forgotten.append(attempt)

    def finish(
        self, attempt: AttemptId, code: int = 0, *, reason: StopReason | None = None, usage: Usage | None = None
    ) -> None:
        """The attempt's process ends."""
        self._end(attempt, Presence.EXITED, code, reason, usage or Usage(0.5, 64 << 20))

    def vanish(self, attempt: AttemptId) -> None:
        """The attempt is gone without a word, as after a power cut."""
        self._end(attempt, Presence.VANISHED, -9, None, Usage())

    def alive(self) -> list[AttemptId]:
        return [attempt for attempt, life in self._lives.items() if life.presence is Presence.ALIVE]

    def _end(self, attempt: AttemptId, presence: Presence, code: int, reason: StopReason | None, usage: Usage) -> None:
        life = self._lives[attempt]
        if life.presence is not Presence.ALIVE:
            return
        life.presence = presence
        life.exit = Exit(code, life.started_at, self.clock(), reason=reason, usage=usage)
        self._alive -= 1
        self.wake(attempt)

    async def _run(self, program: Program, launch: Launch) -> None:
        self.finish(launch.attempt, await program(launch))
