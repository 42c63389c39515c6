"""The measurements on Kubernetes. Each starts what it needs and counts a bounded amount of work.

control_plane: a real control plane whose nodes are KWOK's, so that pods run and succeed without any process, and have
no log that could be read. node: a real node, real pods, the real SDK.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from sqlite3 import connect
from typing import Any

from bench import measures, processes
from bench.clusters import NAMESPACE, SDK_IMAGE, Counted, World, cluster
from bench.copies import copy_finished, until_ended
from bench.load import Outcome
from bench.manager import REPOSITORY, Manager
from bench.measures import Loaded, WrongCountError, quantiles
from bench.report import Figure, Row

POD_SECONDS = 1.0
NODES = 12
"""each takes 1000 pods"""
LOAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work."""

    paced: int = 100
    actions: int = 1000
    finished: int = 10_000
    runs: int = 7
    fan: int = 30


QUICK = Scale(paced=20, actions=200, finished=1000, runs=2, fan=5)


def control_plane(scale: Scale) -> Iterator[Row]:
    """Children of one parent, paced and at once; then what many finished ones cost."""
    with cluster("--no-node", "--kwok", str(NODES), "--pod-seconds", str(POD_SECONDS)) as world:
        with world.manager() as manager:
            yield from _paced(world, manager, scale)
            yield from _at_once(world, manager, scale)
            own = processes.memory(manager.pid).resident
            until_ended(world.state / "kubeconfig", NAMESPACE)
        copy_finished(world.state / "kubeconfig", NAMESPACE, scale.finished - scale.paced - scale.actions)
        yield from _restarted(world, scale, own)


def node(scale: Scale) -> Iterator[Row]:
    """Runs with the SDK, as real pods."""
    with cluster() as world:
        world("image", "--name", SDK_IMAGE, "--constraints", str(REPOSITORY / "constraints.txt"), "flyte")
        with world.manager() as manager:
            _sdk(manager, "noop", 1)  # the first run of all uploads the code
            yield from _noop(manager, scale)
            yield from _fan(manager, scale)


MEASURES: dict[str, Callable[[Scale], Iterator[Row]]] = {each.__name__: each for each in (control_plane, node)}


class _Meter:
    """What a load costs the manager and the cluster, from its making on."""

    def __init__(self, world: World, manager: Manager) -> None:
        self._world = world
        self._manager = manager
        self._before = self._now()

    def done(self) -> tuple[Counted, dict[str, float]]:
        """What was counted, and CPU seconds."""
        counted, cpu = self._now()
        return counted.since(self._before[0]), {name: cpu[name] - before for name, before in self._before[1].items()}

    def _now(self) -> tuple[Counted, Mapping[str, float]]:
        counted = self._world.counted(self._manager)
        cpu = {"manager": processes.cpu(self._manager.pid)}
        return counted, cpu | {name: processes.cpu(pid) for name, pid in self._world.pids().items()}


def _paced(world: World, manager: Manager, scale: Scale) -> Iterator[Row]:
    """Five a second: what the manager adds to the cluster's own time."""
    loaded, meter = Loaded(), _Meter(world, manager)
    done = _load(manager, "paced", scale.paced)
    counted, cpu = meter.done()
    told = f"{done.count} actions, 5 a second"
    for key, what, seconds in (
        ("started", "Pod runs → committed", counted.started),
        ("ended", "Pod has ended → committed", counted.ended),
    ):
        yield Row(f"pods.paced.{key}", f"{what}, 5 actions a second", quantiles(seconds), told, {}, loaded())
    figures = [*quantiles(done.latencies), *_costs(done, counted, cpu)]
    what = f"Enqueue → SUCCEEDED, pods run {POD_SECONDS:g} s"
    yield Row("pods.paced.whole", f"{what}, 5 actions a second", figures, told, cpu, loaded())


