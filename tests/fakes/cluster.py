"""A manager of pods over the made-up API server, with everything real in between, that can be killed at any step.

    API server, kubelet, files: stay │ Manager: database, ledger, executor, informers, logs; all anew after each kill

A step is a request that changes something, a write into the database, or one into the store: each may be the last one,
before its effect or after it, when nobody hears the answer any more. What dies does nothing more: all else that it
tries raises Killed, until its tasks are cancelled.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.actions import Action, ActionHistory
from flyte_manager.domain.errors import Missing
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.tasks import World
from flyte_manager.executor.admission import Admission
from flyte_manager.executor.caching import Caching
from flyte_manager.executor.controller import Controller
from flyte_manager.executor.foreign import ForeignOrders
from flyte_manager.executor.launching import Launching
from flyte_manager.executor.outcome import Outcomes, add_to_image
from flyte_manager.executor.plans import Plans
from flyte_manager.executor.reconcile import Reconciler
from flyte_manager.executor.resources import Mirrored
from flyte_manager.executor.timing import Countdowns, Timing
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.pods import PodSettings
from flyte_manager.kubernetes.resources import Resource
from flyte_manager.kubernetes.runtime import Pods
from flyte_manager.kubernetes.taskactions import TaskActionObjects
from flyte_manager.kubernetes.verdict import VerdictSettings
from flyte_manager.ledger.cache import Cache
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.wakeups import Wakeups
from flyte_manager.ledger.watch import Reader
from flyte_manager.store.engine import Database, Transaction
from tests.fakes.kubelet import Kubelet, Program, succeed
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.middle import FakeSecrets

NAMESPACE = "flyte"
PATIENCE = 20.0
CHANGING = frozenset({"create", "update", "patch", "delete"})

T = TypeVar("T")


class Killed(BaseException):
    """The manager was killed at this step."""


@dataclass(eq=False)
class Fate:
    """At which steps managers die, counted over all their lives."""

    at: frozenset[int] = frozenset()
    count: int = 0
    armed: bool = True
    """else steps neither count nor kill"""
    deaths: list[str] = field(default_factory=list)


class Life:
    """Of one manager."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.died = asyncio.Event()

    def goes_on(self) -> None:
        if self.died.is_set():
            raise Killed("dead already")

    def step(self, what: str) -> None:
        self.goes_on()
        if not self.fate.armed:
            return
        self.fate.count += 1
        if self.fate.count in self.fate.at:
            self.fate.deaths.append(what)
            self.died.set()
            raise Killed(what)


class MortalClient(Client):
    life: Life

    async def _ask(self, verb: str, resource: Resource, path: str, **more: Any) -> dict[str, Any]:
        if verb not in CHANGING:
            self.life.goes_on()
            return await super()._ask(verb, resource, path, **more)
        self.life.step(f"before {verb} {path}")
        answer = await super()._ask(verb, resource, path, **more)
        self.life.step(f"after {verb} {path}")
        return answer


class MortalDatabase(Database):
    life: Life

    async def write(self, operation: Callable[[Transaction], T], *, then: Callable[[T], None] | None = None) -> T:
        self.life.step("before a write into the database")

        def told(result: T) -> None:
            try:
                self.life.step("after a write into the database")
            except Killed:  # the dead tell nobody
                return
            if then is not None:
                then(result)

        answer = await super().write(operation, then=told)
        self.life.goes_on()
        return answer


class MortalDirectory(Directory):
    life: Life

    async def write(self, uri: str, content: bytes) -> None:
        self.life.step(f"before writing {uri}")
        await super().write(uri, content)
        self.life.step(f"after writing {uri}")


