"""Starts a manager of its own: free ports, a temporary folder, stopped by its pid with all that it left running."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench import processes
from flyte_manager.processes import linux

REPOSITORY = Path(__file__).resolve().parent.parent
REAL = ("-c", "import sys; from flyte_manager.cli import main; sys.exit(main())")
FAKE = ("-m", "bench.instant")
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
PROBE_SECONDS = 0.005


class NotReadyError(Exception):
    """The manager did not start; its log follows."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a manager was: seconds since its start, CPU seconds that it had used by then."""

    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Manager:
    """A manager that is ready. `zygote` is None where nothing forks tasks (the fake world)."""

    pid: int
    zygote: int | None
    endpoint: str
    """host:port, as the SDK wants it"""
    folder: Path
    answering: Moment
    """it answered its first request, be it that it is not ready yet"""
    serving: Moment
    """it answered that it is ready"""
    ready: Moment
    """it said "Ready": tasks start"""

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"


@contextmanager
def running(
    *, program: Sequence[str] = REAL, flags: Sequence[str] = (), folder: Path | None = None, port: int = 0
) -> Iterator[Manager]:
    """A manager that lives as long as the block; its data too, but for a folder that is given. Raises NotReadyError."""
    with ExitStack() as stack:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="flyte-bench-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "config.yaml").write_text("")
        (folder / "user").mkdir(exist_ok=True)
        api, queue, health = free_ports(3)
        port = port or api
        started = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, *program, f"--config={folder / 'config.yaml'}"),
                *(f"--manager.runsService.port={port}", f"--manager.queueService.port={queue}"),
                *(f"--manager.executor.healthProbePort={health}", f"--dataDir={folder / 'data'}"),
                *(f"--database.sqlite.file={folder / 'flyte.db'}", "--logger.level=3", *flags),
            ],
            cwd=REPOSITORY,
            env=_environment(folder / "user"),
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(open(folder / "manager.log", "wb")),
            start_new_session=True,
        )
        stack.callback(_stop, process)
        probe = _Probe(port, process.pid, started)
        probe.start()
        _await_ready(process, folder)
        ready = Moment(time.monotonic() - started, processes.cpu(process.pid))
        probe.join()
        zygotes = [child for child in linux.descendants(process.pid) if processes.name(child) == "zygote"]
        yield Manager(
            pid=process.pid,
            zygote=zygotes[0] if zygotes else None,
            endpoint=f"localhost:{port}",
            folder=folder,
            answering=probe.answering,
            serving=probe.serving,
            ready=ready,
        )


class _Probe(threading.Thread):
    """Asks /readyz until the answer is 200."""

    def __init__(self, port: int, pid: int, started: float) -> None:
        super().__init__(name="probe", daemon=True)
        self._port = port
        self._pid = pid
        self._began = started
        self.answering = self.serving = Moment(0.0, 0.0)

    def run(self) -> None:
        while time.monotonic() - self._began < READY_SECONDS:
            if status := self._status():
                now = Moment(time.monotonic() - self._began, processes.cpu(self._pid))
                self.answering = self.answering if self.answering.seconds else now
                if status == 200:
                    self.serving = now
                    return
            time.sleep(PROBE_SECONDS)

    def _status(self) -> int:
        """Of an answer; 0 without one."""
        connection = HTTPConnection("localhost", self._port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()


def _await_ready(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Reads the banner to its last line; a timer ends a manager that never gets there."""
    timer = threading.Timer(READY_SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout
        if not any(line.startswith(b"Ready") for line in process.stdout):
            raise NotReadyError((folder / "manager.log").read_text()[-2000:])
    finally:
        timer.cancel()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, then SIGKILL; then the tasks, which a manager leaves alive on purpose."""
    below = [(pid, linux.birth(pid)) for pid in linux.descendants(process.pid)]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout
    process.stdout.close()
    linux.kill((pid for pid, birth in below if linux.birth(pid) == birth != 0), signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _environment(home: Path) -> dict[str, str]:
    """Ours without what would change the manager, and with an empty home for its tasks."""
    unwanted = ("FLYTE_MANAGER__", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "HOME": str(home)}
