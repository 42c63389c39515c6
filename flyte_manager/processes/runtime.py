"""The world of local processes, READ FIRST: a shepherd per attempt, all knowledge in the attempts' folders.

    launch --order--> zygote --fork--> shepherd --fork--> task
    observe: record -> EXITED | lock free and no mark -> ABSENT | lock held by a living shepherd -> ALIVE
             else: what still lives of it is killed, the record "vanished" is written -> VANISHED
             begun, but no mark: the folder was removed; ALIVE as long as its shepherd is known to live, then VANISHED
    stop: SIGTERM to the shepherd; without one, a record that keeps the attempt from ever starting

The manager keeps only one thing in memory: a pidfd for each shepherd that it launched or observed, so that the end of
an attempt wakes the executor, and until then no file need be read. A shepherd ends after its record is in place.
`folder.py` tells what lies where.
"""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from flyte_manager.domain import ports
from flyte_manager.domain.attempts import Exit, Observation, Presence, StopReason, Usage
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.processes import folder as disk
from flyte_manager.processes import linux, logs, selftest, temporary, warm
from flyte_manager.processes.environment import check_system
from flyte_manager.processes.forker import Forker, Send, ZygoteDown
from flyte_manager.processes.sharing import kind_of

SECRETS_VARIABLE = "FLYTE_SECRETS_DEFAULT_DIR"
_SETTLE_SECONDS = 2.0
_KILLED = -signal.SIGKILL.value


class NotStarted(Unavailable):
    """Attempt {attempt} was not started: {why}. It is tried again."""


