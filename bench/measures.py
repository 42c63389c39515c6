"""The measurements. Each starts what it needs, counts a bounded amount of work, and stops what it started.

real: the manager as users start it, tasks are processes. fake: the same manager, its world replaced by `instant.py`,
so that what remains is the manager's own work.
"""

import json
import math
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import lists as run_lists
from bench import processes
from bench.durable import commits_per_second
from bench.load import Outcome
from bench.manager import FAKE, REPOSITORY, Manager, running
from bench.report import Figure, Row

ROOM = ("--embedded.cpu=100000", "--embedded.memory=100Ti")
"""so that nothing waits for a core"""
CLIENT_SECONDS = 320.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work: counts, and the seconds after which a load adds no more."""

    starts: int = 3
    idle_seconds: float = 10.0
    calls: int = 400
    calls_at_once: int = 3000
    durable_seconds: float = 1.0
    call_seconds: float = 12.0
    warm: int = 40
    cold: int = 8
    watched: int = 200
    watched_by_many: int = 20
    drained: int = 1000
    children: int = 1000
    runs: int = 1_000_000
    listings: int = 200


QUICK = Scale(
    starts=1,
    idle_seconds=3.0,
    calls=100,
    calls_at_once=500,
    call_seconds=4.0,
    warm=8,
    cold=2,
    watched=30,
    watched_by_many=4,
    drained=200,
    children=60,
    runs=50_000,
    listings=50,
)


class Loaded:
    """Reads the load average at its making, and again when asked."""

    def __init__(self) -> None:
        self._before = processes.load()

    def __call__(self) -> tuple[float, float]:
        return self._before, processes.load()


def start(scale: Scale) -> Iterator[Row]:
    """From the exec of the manager to its first answer, and to tasks that can start warm."""
    with running():  # modules are compiled and files are in the page cache afterwards
        pass
    loaded = Loaded()
    serving, ready, zygotes = [], [], []
    for _ in range(scale.starts):
        with running() as manager:
            serving.append(manager.serving)
            ready.append(manager.ready)
            zygotes.append(processes.tree_cpu(_zygote(manager)))
    counted = f"median of {scale.starts} starts"
    for key, what, moments in (("serving", "Start → /readyz answers", serving), ("ready", 'Start → "Ready"', ready)):
        cpu = {"manager": statistics.median(each.cpu for each in moments)}
        if key == "ready":
            cpu["zygote and its self-test"] = statistics.median(zygotes)
        wall = Figure("", statistics.median(each.seconds for each in moments), "s")
        yield Row(f"start.{key}", what, [wall], counted, cpu, loaded())


def idle(scale: Scale) -> Iterator[Row]:
    """Memory, and CPU as a share of one core, with nothing to do."""
    with running() as manager:
        zygote = _zygote(manager)
        time.sleep(2.0)
        loaded = Loaded()
        pids = {"manager": manager.pid, "zygote": zygote}
        before = {name: processes.cpu(pid) for name, pid in pids.items()}
        time.sleep(scale.idle_seconds)
        used = {name: processes.cpu(pid) - before[name] for name, pid in pids.items()}
        for name, pid in pids.items():
            memory = processes.memory(pid)
            figures = [
                Figure("RSS", memory.resident, "MiB"),
                Figure("PSS", memory.share, "MiB"),
                Figure("CPU", 100 * used[name] / scale.idle_seconds, "%"),
            ]
            yield Row(
                f"idle.{name}", f"Idle {name}", figures, f"{scale.idle_seconds:g} s", {name: used[name]}, loaded()
            )


def calls(scale: Scale) -> Iterator[Row]:
    """Latency of the two requests that make actions, which the fake world then runs while the next ones come."""
    for scenario, what in (("create_run", "CreateRun"), ("enqueue", "Enqueue")):
        for callers, count in ((1, scale.calls), (50, scale.calls_at_once)):
            with running(program=FAKE, flags=ROOM) as manager:
                loaded = Loaded()
                done = load(manager, scenario, count=count, callers=callers, seconds=scale.call_seconds)
                figures = [*quantiles(done.latencies), Figure("", done.count / done.seconds, "calls/s")]
                who = "1 caller" if callers == 1 else f"{callers} callers"
                counted = f"{done.count} calls"
                yield Row(f"{scenario}.{callers}", f"{what}, {who}", figures, counted, _cpu(done), loaded())


def statuses(scale: Scale) -> Iterator[Row]:
    """UpdateActionStatus by an executor that runs apart, beside what the disk gives at that moment."""
    loads = (("status", 1, "1 caller"), ("status", 10, "10 callers"), ("status", 50, "50 callers"))
    for scenario, callers, who in (*loads, ("status_stream", 1, "1 stream")):
        with running(program=FAKE) as manager:
            loaded = Loaded()
            before = commits_per_second(manager.folder, seconds=scale.durable_seconds)
            count = scale.calls if callers == 1 and scenario == "status" else scale.calls_at_once
            done = load(manager, scenario, count=count, callers=callers, seconds=CLIENT_SECONDS)
            after = commits_per_second(manager.folder, seconds=scale.durable_seconds)
            rate, durable = done.count / done.seconds, (before + after) / 2
            figures = [
                Figure("", rate, "updates/s"),
                Figure("one-row commits", durable, "/s"),
                Figure("ratio", 100 * rate / durable, "%"),
            ]
            counted = f"{done.count} updates"
            yield Row(f"{scenario}.{callers}", f"UpdateActionStatus, {who}", figures, counted, _cpu(done), loaded())


def launch(scale: Scale) -> Iterator[Row]:
    """One child after the other of one SDK parent: how long until it runs."""
    for mode, count in (("warm", scale.warm), ("cold", scale.cold)):
        with running(flags=[f"--embedded.warm={str(mode == 'warm').lower()}"]) as manager:
            loaded = Loaded()
            cpu = _Usage(manager)
            told = sdk(manager, "in_turn", count)
            used = cpu.used()
            pairs = told["answer"]
            if not isinstance(pairs, list) or len(pairs) != count:
                raise WrongCountError(f"{count} children were called, {pairs!r} came back")
            counted = f"{count} children"
            first = quantiles([begun for begun, _ in pairs])
            last = quantiles([answered for _, answered in pairs])
            yield Row(f"launch.{mode}.begun", f"Call → task's first line, {mode}", first, counted, used, loaded())
            yield Row(f"launch.{mode}.answered", f"Call → its answer, {mode}", last, counted, {}, loaded())
            started = quantiles(_enqueued_to_running(manager.folder / "flyte.db", str(told["run"])))
            yield Row(f"launch.{mode}.running", f"Enqueued → RUNNING, {mode}", started, counted, {}, loaded())


def watch(scale: Scale) -> Iterator[Row]:
    """From a change of phase to the watcher that hears of it."""
    with running(program=FAKE, flags=ROOM) as manager:
        loaded = Loaded()
        done = load(manager, "watch_ends", count=scale.watched)
        counted = f"{done.count} runs"
        figures = quantiles(done.later)
        yield Row("watch.running", "Task starts → watcher of the run", figures, counted, _cpu(done), loaded())
        yield Row("watch.end", "Task ends → watcher of the run", quantiles(done.latencies), counted, {}, loaded())
        loaded = Loaded()
        done = load(manager, "watch_ends", count=scale.watched_by_many, callers=50)
        counted = f"{done.count} messages"
        figures = quantiles(done.latencies)
        yield Row("watch.end.50", "Task ends → each of 50 watchers", figures, counted, _cpu(done), loaded())
        done = load(manager, "watch_traces", count=scale.watched)
        counted = f"{done.count} traces"
        figures = quantiles(done.latencies)
        yield Row("watch.trace", "Enqueue of a trace → the parent's watcher", figures, counted, _cpu(done), loaded())
        yield Row("watch.answer", "Enqueue of a trace → its answer", quantiles(done.later), counted, {}, loaded())


def actions(scale: Scale) -> Iterator[Row]:
    """The manager's own work for an action: enqueue, start, end, and the watcher of the parent."""
    for key, what, flags in (
        ("roomy", "Action in a fake world, all at once", ROOM),
        ("queued", "Action in a fake world, waiting for cores", ("--embedded.cpu=2",)),
    ):
        with running(program=FAKE, flags=flags) as manager:
            loaded = Loaded()
            done = load(manager, "to_the_end", count=scale.drained, callers=50, seconds=60.0)
            figures = [
                Figure("manager", 1000 * done.manager_cpu / done.count, "ms CPU/action"),
                Figure("", done.count / done.seconds, "actions/s"),
                *quantiles(done.latencies),
            ]
            yield Row(f"actions.{key}", what, figures, f"{done.count} actions", _cpu(done), loaded())


