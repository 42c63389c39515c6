"""A real manager as a process of its own, and clients of it: what the tests in sdk/, chaos/ and security/ talk to.

    with Manager(tmp_path) as manager:         starts it on free ports, waits for its banner
        manager.client("script.py", "main")    a user's program, in its own process, with the SDK
        manager.kill9(); manager.start()       the same ports and the same data again

All its processes carry HOME=<folder>/home, by which `close` finds those that outlived the manager.
"""

import errno
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

import flyte_manager

SOURCE = Path(flyte_manager.__file__).parents[1]
COMMAND = (sys.executable, "-c", "from flyte_manager.cli import main; raise SystemExit(main())")
ABORTED_AT_EXIT = -6
"""of programs with the SDK on a busy machine, when all is done and printed (docs/decisions/0012)"""
READY_SECONDS = 60.0
END_SECONDS = 30.0
PORT_SETTINGS = {
    "api": "manager.runsService.port",
    "queue": "manager.queueService.port",
    "health": "manager.executor.healthProbePort",
}
_PORT_LINE = re.compile(r"^ +(API|Queue|Health) +https?://localhost:(\d+)$", re.MULTILINE)


def eventually(holds: Callable[[], bool], seconds: float = 30.0, *, what: str = "it") -> None:
    """Waits until it holds; fails after so many seconds."""
    start = time.monotonic()
    while not holds():
        waited = time.monotonic() - start
        assert waited < seconds, f"{what} did not happen within {seconds} s"
        time.sleep(0.02 if waited < 2 else 0.1)


def steady_ports() -> dict[str, int]:
    """Free ports outside the range from which the system serves others: while a manager is down, nobody takes them."""
    found: list[int] = []
    while len(found) < len(PORT_SETTINGS):
        port = random.randrange(20_000, 32_000)
        if port not in found and all(_is_free(port, family) for family in (socket.AF_INET, socket.AF_INET6)):
            found.append(port)
    return dict(zip(PORT_SETTINGS, found, strict=True))


def run_of(name: str, *args: str, project: str = "flytesnacks", retries: int = 0) -> dict[str, object]:
    """CreateRun's body, in JSON, for a task that is a plain command."""
    scope = {"project": project, "domain": "development"}
    template = {
        "id": {**scope, "resourceType": "TASK", "name": "command", "version": "1"},
        "type": "python-task",
        "metadata": {"retries": {"retries": retries}},
        "container": {"args": list(args)},
    }
    return {"runId": {**scope, "name": name}, "taskSpec": {"taskTemplate": template}}


@dataclass(slots=True)
class Manager:
    """`folder` holds all that it writes; `settings` are its flags, as {"embedded.warm": "false"}."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    command: Sequence[str] = COMMAND
    process: "subprocess.Popen[bytes] | None" = None
    _logged: int = 0
    _clients: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is not None:
            error.add_note(f"the manager's log:\n{self.log[-6000:]}")

    @property
    def endpoint(self) -> str:
        return f"localhost:{self.ports['api']}"

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def database(self) -> Path:
        return self.folder / "flyte.db"

    @property
    def data(self) -> Path:
        """The folder of this database's instance."""
        (found,) = (self.folder / "data").iterdir()
        return found

    @property
    def log_file(self) -> Path:
        return self.folder / "manager.log"

    @property
    def log(self) -> str:
        """All that it printed, over all its lives."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def last_log(self) -> str:
        """What it printed in its present life."""
        return self.log[self._logged :]

    @property
    def environment(self) -> dict[str, str]:
        """Of the manager and of clients: a user who has nothing configured."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        home = self.folder / "home"
        return {**kept, "HOME": str(home), "PYTHONPATH": str(SOURCE)}

    def start(self) -> None:
        """Starts it and waits until it says that it is ready; again on the same ports."""
        self.spawn()
        self.until_ready()

    def spawn(self) -> None:
        """Starts the process, no more."""
        assert self.process is None, "it runs already"
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        flags = {"database.sqlite.file": str(self.database), "dataDir": str(self.folder / "data")}
        flags |= {setting: str(self.ports.get(name, 0)) for name, setting in PORT_SETTINGS.items()}
        flags |= self.settings
        self._logged = len(self.log)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *(f"--{name}={value}" for name, value in flags.items())],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until_ready(self) -> None:
        process = self.process
        assert process is not None
        eventually(lambda: "\nReady in " in self.last_log or process.poll() is not None, READY_SECONDS, what="ready")
        assert process.poll() is None, f"the manager ended with {process.returncode}:\n{self.last_log}"
        self.ports = {name.lower(): int(port) for name, port in _PORT_LINE.findall(self.last_log)}

    def until_serving(self) -> None:
        """Waits for the first answer on the port that it had before."""
        eventually(self.serves, READY_SECONDS, what="serving")

    def serves(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def until_ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None
        code = self.process.wait(END_SECONDS)
        self.process = None
        return code

    def stop(self) -> int:
        """Ends it as a service manager would; its exit code."""
        self.signal(signal.SIGTERM)
        return self.until_ended()

    def kill9(self) -> None:
        self.signal(signal.SIGKILL)
        self.until_ended()

    def cpu_seconds(self) -> float:
        """Of the manager's process so far."""
        user, system = _stat(self.pid)[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def zygote(self) -> int | None:
        """The pid of its zygote, which is exec'ed by the manager; shepherds are forked from it."""
        found = [pid for pid in self.processes() if _parent(pid) == self.pid and b"zygote" in _command(pid)]
        return found[0] if found else None

    def client(self, script: Path, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Starts a user's program, which finds the address in FLYTE_ENDPOINT_OF_TEST. Its output goes to a pipe."""
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=script.parent,
            env={**self.environment, "FLYTE_ENDPOINT_OF_TEST": self.endpoint, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._clients.append(process)
        return process

    def run(self, script: Path, *arguments: str, env: Mapping[str, str] | None = None, seconds: float = 120) -> str:
        """Runs a user's program to its end; what it printed. It must end with 0."""
        process = self.client(script, *arguments, env=env)
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode in (0, ABORTED_AT_EXIT), f"the client ended with {process.returncode}:\n{output}"
        return output

    def call(self, method: str, body: object, *, port: str = "api") -> httpx.Response:
        """One unary RPC as plain JSON: `call("workflow.RunService/GetRun", {...})`."""
        address = f"http://localhost:{self.ports[port]}/flyteidl2.{method}"
        return httpx.post(address, json=body, timeout=30, trust_env=False, verify=False)  # to load no certificates

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says, beside the manager, as `sqlite3 flyte.db` would show it."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    def processes(self) -> Sequence[int]:
        """All living processes of this manager and its clients, whoever their parent is now."""
        marker = f"HOME={self.folder / 'home'}".encode()
        return [pid for pid in _pids() if marker in _read(pid, "environ").split(b"\0") and not _zombie(pid)]

    def close(self) -> None:
        """Ends everything at once, tasks too."""
        if self.process is not None:
            self.process.kill()
        for _ in range(100):
            left = self.processes()
            if not left:
                break
            for pid in left:
                _kill(pid)
            time.sleep(0.02)
        if self.process is not None:
            self.process.wait()
            self.process = None
        for client in self._clients:
            client.kill()
            client.communicate()


def _is_free(port: int, family: socket.AddressFamily) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        try:
            trial.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _command(pid: int) -> bytes:
    return _read(pid, "cmdline")


def _stat(pid: int) -> list[bytes]:
    return _read(pid, "stat").rpartition(b")")[2].split()


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _zombie(pid: int) -> bool:
    return _stat(pid)[:1] == [b"Z"]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