class Processes:
    """Implements ports.Runtime and ports.Logs. `root` holds the attempts' folders; `base_env` is the whole environment
    that tasks inherit; `wake` is called on the loop after an attempt ended that was launched or observed alive here."""

    def __init__(
        self,
        *,
        root: Path,
        python: Path,
        base_env: Mapping[str, str],
        wake: ports.Wake,
        warm: bool,
        grace_seconds: float = 5.0,
        log_limit: int = 64 << 20,
        clock: ports.Clock,
    ) -> None:
        check_system()
        self._root = root.absolute()
        self._python = python.absolute()
        self._base_env = {k: v for k, v in base_env.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._wake = wake
        self._grace_seconds = grace_seconds
        self._log_limit = log_limit
        self._clock = clock
        self._watched: dict[AttemptId, int] = {}
        self._alive: dict[AttemptId, Observation] = {}
        """of those that are watched"""
        self._forker = Forker(python=self._python, env=self._base_env, warm=warm, self_test=self._self_test)

    @property
    def warm_status(self) -> str:
        """ "warm" or "cold: why"."""
        return self._forker.status

    @property
    def zygote_pid(self) -> int | None:
        return self._forker.pid

    async def start(self) -> None:
        """Starts the zygote and tests warm starts; takes as long as the SDK's import. Raises ZygoteFailed. `observe`,
        `stop` and `tail` work without it."""
        await self._forker.start()

    async def stop_serving(self) -> None:
        """Ends the zygote and forgets the wake-ups; attempts go on."""
        await self._forker.stop()
        for attempt in list(self._watched):
            self._unwatch(attempt)

    async def launch(self, launch: ports.Launch) -> None:
        folder = self._folder(launch.attempt)
        if self._begun(launch.attempt, folder):
            return
        try:
            answer = await self._forker.ask(self._order(launch, folder))
        except ZygoteDown:
            if self._begun(launch.attempt, folder):  # the order arrived, only its answer was lost
                return
            raise
        if "shepherd" in answer:
            self._watch(launch.attempt, int(str(answer["shepherd"])), int(str(answer["birth"])))
        elif not self._begun(launch.attempt, folder):
            raise NotStarted(attempt=launch.attempt, why=answer.get("error", "its folder is locked"))

    async def observe(self, attempt: AttemptId, *, begun: bool = False) -> Observation:
        if seen := self._alive.get(attempt):
            return seen
        folder = self._folder(attempt)
        end = time.monotonic() + _SETTLE_SECONDS
        while True:
            if record := disk.read_record(folder):
                return _observation(record)
            held, mark = _lock_state(folder)
            if not held:
                if mark is None and attempt in self._watched:
                    return Observation(Presence.ALIVE)
                if mark is None:
                    return await self._lost(folder) if begun else Observation(Presence.ABSENT)
                if record := disk.read_record(folder):  # it ended between the two looks
                    return _observation(record)
                return self._bury(folder, mark, "neither the task nor its shepherd left word how it ended")
            if mark and linux.birth(mark.shepherd) == mark.birth != 0:
                self._watch(attempt, mark.shepherd, mark.birth)
                alive = Observation(Presence.ALIVE, started_at=_moment(mark.started))
                if attempt in self._watched:
                    self._alive[attempt] = alive
                return alive
            if mark:
                await asyncio.to_thread(_sweep, folder)
            if time.monotonic() > end:  # its lock is still held: nobody to wait for, so look again later
                asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._wake, attempt)
                return Observation(Presence.ALIVE, started_at=_moment(mark.started) if mark else None)
            await asyncio.sleep(0.01)

    async def stop(self, attempt: AttemptId) -> None:
        folder = self._folder(attempt)
        if disk.read_record(folder):
            return
        if attempt in self._watched:
            with contextlib.suppress(ProcessLookupError):  # it has just ended: the wake-up is on its way
                _terminate(self._watched[attempt])
            return
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if self._forestall(folder):
            asyncio.get_running_loop().call_soon(self._wake, attempt)
            return
        seen = await self.observe(attempt)
        _, mark = _lock_state(folder)
        if seen.presence is Presence.ALIVE and mark:
            with contextlib.suppress(ProcessLookupError):
                _stop(mark)
        elif seen.presence is not Presence.ALIVE:
            asyncio.get_running_loop().call_soon(self._wake, attempt)

    async def settle(self, attempt: AttemptId) -> None:
        """Its log lies in its folder, and stays."""

    async def forget(self, attempt: AttemptId, results: bytes) -> None:
        folder = self._folder(attempt)
        if not any(os.fsencode(path) in results for path in (folder, temporary.link(folder))):
            await asyncio.to_thread(_free, folder)

    def tail(
        self, attempt: AttemptId, *, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[Sequence[ports.LogLine]]:
        return logs.follow(os.path.join(self._folder(attempt), disk.LOG), ended)

    async def alive(self) -> list[AttemptId]:
        """Attempts on disk that some process holds."""
        return await asyncio.to_thread(self._find_alive)

    def _find_alive(self) -> list[AttemptId]:
        found = []
        for lock in sorted(self._root.glob(f"*/*/*/*/*/{disk.LOCK}")):
            folder = str(lock.parent)
            if not (lock.parent / disk.RECORD).exists() and _lock_state(folder)[0]:
                project, domain, run, action, number = lock.parent.relative_to(self._root).parts
                found.append(AttemptId(ActionId(RunId(project, domain, run), action), int(number)))
        return found

    def _folder(self, attempt: AttemptId) -> str:
        run = attempt.action.run
        parts = (run.project, run.domain, run.name, attempt.action.name, str(attempt.number))
        if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
            raise ports.LaunchRefused(problem=f"attempt {attempt} can't have a folder")
        return os.path.join(self._root, *parts)

    def _order(self, launch: ports.Launch, folder: str) -> disk.Order:
        env = {**self._base_env, "PYTHONUNBUFFERED": "1", **launch.env}
        env |= {name: _content(value).decode(errors="surrogateescape") for name, value in launch.secret_env.items()}
        own = str(self._python.parent)
        path = env.get("PATH", os.defpath)
        if own not in path.split(os.pathsep):
            env["PATH"] = f"{own}{os.pathsep}{path}"
        env[disk.MARKER] = folder
        if launch.secret_files:
            env[SECRETS_VARIABLE] = os.path.join(folder, disk.SECRETS)
        for name in launch.secret_files:
            if os.path.isabs(name) or ".." in Path(name).parts or not name:
                raise ports.LaunchRefused(problem=f"a secret can't be put into a file named {name!r}")
        program, argv = self._program(launch, env)
        env["TMPDIR"] = temporary.place(folder)
        return disk.Order(
            folder=folder,
            argv=argv,
            env=env,
            program=program,
            secrets={name: base64.b64encode(_content(value)).decode() for name, value in launch.secret_files.items()},
            notes=list(launch.notes),
            memory_limit=launch.memory_limit,
            run_seconds=launch.run_seconds,
            grace_seconds=self._grace_seconds,
            log_limit=self._log_limit,
            kind="" if program else kind_of(argv, env, secret=bool(launch.secret_env or launch.secret_files)),
        )

    def _program(self, launch: ports.Launch, env: Mapping[str, str]) -> tuple[str, list[str]]:
        """What to exec ("" = a warm start) and its arguments. Raises LaunchRefused."""
        args = list(launch.args)
        if not args:
            raise ports.LaunchRefused(problem="the task has no command")
        if args[0] != "a0":
            found = shutil.which(args[0], path=env["PATH"])
            if found is None:
                raise ports.LaunchRefused(
                    problem=f"the command {args[0]!r} was not found on this machine: tasks run here as processes, "
                    "without their container image; install it, or use a cluster (manager.mode: kubernetes)"
                )
            return found, args
        if self._forker.status == "warm" and not any(
            warm.only_counts_at_start(name) and self._base_env.get(name) != value for name, value in launch.env.items()
        ):
            return "", args
        python = str(self._python)
        script = self._python.parent / "a0"
        if script.exists():
            return python, [python, str(script), *args[1:]]
        return python, [python, "-m", "flyte._bin.runtime", *args]

    def _begun(self, attempt: AttemptId, folder: str) -> bool:
        """Whether the attempt was started at any time; sees to it that its end wakes."""
        mark = _lock_state(folder)[1]
        if mark:
            self._watch(attempt, mark.shepherd, mark.birth)
        elif disk.read_record(folder):
            asyncio.get_running_loop().call_soon(self._wake, attempt)
        else:
            return False
        return True

    def _watch(self, attempt: AttemptId, pid: int, birth: int) -> None:
        if attempt in self._watched:
            return
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(pid) if pid else -1
        except ProcessLookupError:
            fd = -1
        if fd >= 0 and linux.birth(pid) != birth:
            os.close(fd)
            fd = -1
        if fd < 0:
            loop.call_soon(self._wake, attempt)
            return
        self._watched[attempt] = fd
        loop.add_reader(fd, self._ended, attempt)

    def _ended(self, attempt: AttemptId) -> None:
        self._unwatch(attempt)
        self._wake(attempt)

    def _unwatch(self, attempt: AttemptId) -> None:
        fd = self._watched.pop(attempt)
        self._alive.pop(attempt, None)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)

    def _forestall(self, folder: str) -> bool:
        """Records the end of an attempt that was never started; false when it was, or is just being started."""
        lock = disk.open_lock(folder)
        try:
            if not linux.lock(lock) or disk.read_mark(lock) or disk.read_record(folder):
                return False
            now = self._clock().timestamp()
            detail = "it was stopped before it started"
            disk.write_record(folder, disk.Record(_KILLED, now, now, StopReason.ABORTED.value, detail=detail))
            return True
        finally:
            os.close(lock)

    def _bury(self, folder: str, mark: disk.Mark, detail: str) -> Observation:
        disk.remove_secrets(folder)
        now = self._clock().timestamp()
        record = disk.Record(_KILLED, mark.started or now, now, detail=detail, vanished=True)
        disk.write_record(folder, record)
        return _observation(record)

    async def _lost(self, folder: str) -> Observation:
        await asyncio.to_thread(_sweep, folder)
        now = self._clock()
        detail = "the folder that its processes are known by was removed, by itself or by somebody else"
        return Observation(Presence.VANISHED, exit=Exit(_KILLED, now, now, detail=detail))

    async def _self_test(self, send: Send) -> str:
        return await selftest.run_no_op(send, self._base_env)