def _at_once(world: World, manager: Manager, scale: Scale) -> Iterator[Row]:
    loaded, meter = Loaded(), _Meter(world, manager)
    done = _load(manager, "to_the_end", scale.actions)
    counted, cpu = meter.done()
    told = f"{done.count} actions"
    figures = [Figure("", done.count / done.seconds, "actions/s"), *_costs(done, counted, cpu)]
    yield Row("pods.once.whole", f"{scale.actions} children of one parent, at once", figures, told, cpu, loaded())
    requests = [
        Figure(name, count / done.count, "")
        for name, count in sorted(counted.requests.items(), key=lambda each: -each[1])
        if count >= done.count / 100
    ]
    yield Row("pods.once.requests", "Their requests, per action", requests, told, {}, loaded())
    ended = quantiles(counted.ended)
    yield Row("pods.once.ended", "Pod has ended → committed, all at once", ended, told, {}, loaded())


def _restarted(world: World, scale: Scale, own: float) -> Iterator[Row]:
    """With many finished TaskActions and their pods."""
    loaded = Loaded()
    with world.manager() as manager:
        figures = [
            Figure("serves", manager.answering.seconds, "s"),
            Figure("all known", manager.ready.seconds, "s"),
            Figure("RSS", processes.memory(manager.pid).resident, "MiB"),
            Figure("before, with its own", own, "MiB"),
        ]
        cpu = {"manager": manager.ready.cpu}
    yield Row("pods.restart", f"Restart with {scale.finished} finished TaskActions", figures, "", cpu, loaded())


def _noop(manager: Manager, scale: Scale) -> Iterator[Row]:
    loaded, before = Loaded(), processes.cpu(manager.pid)
    told = _sdk(manager, "noop", scale.runs)
    cpu = {"manager": processes.cpu(manager.pid) - before}
    seconds = _seconds(manager, [run for run, _ in told["answer"]])
    figures = [
        Figure("CreateRun → SUCCEEDED", statistics.median(seconds), "s"),
        Figure("as the user sees it", statistics.median(seconds for _, seconds in told["answer"]), "s"),
    ]
    yield Row("node.noop", "A no-op run, a real pod", figures, f"median of {scale.runs}", cpu, loaded())


def _fan(manager: Manager, scale: Scale) -> Iterator[Row]:
    loaded, before = Loaded(), processes.cpu(manager.pid)
    told = _sdk(manager, "fan", scale.fan)
    cpu = {"manager": processes.cpu(manager.pid) - before}
    ran, _ = told["answer"]
    if ran != scale.fan:
        raise WrongCountError(f"{scale.fan} children were called, {ran:g} answered")
    figures = [
        Figure("CreateRun → SUCCEEDED", _seconds(manager, [told["run"]])[0], "s"),
        Figure("as the user sees it", told["seconds"], "s"),
        Figure("manager", 1000 * cpu["manager"] / (scale.fan + 1), "ms CPU/action"),
    ]
    yield Row("node.fan", f"Fan-out of {scale.fan} real pods", figures, f"{scale.fan} children", cpu, loaded())


def _costs(done: Outcome, counted: Counted, cpu: Mapping[str, float]) -> list[Figure]:
    return [
        Figure("manager", 1000 * cpu["manager"] / done.count, "ms CPU/action"),
        Figure("", sum(counted.requests.values()) / done.count, "requests/action"),
    ]


def _load(manager: Manager, scenario: str, count: int) -> Outcome:
    return measures.load(manager, scenario, count=count, callers=1 if scenario == "paced" else 50, seconds=LOAD_SECONDS)


def _sdk(manager: Manager, task: str, count: int) -> dict[str, Any]:
    return measures.sdk(manager, task, count, BENCH_IMAGE=SDK_IMAGE)


def _seconds(manager: Manager, runs: list[str]) -> list[float]:
    """From CreateRun to the end of the run, by the manager's own record."""
    sql = "SELECT julianday(ended_at) - julianday(created_at) FROM runs WHERE name = ?"
    with closing(connect(f"file:{manager.folder / 'flyte.db'}?mode=ro", uri=True)) as connection:
        return [86_400 * connection.execute(sql, (run,)).fetchone()[0] for run in runs]