def in_turn(scale: Scale) -> Iterator[Row]:
    """The same for one action after the other: nothing waits for anything else."""
    with running(program=FAKE, flags=ROOM) as manager:
        loaded = Loaded()
        done = load(manager, "in_turn", count=scale.calls, seconds=60.0)
        figures = [Figure("manager", 1000 * done.manager_cpu / done.count, "ms CPU/action"), *quantiles(done.latencies)]
        what = "Enqueue → SUCCEEDED at the parent's watcher, one at a time"
        yield Row("actions.in_turn", what, figures, f"{done.count} actions", _cpu(done), loaded())


def children(scale: Scale) -> Iterator[Row]:
    """No-op children of one SDK parent, as the user sees it: from `flyte.run` to the end of `run.wait`."""
    with running() as manager:
        sdk(manager, "fan", 2)  # the first run of all uploads the code
        loaded = Loaded()
        cpu = _Usage(manager)
        told = sdk(manager, "fan", scale.children)
        used = cpu.used()
        ran, parent = told["answer"]
        if ran != scale.children:
            raise WrongCountError(f"{scale.children} children were called, {ran:g} answered")
        seconds = float(told["seconds"])
        figures = [
            Figure("", seconds, "s"),
            Figure("", ran / seconds, "actions/s"),
            Figure("manager", 1000 * used["manager"] / ran, "ms CPU/action"),
            Figure("zygote and tasks", 1000 * used["zygote and tasks"] / ran, "ms CPU/action"),
            Figure("manager then", processes.memory(manager.pid).resident, "MiB RSS"),
        ]
        used |= {"of these the parent": parent, "the user's SDK": told["cpu"]}
        what = f"{scale.children} no-op children of one SDK parent"
        yield Row("children", what, figures, f"{ran:g} children", used, loaded())


