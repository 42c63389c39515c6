"""The middle of the manager on a real database file and a real blob folder, over the fake world."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt, AttemptReport, Failure
from flyte_manager.domain.bounds import NO_LIMITS, Limits
from flyte_manager.domain.ids import ActionId, AttemptId, ProjectId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Blobs, Clock, Runtime, Secrets, Wake
from flyte_manager.domain.tasks import World
from flyte_manager.executor.admission import Admission
from flyte_manager.executor.caching import Caching
from flyte_manager.executor.controller import Controller
from flyte_manager.executor.launching import Launching
from flyte_manager.executor.outcome import Outcomes, install_into
from flyte_manager.executor.plans import Plans
from flyte_manager.executor.reconcile import Reconciler
from flyte_manager.executor.resources import RowsAlone
from flyte_manager.executor.timing import Countdowns, Timing
from flyte_manager.ledger.cache import Cache
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.wakeups import Wakeups
from flyte_manager.ledger.watch import Reader
from flyte_manager.store.engine import Database
from tests.fakes.runtime import FakeRuntime, Program

DEFAULTS = {"FSSPEC_FILE": '{"auto_mkdir": true}'}


@dataclass(slots=True)
class FakeSecrets:
    """Implements ports.Secrets."""

    values: dict[str, bytes] = field(default_factory=dict)

    async def give(self, scope: ProjectId, key: str) -> bytes | None:
        assert scope.project
        return self.values.get(key)


@dataclass(slots=True)
class Middle:
    """What services and executor share, and the executor itself, which runs only inside `operating`."""

    database: Database
    ledger: Ledger
    reader: Reader
    blobs: Directory
    secrets: FakeSecrets
    runtime: FakeRuntime
    admission: Admission
    reconciler: Reconciler
    controller: Controller[ActionId]

    async def action(self, action: ActionId) -> Action:
        return await self.reader.action(action)

    async def attempts(self, action: ActionId) -> tuple[Attempt, ...]:
        return (await self.reader.history(action)).attempts

    async def phase(self, action: ActionId) -> Phase:
        return (await self.reader.action(action)).phase

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[None]:
        operator = asyncio.create_task(self.controller.run(), name="executor")
        try:
            yield
        finally:
            operator.cancel()
            await asyncio.wait([operator])

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
        """Waits until it holds; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110 - what holds lies in a database
                await asyncio.sleep(0.005)

    async def until_phase(self, action: ActionId, phase: Phase) -> None:
        async def reached() -> bool:
            return await self.phase(action) is phase

        await self.until(reached)


@dataclass(frozen=True, slots=True)
class Wired:
    """The objects that one start of the manager makes between its database and its world."""

    ledger: Ledger
    reader: Reader
    admission: Admission
    reconciler: Reconciler
    controller: Controller[ActionId]


R = TypeVar("R", bound=Runtime)


def wired(
    *,
    database: Database,
    blobs: Blobs,
    secrets: Secrets,
    world: Callable[[Wake], R],
    clock: Clock,
    cpu: float = 8.0,
    memory: int = 8 << 30,
    kind: World = World.PROCESSES,
    limits: Limits = NO_LIMITS,
    ticks: Callable[[], float] | None = None,
) -> tuple[Wired, R]:
    """`world` makes the runtime, which wakes the executor; without `ticks` time passes by the clock."""
    wakeups = Wakeups()
    ledger, reader = Ledger(database, wakeups, clock), Reader(database, wakeups)
    controller: Controller[ActionId]

    def wake(action: ActionId) -> None:
        controller.hurry(action)

    def ended(attempt: AttemptId) -> None:
        controller.hurry(attempt.action)

    def changed(action: Action) -> None:
        if reconciler.changed(action):
            controller.enqueue(action.id)

    runtime = world(ended)
    admission = Admission(cpu=cpu, memory=memory, wake=wake)
    plans = Plans(reader, kind, limits)
    reconciler = Reconciler(
        reader=reader,
        ledger=ledger,
        runtime=runtime,
        admission=admission,
        plans=plans,
        launching=Launching(
            secrets=secrets, blobs=blobs, endpoint="localhost:8090", defaults=DEFAULTS, interpreter="python"
        ),
        outcomes=Outcomes(blobs, install_into("python")),
        resources=RowsAlone(),
        clock=clock,
        timing=Timing(
            reader=reader,
            plans=plans,
            world=kind,
            countdowns=Countdowns(clock, ticks or (lambda: clock().timestamp())),
        ),
        caching=Caching(
            cache=Cache(database, clock),
            ledger=ledger,
            plans=plans,
            blobs=blobs,
            clock=clock,
            wake=wake,
        ),
    )
    controller = Controller(reconciler.reconcile, reconciler.list_all)
    ledger.listen(changed)
    return Wired(ledger, reader, admission, reconciler, controller), runtime


@asynccontextmanager
async def middle(
    folder: Path,
    clock: Clock,
    *,
    cpu: float = 8.0,
    memory: int = 8 << 30,
    program: Program | None = None,
    kind: World = World.PROCESSES,
    limits: Limits = NO_LIMITS,
    ticks: Callable[[], float] | None = None,
) -> AsyncIterator[Middle]:
    """Everything but a running executor; the database and the blobs lie in the folder."""
    database = Database.open(folder / "flyte.db", clock=clock)
    try:
        blobs, secrets = Directory(folder / "store"), FakeSecrets()
        parts, runtime = wired(
            database=database,
            blobs=blobs,
            secrets=secrets,
            world=lambda wake: FakeRuntime(clock, wake, program),
            clock=clock,
            cpu=cpu,
            memory=memory,
            kind=kind,
            limits=limits,
            ticks=ticks,
        )
        yield Middle(
            database=database,
            ledger=parts.ledger,
            reader=parts.reader,
            blobs=blobs,
            secrets=secrets,
            runtime=runtime,
            admission=parts.admission,
            reconciler=parts.reconciler,
            controller=parts.controller,
        )
    finally:
        database.close()


def told(action: Action, phase: Phase, clock: Clock, *, failure: Failure | None = None) -> AttemptReport:
    """A report about the action's present attempt."""
    return AttemptReport(action.attempt_id, phase, clock(), failure=failure)
