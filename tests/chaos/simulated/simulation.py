"""One seed: a manager that lives and dies, runs that go on meanwhile, and what must hold all the time.

    scenario(seed) ─▶ clients create runs, tasks enqueue and wait, a user aborts, a repeater tells old reports again
                   ─▶ the manager is killed and started again; its disk and the world stay
                   ─▶ properties: at each commit, and at the end

Everything random comes from the seed, and time is virtual: a seed that fails, fails again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, TypeVar

from flyteidl2.task import task_definition_pb2

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure
from flyte_manager.domain.errors import Ended, Missing, Refusal, Unavailable
from flyte_manager.domain.ids import ROOT, ActionId, AttemptId
from flyte_manager.domain.orders import NewAction
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.store.engine import Transaction
from tests.chaos.simulated.disk import Disk, MemoryDatabase
from tests.chaos.simulated.properties import Broken, Watch, at_the_end
from tests.chaos.simulated.scenario import (
    OUTPUTS,
    Abort,
    Call,
    Ending,
    Meddling,
    Scenario,
    error_document,
    scenario,
)
from tests.chaos.simulated.world import SimulatedRuntime, World
from tests.fakes.memory_blobs import MemoryBlobs
from tests.fakes.middle import FakeSecrets, Wired, wired
from tests.fakes.orders import action_id, new_condition, new_run, new_task, new_trace, run_id, task_spec
from tests.fakes.virtual_loop import VirtualLoop, run_virtually

LONGEST_SECONDS = 4 * 3600.0
"""after which what has not ended counts as stuck"""
CLEARING_SECONDS = 120.0
"""until attempts of ended actions are gone, two resyncs at least"""
RETRY_SECONDS = 0.5

T = TypeVar("T")
Trace = Callable[[str], None]


class Lost(Exception):  # noqa: N818
    """The manager died during the call."""


@dataclass(slots=True)
class Life:
    """One life of the manager, from a start to the next kill."""

    parts: Wired
    database: MemoryDatabase
    runtime: SimulatedRuntime
    tasks: "list[asyncio.Task[Any]]" = field(default_factory=list)


class Simulation:
    """Plays a scenario."""

    def __init__(self, plays: Scenario, random: Random, *, loop: VirtualLoop, trace: Trace | None = None) -> None:
        self.random = random
        self.scenario = plays
        self.clock: Callable[[], datetime] = loop.clock
        self.watch = Watch(self.scenario, trace and self._at(trace))
        self.disk = Disk(self._committed)
        self.blobs = MemoryBlobs()
        self.world = World(self.clock, self.random, self._attempt)
        self.seen: dict[str, dict[ActionId, ShownAction]] = {name: {} for name in self.scenario.runs}
        self._life: Life | None = None
        self._lives = asyncio.Event()
        self._told: list[tuple[AttemptReport, Budget]] = []
        self._troubles: list[BaseException] = []
        self._helpers: set[asyncio.Task[None]] = set()

    @property
    def lives(self) -> bool:
        """Whether the manager does."""
        return self._life is not None

    async def play(self) -> None:
        """Raises Broken when a property does not hold."""
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        self._start_manager()
        helpers = [self._outages(), self._repeater(), *(self._run(name, root) for name, root in self._roots())]
        helpers += [self._abort(each) for each in self.scenario.aborts]
        helpers += [self._signal(each) for each in self.scenario.signals]
        helpers += [self._meddle(each) for each in self.scenario.meddlings]
        self._helpers = {asyncio.create_task(each) for each in helpers}
        self._helpers |= {asyncio.create_task(self._watcher(name)) for name in self.scenario.runs}
        for task in self._helpers:
            task.add_done_callback(self._checked)
        await self._until_over()
        if not self._troubles:
            await asyncio.sleep(CLEARING_SECONDS)
        self._kill_manager()
        if self._troubles:
            raise self._troubles[0]
        at_the_end(self.disk.connection, self.world, self.seen)

    async def _until_over(self) -> None:
        latest = asyncio.get_running_loop().time() + LONGEST_SECONDS  # the properties say what is stuck
        while not (self._over() or self._troubles or asyncio.get_running_loop().time() > latest):  # noqa: ASYNC110 - virtual
            await asyncio.sleep(5)

    def _at(self, trace: Trace) -> Trace:
        loop = asyncio.get_running_loop()
        return lambda line: trace(f"{loop.time():10.3f}  {line}")

    # the manager

    def _start_manager(self) -> None:
        database = MemoryDatabase(self.disk, self.random)
        runtime = SimulatedRuntime(self.world)
        parts, _ = wired(
            database=database.as_database(),
            blobs=self.blobs,
            secrets=FakeSecrets(),
            world=lambda wake: self._waking(runtime, wake),
            clock=self.clock,
            cpu=self.scenario.cpu,
        )
        report = parts.ledger.report

        async def reporting(told: AttemptReport, budget: Budget) -> None:
            self._told.append((told, budget))
            await report(told, budget)

        parts.ledger.report = reporting  # type: ignore[method-assign]
        life = self._life = Life(parts, database, runtime)
        life.tasks.append(asyncio.create_task(parts.controller.run(), name="executor"))
        life.tasks[0].add_done_callback(self._checked)
        for attempt in self.world.alive():  # as the worlds name what they hold at their start
            parts.controller.hurry(attempt.action)
        self._lives.set()

    def _waking(self, runtime: SimulatedRuntime, wake: Callable[[AttemptId], None]) -> SimulatedRuntime:
        self.world.wake = wake
        return runtime

    def _kill_manager(self) -> None:
        life, self._life = self._life, None
        self._lives.clear()
        self.world.wake = None
        if life is not None:
            life.database.crash()
            life.runtime.dead = True
            for task in life.tasks:
                task.cancel()

    def die(self, seconds: float) -> None:
        """Kills the manager, which is started again after so many seconds."""
        self._kill_manager()
        asyncio.get_running_loop().call_later(seconds, self._start_manager)

    async def _outages(self) -> None:
        for outage in self.scenario.outages:
            await asyncio.sleep(max(0.0, outage.at - asyncio.get_running_loop().time()))
            self._kill_manager()
            await asyncio.sleep(outage.seconds)
            self._start_manager()

    # clients: they try again until they are answered, as the SDK does

    async def _ask(self, call: Callable[[Wired], Coroutine[Any, Any, T]]) -> T:
        while True:
            await self._lives.wait()
            try:
                return await self._call(call)
            except (Lost, Unavailable):
                await asyncio.sleep(self.random.uniform(0, RETRY_SECONDS))

    async def _call(self, call: Callable[[Wired], Coroutine[Any, Any, T]]) -> T:
        """Raises Lost when the manager dies meanwhile."""
        life = self._life
        if life is None:
            raise Lost
        task = asyncio.create_task(call(life.parts))
        life.tasks.append(task)
        try:
            await asyncio.wait([task])
        finally:
            life.tasks.remove(task)
            task.cancel()
        if task.cancelled():
            raise Lost
        return task.result()

    async def _run(self, name: str, root: Call) -> None:
        await asyncio.sleep(self.random.uniform(0, 3))
        order = replace(new_run(name, spec=_spec(root)), cache_key=root.cache_key)
        for _ in range(self.random.choice((1, 1, 2))):  # asked again by a client that lost the answer
            await self._ask(lambda parts: parts.ledger.create_run(order))

    async def _abort(self, abort: Abort) -> None:
        await asyncio.sleep(abort.at)
        for _ in range(self.random.choice((1, 1, 2))):
            try:
                if abort.action:
                    await self._ask(lambda parts: parts.ledger.abort_action(action_id(abort.action, abort.run), "user"))
                else:
                    await self._ask(lambda parts: parts.ledger.abort_run(run_id(abort.run), "user"))
            except Missing:  # not enqueued yet, and maybe never
                return

    async def _signal(self, signal: Abort) -> None:
        await asyncio.sleep(signal.at)
        try:
            await self._ask(lambda parts: parts.ledger.signal(action_id(signal.action, signal.run), b"\x0a\x00"))
        except Refusal:  # not asked yet, or not any more
            return

    async def _meddle(self, meddling: Meddling) -> None:
        """Another client ends an attempt in the rows, whatever the world knows."""
        await asyncio.sleep(meddling.at)
        call = self.scenario.call(meddling.run, meddling.action)
        known = self.watch.known.get(action_id(call.name, meddling.run))
        if call.kind is Kind.TASK and known is not None and not known.final:
            failure = Failure(ErrorKind.USER, "Meddling", "somebody said so")
            told = AttemptReport(known.attempt_id, Phase.FAILED, self.clock(), failure=failure)
            await self._ask(lambda parts: parts.ledger.report(told, Budget(call.retries, call.backoff)))

    async def _repeater(self) -> None:
        """Tells what was told before, by then often late."""
        while True:
            await asyncio.sleep(self.random.uniform(0, 20))
            if self._told and self.random.random() < 0.5:
                told, budget = self.random.choice(self._told)
                try:
                    await self._call(partial(_again, told=told, budget=budget))
                except (Lost, Unavailable, Missing):
                    continue

    async def _watcher(self, name: str) -> None:
        """Follows a run; cut off, it begins anew."""
        while True:
            await self._lives.wait()
            try:
                await self._call(lambda parts: self._follow(parts, name))
            except (Lost, Unavailable, Missing):
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, parts: Wired, name: str) -> None:
        left = self.random.choice((1, 3, 1000))  # messages until the connection breaks
        async with aclosing(parts.reader.follow_run(run_id(name))) as pages:
            async for page in pages:
                for action in page or ():
                    self.seen[name][action.id] = action
                left -= 1
                if not left:
                    raise Lost

    # tasks

    async def _attempt(self, attempt: AttemptId) -> Ending:
        call = self.scenario.call(attempt.action.run.name, attempt.action.name)
        fate = call.fate(attempt.number)
        await asyncio.sleep(fate.seconds)
        prefix = f"{new_run(attempt.action.run.name).base_uri}/{call.name}/{attempt.number}"
        failed = await self._calls(attempt.action, call)
        ending = fate.ending if failed is None or call.forgiving else Ending.RECOVERABLE
        if ending in (Ending.RECOVERABLE, Ending.FATAL):
            code = "ActionAbortedError" if failed is Phase.ABORTED else "Simulated"
            self.blobs.objects[f"{prefix}/error.pb"] = error_document(ending, code)
        elif ending is Ending.GOOD:
            self.blobs.objects[f"{prefix}/outputs.pb"] = OUTPUTS
        return ending

    async def _calls(self, action: ActionId, call: Call) -> Phase | None:
        """Enqueues what the task calls, and waits for it; how the first failed call ended."""
        failed: Phase | None = None
        waves = [call.calls] if call.together else [[each] for each in call.calls]
        for wave in waves:
            for each in wave:
                try:
                    await self._ask(partial(_enqueue, order=_order(each, action)))
                except Ended:
                    return Phase.ABORTED
            for ended in (await self._wait(action, {each.name for each in wave})).values():
                if ended is not Phase.SUCCEEDED:
                    failed = failed or ended
            if failed is not None and not call.forgiving:
                return failed
        return failed

    async def _wait(self, parent: ActionId, names: set[str]) -> dict[str, Phase]:
        """As an SDK parent does: each connection begins with a snapshot."""
        ends: dict[str, Phase] = {}

        async def follow(parts: Wired) -> None:
            async with aclosing(parts.reader.follow_children(parent)) as pages:
                async for page in pages:
                    for child in page or ():
                        if child.final and child.id.name in names:
                            ends.setdefault(child.id.name, child.phase)
                    if len(ends) == len(names):
                        return

        await self._ask(follow)
        return ends

    def _roots(self) -> list[tuple[str, Call]]:
        return list(self.scenario.runs.items())

    def _over(self) -> bool:
        roots = [self.watch.known.get(action_id(ROOT, name)) for name in self.scenario.runs]
        return all(root is not None and root.final for root in roots)

    def _committed(self, tx: Transaction) -> None:
        try:
            self.watch.committed(tx)
        except Broken as broken:  # the manager would take it for a trouble of its own
            self._troubles.append(broken)

    def _checked(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._troubles.append(task.exception() or Broken())

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        trouble = context.get("exception") or Broken(context["message"])
        if not isinstance(trouble, Unavailable):  # writes that a dead manager still waited for
            self._troubles.append(trouble)


def simulate(seed: int, *, trace: Trace | None = None) -> Simulation:
    """Plays what comes of the seed. `trace` is called with a line for each change of an action. Raises what went wrong,
    Broken for a property that does not hold."""
    random = Random(seed)
    return play(scenario(random), random, trace=trace)


def play(
    plays: Scenario, random: Random, *, trace: Trace | None = None, begun: Callable[[Simulation], None] | None = None
) -> Simulation:
    """`begun` is given the simulation before its first moment. Raises what went wrong."""
    loop = VirtualLoop()
    simulation: Simulation | None = None

    async def main() -> Simulation:
        nonlocal simulation
        simulation = Simulation(plays, random, loop=loop, trace=trace)
        if begun:
            begun(simulation)
        await simulation.play()
        return simulation

    try:
        return run_virtually(main(), loop)
    finally:
        if simulation is not None:
            simulation.disk.close()


def _spec(call: Call) -> task_definition_pb2.TaskSpec:
    spec = task_spec(
        f"sim.{call.name}", retries=call.retries, backoff=float(call.backoff), cpu=str(call.cpu), outputs=True
    )
    metadata = spec.task_template.metadata
    metadata.discoverable, metadata.cache_serializable = bool(call.cache_key), call.serialized
    for duration, seconds in (
        (metadata.timeout, call.max_runtime),
        (metadata.timeouts.queued_timeout, call.queued_timeout),
        (metadata.timeouts.deadline, call.deadline),
    ):
        if seconds:
            duration.FromSeconds(seconds)
    return spec


def _order(call: Call, parent: ActionId) -> NewAction:
    match call.kind:
        case Kind.CONDITION:
            return new_condition(call.name, parent=parent.name, run=parent.run.name, timeout=call.timeout)
        case Kind.TRACE:
            return new_trace(call.name, parent=parent.name, run=parent.run.name)
        case _:
            order = new_task(call.name, parent=parent.name, run=parent.run.name, spec=_spec(call))
            return replace(order, cache_key=call.cache_key)


async def _enqueue(parts: Wired, *, order: NewAction) -> None:
    await parts.ledger.enqueue(order)


async def _again(parts: Wired, *, told: AttemptReport, budget: Budget) -> None:
    await parts.ledger.report(told, budget)
