"""A user of the SDK: their folder, their programs, their command line; and what the manager tells them, in JSON."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.managers import ABORTED_AT_EXIT, Manager

PROGRAMS = Path(__file__).with_name("programs")
FLYTE = Path(sys.executable).with_name("flyte")
COLOURS = re.compile(r"\x1b\[[0-9;]*m|\x1b]8;[^\\]*\\")
"""what the SDK prints even where there is no terminal"""
ROADS: Mapping[str, Mapping[str, str]] = {"actions": {}, "queue": {"_U_USE_ACTIONS": "0"}}
"""the variables that make tasks call ActionsService, or QueueService and StateService"""


@dataclass(frozen=True, slots=True)
class Program:
    """A process of the user's that has ended."""

    code: int
    output: str

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]


@dataclass(slots=True)
class User:
    """Someone with the SDK. `folder` holds their programs and the configuration that the banner told them to make."""

    manager: Manager
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """more that their shell exports"""
    _running: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(self, *command: str | Path, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=self.folder,
            env={**self.manager.environment, "PYTHONUNBUFFERED": "1", "COLUMNS": "240", **self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def python(self, *arguments: str | Path, code: int = 0) -> Program:
        """Runs a Python program to its end, which must be this exit code."""
        return finish(self.start(sys.executable, *arguments), code)

    def flyte(self, *arguments: str | Path, code: int = 0) -> str:
        """Runs the SDK's command line to its end, which must be this exit code; what it printed."""
        return finish(self.start(FLYTE, *arguments), code).output

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """What `flyte get` lists, in JSON."""
        # the command wraps even JSON at the width of its terminal
        command: list[str | Path] = [FLYTE, "--output-format", "json-raw", "get", *arguments]
        listed = json.loads(finish(self.start(*command, env={"COLUMNS": "1000000"})).output)
        return listed if isinstance(listed, list) else [listed]

    def runs(self, *orders: Mapping[str, object]) -> Sequence[dict[str, Any]]:
        """Starts these runs in one process and waits for them; what the SDK says of each."""
        return self.python("drive.py", json.dumps(orders)).lines()

    def run(self, task: str, env: Mapping[str, str] | None = None, **inputs: object) -> dict[str, Any]:
        return self.runs({"task": task, "inputs": inputs, "env": env or {}})[0]

    def begin(self, task: str, env: Mapping[str, str] | None = None, **inputs: object) -> str:
        """Starts a run and does not wait for it; its name."""
        return str(self.runs({"task": task, "inputs": inputs, "env": env or {}, "wait": False})[0]["name"])

    def details(self, run: str, action: str = "a0") -> dict[str, Any]:
        """GetActionDetails, in JSON."""
        answer = self.manager.call("workflow.RunService/GetActionDetails", {"actionId": _action_id(run, action)})
        return dict(answer.raise_for_status().json()["details"])

    def attempts(self, run: str, action: str = "a0") -> list[dict[str, Any]]:
        return list(self.details(run, action)["attempts"])

    def actions(self, run: str) -> list[dict[str, Any]]:
        """ListActions, in JSON."""
        body = {"runId": _action_id(run, "a0")["run"], "request": {"limit": 1000}}
        answer = self.manager.call("workflow.RunService/ListActions", body)
        return list(answer.raise_for_status().json()["actions"])

    def children(self, run: str, task: str) -> list[str]:
        """Names of the actions of this task, by its function's name."""
        return [each["id"]["name"] for each in self.actions(run) if function_of(each) == task]

    def phase(self, run: str, action: str = "a0") -> str:
        return str(self.details(run, action)["status"]["phase"]).removeprefix("ACTION_PHASE_")

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def new_user(manager: Manager, *more_programs: Path) -> Iterator[User]:
    """Someone who has just pasted the line of the banner into a folder with the programs."""
    folder = manager.folder / "user"
    for programs in (PROGRAMS, *more_programs):
        shutil.copytree(programs, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    someone = User(manager, folder)
    (line,) = (line for line in manager.last_log.splitlines() if line.strip().startswith("flyte create config"))
    someone.flyte(*line.split()[1:])
    try:
        yield someone
    finally:
        someone.close()


def function_of(action: Mapping[str, Any]) -> str:
    """The function's name of a task or trace that ListActions told of."""
    metadata = action["metadata"]
    return str(metadata.get("trace", metadata.get("condition", {})).get("name") or metadata["funtionName"])


def finish(process: "subprocess.Popen[str]", code: int = 0, seconds: float = 240) -> Program:
    output = COLOURS.sub("", process.communicate(timeout=seconds)[0])
    assert process.returncode in (code, ABORTED_AT_EXIT), f"ended with {process.returncode}, not {code}:\n{output}"
    return Program(code, output)


def _action_id(run: str, action: str) -> dict[str, Any]:
    return {"run": {"project": "flytesnacks", "domain": "development", "name": run}, "name": action}
