"""A world of real processes for tests: attempts by short names, wake-ups that can be awaited, logs as text."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from flyte_manager.domain.attempts import Observation, Presence
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.ports import Launch, LogLine
from flyte_manager.processes import folder as disk
from flyte_manager.processes import temporary
from flyte_manager.processes.environment import listed_environment
from flyte_manager.processes.runtime import Processes

PATIENCE = 20.0
PYTHON = Path(sys.executable)


def attempt_id(name: str = "a0", number: int = 1) -> AttemptId:
    return AttemptId(ActionId(RunId("demo", "development", "r1"), name), number)


def launch_of(name: str, *args: str, **more: object) -> Launch:
    return Launch(attempt=attempt_id(name), args=args, env=more.pop("env", {}), **more)  # type: ignore[arg-type]


async def eventually(is_true: Callable[[], object | Awaitable[object]]) -> None:
    """Waits until it is; fails after PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = is_true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class World:
    """One manager's view of the attempts under a root."""

    def __init__(self, root: Path, *, warm: bool, python: Path, base_env: Mapping[str, str], grace: float, limit: int):
        self.root = root
        self._ended: dict[AttemptId, asyncio.Event] = {}
        self.presence_at_wake: dict[AttemptId, bool] = {}
        self.processes = Processes(
            root=root,
            python=python,
            base_env=base_env,
            wake=self._wake,
            warm=warm,
            grace_seconds=grace,
            log_limit=limit,
            clock=lambda: datetime.now(UTC),
        )

    def _wake(self, attempt: AttemptId) -> None:
        self.presence_at_wake[attempt] = (self.folder(attempt) / disk.RECORD).exists()
        self._ended.setdefault(attempt, asyncio.Event()).set()

    def folder(self, attempt: AttemptId) -> Path:
        run = attempt.action.run
        return self.root / run.project / run.domain / run.name / attempt.action.name / str(attempt.number)

    def shepherd(self, attempt: AttemptId) -> int:
        fd = disk.open_lock(str(self.folder(attempt)))
        try:
            mark = disk.read_mark(fd)
        finally:
            os.close(fd)
        assert mark
        return mark.shepherd

    async def woken(self, attempt: AttemptId) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._ended.setdefault(attempt, asyncio.Event()).wait()

    async def start(self, name: str, *args: str, **more: object) -> AttemptId:
        launch = launch_of(name, *args, **more)
        await self.processes.launch(launch)
        return launch.attempt

    async def shell(self, name: str, script: str, **more: object) -> AttemptId:
        return await self.start(name, "sh", "-c", script, **more)

    async def end(self, attempt: AttemptId) -> Observation:
        await self.woken(attempt)
        seen = await self.processes.observe(attempt)
        assert seen.presence in (Presence.EXITED, Presence.VANISHED)
        return seen

    async def lines(self, attempt: AttemptId) -> list[LogLine]:
        """The log as it is now."""

        async def ended() -> bool:
            return True

        return [line async for page in self.processes.tail(attempt, ended=ended) for line in page]

    async def output(self, attempt: AttemptId) -> list[str]:
        return [line.message for line in await self.lines(attempt) if not line.system]

    async def remarks(self, attempt: AttemptId) -> str:
        return "\n".join([line.message for line in await self.lines(attempt) if line.system])


@asynccontextmanager
async def world(
    root: Path,
    *,
    warm: bool = False,
    python: Path = PYTHON,
    base_env: Mapping[str, str] | None = None,
    grace: float = 0.5,
    limit: int = 64 << 20,
) -> AsyncIterator[World]:
    env = listed_environment(os.environ, ()) if base_env is None else base_env
    made = World(root, warm=warm, python=python, base_env=env, grace=grace, limit=limit)
    await made.processes.start()
    try:
        yield made
    finally:
        for attempt in await made.processes.alive():
            await made.processes.stop(attempt)
        await eventually(lambda: none_alive(made))
        for lock in made.root.glob(f"*/*/*/*/*/{disk.LOCK}"):
            temporary.remove(str(lock.parent))
        await made.processes.stop_serving()


async def none_alive(made: World) -> bool:
    return not await made.processes.alive()