def lists(scale: Scale) -> Iterator[Row]:
    """Among very many runs."""
    yield from run_lists.lists(scale.runs, scale.listings, quantiles)


MEASURES: dict[str, Callable[[Scale], Iterator[Row]]] = {
    each.__name__: each for each in (start, idle, calls, statuses, launch, watch, actions, in_turn, children, lists)
}


class WrongCountError(Exception):
    """Less was done than was asked for."""


class ClientError(Exception):
    """A client ended with an error; its last words follow."""


class _Usage:
    """CPU seconds from its making on."""

    def __init__(self, manager: Manager) -> None:
        self._pids = manager.pid, _zygote(manager)
        self._before = self._now()

    def used(self) -> dict[str, float]:
        manager, tasks = self._now()
        return {"manager": manager - self._before[0], "zygote and tasks": tasks - self._before[1]}

    def _now(self) -> tuple[float, float]:
        manager, zygote = self._pids
        return processes.cpu(manager), processes.tree_cpu(zygote)


def _zygote(manager: Manager) -> int:
    if manager.zygote is None:
        raise LookupError("the manager has no zygote")
    return manager.zygote


def load(manager: Manager, scenario: str, *, count: int, callers: int = 1, seconds: float = 60.0) -> Outcome:
    """Runs the clients in a process of their own."""
    command = [sys.executable, "-m", "bench.load", scenario, manager.url, str(manager.pid)]
    told = _told([*command, str(count), str(callers), str(seconds)], manager, cwd=REPOSITORY)
    return Outcome(**told)


def sdk(
    manager: Manager, task: str, count: int, *, seconds: float = CLIENT_SECONDS, **variables: str
) -> dict[str, Any]:
    """Runs a task with the SDK, as a user's program in an empty folder with an empty home."""
    home = manager.folder / "user"
    script = str(shutil.copy(Path(__file__).with_name("sdk_tasks.py"), home))
    command = [sys.executable, script, manager.endpoint, task, str(count)]
    return _told(command, manager, cwd=home, seconds=seconds, **variables)


def _told(
    command: Sequence[str], manager: Manager, *, cwd: Path, seconds: float = CLIENT_SECONDS, **variables: str
) -> dict[str, Any]:
    """The JSON on the last line that the command prints. Raises ClientError."""
    environment = {**os.environ, "HOME": str(manager.folder / "user"), "FLYTE_DISABLE_SENTRY": "1", **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise ClientError(
            f"{done.stderr[-2000:]}\nthe manager's log:\n{(manager.folder / 'manager.log').read_text()[-2000:]}"
        )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _enqueued_to_running(database: Path, run: str) -> list[float]:
    """Seconds, by the manager's own record: from the child's row to the start of its process."""
    sql = "SELECT created_at, started_at FROM actions WHERE run = ? AND parent <> '' AND started_at IS NOT NULL"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(sql, (run,)).fetchall()
    return [(datetime.fromisoformat(ran) - datetime.fromisoformat(made)).total_seconds() for made, ran in rows]


def quantiles(seconds: Sequence[float]) -> list[Figure]:
    """p50 and p99 of what is there, by the nearest rank: p99 of less than 100 is the largest."""
    ranked = sorted(seconds)
    return [
        Figure(f"p{percent}", 1000 * ranked[math.ceil(percent / 100 * len(ranked)) - 1], "ms") for percent in (50, 99)
    ]


def _cpu(done: Outcome) -> dict[str, float]:
    return {"manager": done.manager_cpu, "client": done.client_cpu}
