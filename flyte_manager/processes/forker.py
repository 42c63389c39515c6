"""Starts the zygote, keeps it alive and carries orders to it.

    start -> bring up warm -> ready, self-test passes -> warm
                   '--- fails ---> bring up cold -> "cold: why"
    it dies -> bring up again (waiting 0, 0.5, 1, ... 10 s while it dies young); orders wait for it, then fail

The socket lies in a temporary folder of mode 0700, because the path of a Unix socket may not be longer than 107 bytes.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from flyte_manager.domain.errors import Unavailable
from flyte_manager.processes import folder as disk

READY_SECONDS = 60.0
ANSWER_SECONDS = 15.0
END_SECONDS = 5.0
YOUNG_SECONDS = 10.0
LONGEST_BACKOFF = 10.0
AT_ONCE = 32
"""orders under way at once; the zygote takes them one by one"""

_log = logging.getLogger(__name__)

Send = Callable[[disk.Order], Awaitable[dict[str, object]]]
SelfTest = Callable[[Send], Awaitable[str]]
"""Runs a no-op through the zygote; returns "" or what went wrong."""


class ZygoteDown(Unavailable):
    """The process that starts tasks doesn't answer ({why}); it is being restarted and the launch tried again."""


class ZygoteFailed(Unavailable):
    """The process that starts tasks could not be started with {python}: {why}. Name another interpreter with
    `embedded.python`."""


class Forker:
    """The manager's side of the zygote. `status` is "warm" or "cold: why"."""

    def __init__(self, *, python: Path, env: Mapping[str, str], warm: bool, self_test: SelfTest) -> None:
        self._python = python
        self._env = dict(env)
        self._self_test = self_test
        self._warm = warm
        self._proven = False
        self.status = "cold: not started" if warm else "cold: warm starts are switched off"
        self._process: asyncio.subprocess.Process | None = None
        self._leash = -1
        self._socket = ""
        self._ready = asyncio.Event()
        self._orders = asyncio.Semaphore(AT_ONCE)
        self._minder: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Raises ZygoteFailed when not even cold starts are possible."""
        await self._bring_up()
        self._minder = asyncio.create_task(self._mind(), name="zygote-minder")

    async def stop(self) -> None:
        if self._minder:
            self._minder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._minder
        self._ready.clear()
        await self._end()

    async def ask(self, order: disk.Order) -> dict[str, object]:
        """The shepherd's answer. A zygote that gives none in time is killed and started again. Raises ZygoteDown."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._orders:
                await self._ready.wait()
                return await self._exchange(order)
        except TimeoutError as error:
            if self._ready.is_set() and self._process:
                self._process.kill()
            raise ZygoteDown(why=f"no answer within {ANSWER_SECONDS:g} s") from error
        except (OSError, ValueError) as error:
            raise ZygoteDown(why=str(error) or type(error).__name__) from error

    async def _exchange(self, order: disk.Order) -> dict[str, object]:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(disk.to_line(vars(order)))
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise ConnectionResetError("it hung up")
        answer: dict[str, object] = json.loads(line)
        return answer

    async def _bring_up(self) -> None:
        if self._warm:
            why = await self._spawn("warm")
            if not why and not self._proven:
                why = await self._self_test(self._exchange)
            if not why:
                self._proven, self.status = True, "warm"
                self._ready.set()
                return
            await self._end()
            if self._proven:
                raise ZygoteFailed(python=self._python, why=why)
            self._warm, self.status = False, f"cold: {why}"
            _log.warning("tasks start cold, each imports the SDK anew: %s", why)
        if why := await self._spawn("cold"):
            await self._end()
            raise ZygoteFailed(python=self._python, why=why)
        self._ready.set()

    async def _spawn(self, mode: str) -> str:
        """Starts the zygote; returns "" when it is ready, else why not."""
        self._socket = os.path.join(_short_folder(), "zygote")
        leash, self._leash = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._python),
                str(Path(__file__).with_name("zygote.py")),
                self._socket,
                mode,
                stdin=leash,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._env,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return f"{self._python}: {error.strerror}"
        finally:
            os.close(leash)
        self._process = process
        said: list[str] = []
        self._listener = asyncio.create_task(_relay(process, said), name="zygote-stderr")
        assert process.stdout
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            return f"it was not ready within {READY_SECONDS:g} s"
        if not line:
            await self._listener
            return " ".join(said[-3:]) or "it ended without a word"
        tale = json.loads(line)
        return "" if tale["ready"] else " ".join(tale["why"].split())[-300:]

    async def _mind(self) -> None:
        backoff = 0.0
        while True:
            born = asyncio.get_running_loop().time()
            if self._process:
                code = await self._process.wait()
                self._ready.clear()
                _log.warning("the zygote ended (code %d); running tasks go on, it is started again", code)
            young = asyncio.get_running_loop().time() - born < YOUNG_SECONDS
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2 or 0.5, LONGEST_BACKOFF) if young else 0.0
            try:
                await self._end()
                await self._bring_up()
            except ZygoteFailed as error:
                _log.error("%s", error)

    async def _end(self) -> None:
        """Lets the zygote go; it ends by itself, and by force when it doesn't."""
        process, self._process = self._process, None
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        if process:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._listener:
            await self._listener
            self._listener = None
        if self._socket:
            shutil.rmtree(os.path.dirname(self._socket), ignore_errors=True)
            self._socket = ""


async def _relay(process: asyncio.subprocess.Process, said: list[str]) -> None:
    assert process.stderr
    async for line in process.stderr:
        said.append(line.decode("utf-8", "replace").strip())
        del said[:-20]
        _log.warning("zygote: %s", said[-1])


def _short_folder() -> str:
    path = tempfile.mkdtemp(prefix="flyte-")
    if len(path) <= 90:
        return path
    os.rmdir(path)
    return tempfile.mkdtemp(prefix="flyte-", dir="/tmp")
