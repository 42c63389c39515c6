"""The whole manager with a fake world: `python -m bench.instant FLAGS…` is `flyte-manager FLAGS…` without processes.

An attempt is launched, runs, and ends well as soon as the executor has seen it run. Two words at the end of a task's
arguments change that: `hold` runs until it is stopped, `for:0.05` runs that many seconds.
"""

import asyncio
import signal
import sys
from dataclasses import replace
from typing import Any
from unittest import mock

from flyte_manager import cli, embedded
from flyte_manager.domain.attempts import Exit, Observation, Presence, StopReason
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.ports import Clock, Launch, Wake
from flyte_manager.processes.runtime import Processes

ABSENT = Observation(Presence.ABSENT)


class Instant(Processes):
    """Takes the place of `Processes` and starts nothing."""

    def __init__(self, *, wake: Wake, clock: Clock, **rest: Any) -> None:
        super().__init__(wake=wake, clock=clock, **rest)
        self._awaken = wake
        self._now = clock
        self._seen: dict[AttemptId, Observation] = {}

    @property
    def warm_status(self) -> str:
        return "faked: nothing is started"

    async def start(self) -> None:
        """There is no zygote."""

    async def stop_serving(self) -> None:
        """There is nothing to let go."""

    async def alive(self) -> list[AttemptId]:
        return []

    async def launch(self, launch: Launch) -> None:
        if launch.attempt in self._seen:
            return
        self._seen[launch.attempt] = Observation(Presence.ALIVE, started_at=self._now())
        word = launch.args[-1]
        if word != "hold":
            seconds = float(word.removeprefix("for:")) if word.startswith("for:") else 0.0
            asyncio.get_running_loop().call_later(seconds, self._end, launch.attempt, 0)

    async def observe(self, attempt: AttemptId, *, begun: bool = False) -> Observation:  # noqa: ARG002
        return self._seen.get(attempt, ABSENT)

    async def stop(self, attempt: AttemptId) -> None:
        self._end(attempt, -signal.SIGTERM)

    async def forget(self, attempt: AttemptId, results: bytes) -> None:  # noqa: ARG002
        self._seen.pop(attempt, None)

    def _end(self, attempt: AttemptId, code: int) -> None:
        seen = self._seen.get(attempt, ABSENT)
        if seen.exit is None:
            now = self._now()
            reason = StopReason.ABORTED if code else None
            ended = Exit(code, started_at=seen.started_at or now, ended_at=now, reason=reason)
            self._seen[attempt] = replace(seen, presence=Presence.EXITED, exit=ended)
        self._awaken(attempt)


def main() -> int:
    """Runs the manager with the arguments of the command line."""
    with mock.patch.object(embedded, "Processes", Instant):
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