@dataclass(eq=False)
class Manager:
    """One life of it."""

    life: Life
    database: Database
    ledger: Ledger
    reader: Reader
    blobs: Directory
    client: Client
    objects: TaskActionObjects
    pods: Pods
    recorder: Recorder
    secrets: FakeSecrets
    controller: Controller[ActionId]

    async def action(self, action: ActionId) -> Action:
        return await self.reader.action(action)

    async def history(self, action: ActionId) -> ActionHistory:
        return await self.reader.history(action)

    async def work(self, up: Callable[[], None]) -> None:
        """As `app` and `cluster` do it: the executor begins when all that is there is known."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.objects.run(), name="task actions")
            group.create_task(self.pods.run(), name="pods")
            group.create_task(self.recorder.run(), name="events")
            await self.objects.synced()
            await self.pods.synced()
            group.create_task(self.controller.run(), name="controller")
            up()

    async def end(self, working: "asyncio.Task[None]") -> None:
        """Nothing of it goes on."""
        for task in list(self.pods._logs._going.values()) if self.life.died.is_set() else ():
            task.cancel()
        working.cancel()
        await asyncio.wait([working])
        self.database.close()
        await asyncio.sleep(0)  # what was written last is told
        if not working.cancelled() and (error := working.exception()) and not self.life.died.is_set():
            raise error


@asynccontextmanager
async def manager(
    api: FakeKubernetes, folder: Path, *, fate: Fate | None = None, verdict: VerdictSettings | None = None
) -> AsyncIterator[tuple[Manager, "asyncio.Task[None]"]]:
    """One that works, with the task in which it does, on the files of earlier ones."""
    life = Life(fate or Fate())
    database = MortalDatabase.open(folder / "flyte.db", clock=_now)
    assert isinstance(database, MortalDatabase)
    database.life = life
    async with MortalClient(api.access(), qps=0) as client:
        client.life = life
        made = _build(client, database, folder, life, verdict or VerdictSettings())
        up = asyncio.Event()
        working = asyncio.create_task(made.work(up.set), name="manager")
        waiting = asyncio.create_task(up.wait())
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
            yield made, working
        finally:
            waiting.cancel()
            await made.end(working)


def _build(client: Client, database: Database, folder: Path, life: Life, verdict: VerdictSettings) -> Manager:
    wakeups, secrets = Wakeups(), FakeSecrets()
    ledger, reader = Ledger(database, wakeups, _now), Reader(database, wakeups)
    blobs = MortalDirectory(folder / "store")
    blobs.life = life
    recorder = Recorder(client, namespace=NAMESPACE, clock=_now)
    controller: Controller[ActionId]

    def wake(action: ActionId) -> None:
        controller.hurry(action)

    objects = TaskActionObjects(client=client, namespace=NAMESPACE, wake=wake, recorder=recorder, clock=_now)
    pods = Pods(
        client=client,
        pod_settings=PodSettings(namespace=NAMESPACE),
        verdict_settings=verdict,
        blobs=blobs,
        wake=lambda attempt: wake(attempt.action),
        clock=_now,
        recorder=recorder,
    )
    admission = Admission(cpu=float("inf"), memory=1 << 62, wake=wake)
    plans = Plans(reader, World.PODS)
    reconciler = Reconciler(
        reader=reader,
        ledger=ledger,
        runtime=pods,
        admission=admission,
        plans=plans,
        launching=Launching(secrets=secrets, blobs=blobs, endpoint="127.0.0.1:8090", defaults={}, namespace=NAMESPACE),
        outcomes=Outcomes(blobs, add_to_image),
        resources=Mirrored(
            objects=objects,
            reader=reader,
            ledger=ledger,
            runtime=pods,
            foreign=ForeignOrders(Projects(database, _now, create_on_write=True), blobs),
        ),
        clock=_now,
        timing=Timing(reader=reader, plans=plans, world=World.PODS, countdowns=Countdowns(_now, time.monotonic)),
        caching=Caching(
            cache=Cache(database, _now),
            ledger=ledger,
            plans=plans,
            blobs=blobs,
            clock=_now,
            wake=wake,
        ),
    )
    controller = Controller(reconciler.reconcile, reconciler.list_all)

    def changed(action: Action) -> None:
        admission.track(action)
        if action.operated:
            controller.enqueue(action.id)

    ledger.listen(changed)
    return Manager(life, database, ledger, reader, blobs, client, objects, pods, recorder, secrets, controller)


def _now() -> datetime:
    return datetime.now(UTC)


class Cluster:
    """API server, kubelet and files, with a manager that is started again whenever it died."""

    def __init__(self, api: FakeKubernetes, kubelet: Kubelet, folder: Path, fate: Fate, verdict: VerdictSettings):
        self.api = api
        self.kubelet = kubelet
        self.folder = folder
        self.fate = fate
        self.verdict = verdict
        self.lives = 0
        self._manager: Manager | None = None
        self._up = asyncio.Event()
        self._stop = asyncio.Event()

    @property
    def base(self) -> str:
        """For runs: the folder of all of them."""
        return str(self.folder / "store/flytesnacks/development")

    @property
    def manager(self) -> Manager:
        assert self._manager is not None, "no manager is up"
        return self._manager

    async def serve(self) -> None:
        """Managers one after the other, until `stop`."""
        while not self._stop.is_set():
            async with manager(self.api, self.folder, fate=self.fate, verdict=self.verdict) as (made, working):
                self.lives += 1
                if not working.done():
                    self._manager = made
                    self._up.set()
                    await self._until_over(made, working)
                self._up.clear()
                self._manager = None

    async def _until_over(self, made: Manager, working: "asyncio.Task[None]") -> None:
        waits = [asyncio.create_task(each.wait()) for each in (made.life.died, self._stop)]
        await asyncio.wait([working, *waits], return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    def stop(self) -> None:
        self._stop.set()

    async def restart(self, *, lose: Path | None = None) -> None:
        """As by kill -9; without that file."""
        before = self.manager
        before.life.died.set()
        if lose is not None:
            lose.unlink()  # noqa: ASYNC240
        async with asyncio.timeout(PATIENCE):
            while self._manager is before or not self._up.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def call(self, ask: Callable[[Manager], Awaitable[T]]) -> T:
        """As a client asks: again, when the manager died meanwhile."""
        while True:
            await self._up.wait()
            made = self.manager
            asking = asyncio.ensure_future(_asked(ask, made))
            died = asyncio.create_task(made.life.died.wait())
            try:
                await asyncio.wait([asking, died], return_when=asyncio.FIRST_COMPLETED)
                if asking.done() and not isinstance(asking.exception(), Killed):
                    return asking.result()
            finally:
                for each in (asking, died):
                    each.cancel()
                await asyncio.wait([asking, died])
            while self._manager is made:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def followed(self) -> set[str]:
        """Names of pods whose logs the present manager has asked for."""
        asked = self.api.requests
        start = max(at for at, each in enumerate(asked) if (each.verb, each.plural) == ("list", "pods"))
        return {each.name for each in asked[start:] if each.plural == "pods/log"}

    async def until(self, holds: Callable[[Manager], Awaitable[object]], *, seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not await self.call(holds):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def until_phase(self, action: ActionId, *phases: Phase) -> Action:
        """Once there is such an action, in one of these phases; in any final one if none is given."""

        async def reached(made: Manager) -> Action | None:
            async with aclosing(made.reader.follow_action(action)) as follow:
                async for seen in follow:
                    if seen.action.phase in phases or (not phases and seen.action.final):
                        return seen.action
            return None

        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(Missing):
                    found = await self.call(reached)
                    assert found is not None, f"{action} has ended otherwise: {await self.call(self._history(action))}"
                    return found
                await asyncio.sleep(0.005)

    def _history(self, action: ActionId) -> Callable[[Manager], Awaitable[ActionHistory]]:
        return lambda made: made.reader.history(action)

    async def until_shown(self, action: ActionId) -> dict[str, Any]:
        """The status of its TaskAction, once it tells what the row tells."""
        names: list[str] = []

        async def shown(made: Manager) -> bool:
            row = await made.reader.action(action)
            names[:] = [row.resource.name] if row.resource else []
            return made.objects.shows(row)

        await self.until(shown)
        status: dict[str, Any] = self.api.get("taskactions", names[0], namespace=NAMESPACE)["status"]
        return status


async def _asked(ask: Callable[[Manager], Awaitable[T]], made: Manager) -> T:
    made.life.goes_on()
    answer = await ask(made)
    made.life.goes_on()  # what the dead know counts no more
    return answer


@asynccontextmanager
async def cluster(
    folder: Path, program: Program = succeed, *, fate: Fate | None = None, verdict: VerdictSettings | None = None
) -> AsyncIterator[Cluster]:
    async with FakeKubernetes() as api:
        kubelet = Kubelet(api, program)
        made = Cluster(api, kubelet, folder, fate or Fate(), verdict or VerdictSettings())
        kubelet_works = asyncio.create_task(kubelet.run(), name="kubelet")
        serving = asyncio.create_task(made.serve(), name="managers")
        try:
            yield made
        finally:
            made.stop()
            await asyncio.wait([serving])
            kubelet_works.cancel()
            await asyncio.wait([kubelet_works])
        serving.result()
        if not kubelet_works.cancelled():
            kubelet_works.result()


def fresh_database(folder: Path) -> None:
    """Puts one there; it is made only once, because migrations take longer than all the rest."""
    template = folder.parent / "fresh.db"
    if not template.exists():
        Database.open(template, clock=_now).close()
    folder.mkdir(exist_ok=True)
    shutil.copy(template, folder / "flyte.db")
