"""What `up` did to this machine, written down as it is done: enough to undo it, after a crash of the tool too.

A process is known by its id and its start time, so that no other process with the same id is ever taken for it.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from tests.cluster.commands import ToolError
from tests.cluster.places import STATE, kubernetes_version

FILE = STATE / "cluster.json"


@dataclass(slots=True)
class Process:
    pid: int
    started_at: str
    argv: list[str] = field(default_factory=list)
    path: str = ""
    """its PATH, where it has one of its own"""

    @property
    def alive(self) -> bool:
        return _started_at(self.pid) == self.started_at


@dataclass(slots=True)
class Record:
    """The cluster of CLUSTER_STATE."""

    node: bool = False
    network: str = "host"
    server: str = ""
    cgroup: str = ""
    bridge: bool = False
    kubernetes: str = field(default_factory=kubernetes_version)
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    rules: list[list[str]] = field(default_factory=list)

    @classmethod
    def load(cls) -> Self:
        """The one on disk; an empty one when there is none."""
        try:
            values = json.loads(FILE.read_text())
        except FileNotFoundError:
            return cls()
        values["processes"] = {name: Process(**process) for name, process in values["processes"].items()}
        return cls(**values)

    def save(self) -> None:
        fresh = FILE.with_suffix(".part")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.rename(FILE)

    def alive(self, name: str) -> bool:
        return name in self.processes and self.processes[name].alive

    def start(self, name: str, *argv: object, env: Mapping[str, str] | None = None) -> None:
        """Starts a process that outlives this one, and writes down which it is."""
        words = [str(word) for word in argv]
        with (STATE / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=STATE,
                env=env,
                start_new_session=True,
            )
        path = env["PATH"] if env else ""
        self.processes[name] = Process(process.pid, _started_at(process.pid) or "", words, path)
        self.save()

    def again(self, name: str) -> None:
        """Starts a process that has ended anew, as it was started before."""
        if self.alive(name):
            raise ToolError(f"{name} runs already")
        before = self._known(name)
        self.start(name, *before.argv, env=dict(os.environ, PATH=before.path) if before.path else None)

    def kill(self, name: str) -> None:
        """Ends a process that this tool started, as a crash would."""
        process = self._known(name)
        while process.alive:
            os.kill(process.pid, signal.SIGKILL)
            _reap(process)
            time.sleep(0.02)

    def _known(self, name: str) -> Process:
        if name not in self.processes:
            raise ToolError(f"{name} is none of {', '.join(self.processes) or 'no running cluster'}")
        return self.processes[name]

    def stop(self, name: str, patience: float = 20) -> None:
        """Stops a process that this tool started."""
        if not self.alive(name):
            return
        process = self.processes[name]
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while process.alive:
            if time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGKILL)
                deadline += patience
            _reap(process)
            time.sleep(0.05)

    def wait_for(self, what: str, holds: Callable[[], object], needs: str, seconds: float = 120) -> None:
        """Waits until it holds; fails early if the process that it needs ends."""
        deadline = time.monotonic() + seconds
        while True:
            # What isn't there yet refuses the connection, answers half, or answers 404.
            with contextlib.suppress(OSError, ToolError, ValueError, KeyError):
                if holds():
                    return
            _reap(self.processes[needs])
            if not self.alive(needs) or time.monotonic() > deadline:
                log = STATE / "logs" / f"{needs}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                raise ToolError(f"{what} did not come; the end of {log}:\n{tail}")
            time.sleep(0.1)


def _started_at(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: with its id, its identity."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _reap(process: Process) -> None:
    """A child of this very process would else stay a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