def _content(value: ports.SecretValue) -> bytes:
    """A process gets values, not references to what a cluster keeps."""
    if isinstance(value, bytes):
        return value
    raise ports.LaunchRefused(problem=f"secret {value.name} lies in a cluster; a process can't read it there")


def _free(folder: str) -> None:
    """Of an attempt that is over."""
    if not os.path.exists(os.path.join(folder, disk.RECORD)):
        return
    for name in (disk.WORK, disk.TEMPORARY, disk.SECRETS):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    temporary.remove(folder)


def _lock_state(folder: str) -> tuple[bool, disk.Mark | None]:
    """Whether somebody holds the attempt's lock, and its mark."""
    try:
        fd = os.open(os.path.join(folder, disk.LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False, None
    try:
        held = linux.locked(fd)
        return held, disk.read_mark(fd)
    finally:
        os.close(fd)


def _sweep(folder: str) -> None:
    linux.kill(disk.sweepable(folder), signal.SIGKILL)


def _stop(mark: disk.Mark) -> None:
    fd = os.pidfd_open(mark.shepherd)
    try:
        if linux.birth(mark.shepherd) == mark.birth:
            _terminate(fd)
    finally:
        os.close(fd)


def _terminate(shepherd: int) -> None:
    for number in (signal.SIGTERM, signal.SIGCONT):  # its task may have frozen it
        signal.pidfd_send_signal(shepherd, number)


def _observation(record: disk.Record) -> Observation:
    exit_ = Exit(
        code=record.code,
        started_at=_moment(record.started),
        ended_at=_moment(record.ended),
        reason=StopReason(record.reason) if record.reason else None,
        usage=Usage(record.cpu_seconds, record.peak_memory),
        detail=record.detail,
    )
    presence = Presence.VANISHED if record.vanished else Presence.EXITED
    return Observation(presence, started_at=exit_.started_at, exit=exit_)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
