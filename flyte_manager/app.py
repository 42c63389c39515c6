"""READ THIS FIRST: builds every object with plain constructors, starts and stops the named tasks in order.

store ─▶ ledger, reader ─▶ services ─▶ rpc: the three ports
             │                 ▲
             ▼                 │ rows, wake-ups
         executor ─▶ a world: embedded (processes) or cluster (pods)
"""

import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from flyteidl2.actions.actions_service_connect import ActionsServiceASGIApplication
from flyteidl2.auth.auth_service_connect import AuthMetadataServiceASGIApplication
from flyteidl2.auth.identity_connect import IdentityServiceASGIApplication
from flyteidl2.cacheservice.cacheservice_connect import CacheServiceASGIApplication
from flyteidl2.cacheservice.v2.cacheservice_connect import CacheServiceASGIApplication as CacheServiceV2ASGIApplication
from flyteidl2.cluster.service_connect import ClusterServiceASGIApplication
from flyteidl2.dataproxy.dataproxy_service_connect import DataProxyServiceASGIApplication
from flyteidl2.imagebuilder.service_connect import ImageServiceASGIApplication
from flyteidl2.org.domain_service_connect import DomainServiceASGIApplication
from flyteidl2.project.project_service_connect import ProjectServiceASGIApplication
from flyteidl2.secret.secret_connect import SecretServiceASGIApplication
from flyteidl2.task.task_service_connect import TaskServiceASGIApplication
from flyteidl2.workflow.events_proxy_service_connect import EventsProxyServiceASGIApplication
from flyteidl2.workflow.internal_run_service_connect import InternalRunServiceASGIApplication
from flyteidl2.workflow.queue_service_connect import QueueServiceASGIApplication
from flyteidl2.workflow.run_logs_service_connect import RunLogsServiceASGIApplication
from flyteidl2.workflow.run_service_connect import RunServiceASGIApplication
from flyteidl2.workflow.state_service_connect import StateServiceASGIApplication
from flyteidl2.workflow.translator_service_connect import TranslatorServiceASGIApplication

from flyte_manager import __version__, embedded, garbage
from flyte_manager.banner import Endpoint, Facts, banner
from flyte_manager.blobs.instance import make_folder
from flyte_manager.config import Settings
from flyte_manager.config.settings import LimitSettings, RunsSettings, TasksSettings
from flyte_manager.domain.actions import Action
from flyte_manager.domain.bounds import Limit, Limits
from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.identities import IdentityHeaders
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.tasks import World
from flyte_manager.executor.caching import Caching
from flyte_manager.executor.controller import Controller, Done, Requeue
from flyte_manager.executor.launching import Launching
from flyte_manager.executor.outcome import Outcomes
from flyte_manager.executor.plans import Plans
from flyte_manager.executor.reconcile import Reconciler
from flyte_manager.executor.sweeper import Sweeper
from flyte_manager.executor.timing import Countdowns, Timing
from flyte_manager.keeping import sweeper_of
from flyte_manager.ledger.cache import Cache
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.outside import Outside
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.wakeups import Wakeups
from flyte_manager.ledger.watch import Reader
from flyte_manager.rpc.edge import ConnectApp, DescribedApplication, Edge, connect_app, with_streams
from flyte_manager.rpc.gate import Gate
from flyte_manager.rpc.grpc_services import with_grpc_services
from flyte_manager.rpc.routes import build_app
from flyte_manager.rpc.server import Identity, Listener, Servers, run
from flyte_manager.services.actions import ActionsService
from flyte_manager.services.auth_metadata import AuthMetadataService
from flyte_manager.services.cache import CacheCalls, CacheService
from flyte_manager.services.cache_v2 import CacheServiceV2
from flyte_manager.services.callers import Callers
from flyte_manager.services.cluster import ClusterService
from flyte_manager.services.dataproxy import DataProxyService
from flyte_manager.services.domain import DomainService
from flyte_manager.services.enqueue import Enqueue
from flyte_manager.services.identity import IdentityService, owner
from flyte_manager.services.image import ImageService
from flyte_manager.services.internal_run import EventsProxyService, InternalRunService
from flyte_manager.services.project import ProjectService
from flyte_manager.services.queue import QueueService
from flyte_manager.services.run import RunService
from flyte_manager.services.run_logs import RunLogsService
from flyte_manager.services.run_orders import RunOrders
from flyte_manager.services.secret import SecretService
from flyte_manager.services.state import StateService
from flyte_manager.services.state_streams import StateStreams
from flyte_manager.services.task import TaskService
from flyte_manager.services.translator import TranslatorService
from flyte_manager.store.engine import Database
from flyte_manager.store.instance import lock_data
from flyte_manager.telemetry import say
from flyte_manager.wire.plan import parse_spec, retry_budget
from flyte_manager.wire.told import merged
from flyte_manager.worlds import Middle, Parts, may_be_pods

log = logging.getLogger(__name__)

ALIASES: Mapping[str, str] = {
    "/flyteidl2.workflow.RunService/GetRun": "/flyteidl2.workflow.RunService/GetRunDetails",
}
Result = TypeVar("Result")

SECOND_INTERRUPT_SECONDS = 5.0
ABORT_CHECK_SECONDS = 0.1
OPEN_FILES = 16_384
LEAVE_CHECK_SECONDS = 0.5
"""how long to wait while the world is not ours to change"""

ABORT_CHECKS = 70
"""a little longer than the grace period that tasks get"""


def serve(settings: Settings) -> int:
    """Runs the manager until it is told to stop; the exit code. Raises a Refusal when it can't start."""
    garbage.starting()
    _allow_files()
    return run(_serve(settings, started=_process_start()))


async def _serve(settings: Settings, *, started: float) -> int:
    interrupts = _Interrupts()
    identity = _identity(settings)
    async with AsyncExitStack() as stack:
        database = Database.open(settings.database.sqlite.file, clock=_now)
        stack.callback(database.close)
        controller: Controller[ActionId]
        middle = _middle(settings, database, wake=lambda action: controller.hurry(action))
        stack.callback(lock_data(middle.folder).release)
        await middle.projects.seed()
        parts = await _world(settings, middle, stack)
        stopping = asyncio.Event()
        servers = Servers(_listeners(settings, middle, parts, stopping, identity=identity), stopping=stopping)
        await servers.start()
        stack.push_async_callback(servers.stop)
        api = Endpoint(settings.manager.runs_service.host, servers.port_of("runs"))
        controller = _executor(
            middle,
            parts,
            endpoint=parts.endpoint(api),
            insecure=identity is None or parts.task_port != 0,
            limits=_limits(settings.tasks),
        )
        first = await interrupts.unless_stopped(parts.start())
        if first is None:
            return 0
        for action in first:
            controller.enqueue(action)
        operator = asyncio.create_task(
            _operate(controller, parts, sweeper_of(settings, middle, parts)), name="executor"
        )
        stack.push_async_callback(_cancelled, operator)
        garbage.serving()
        say(banner(_facts(settings, servers, middle, parts, started)))
        await interrupts.until_stopped(operator, middle, parts)
        # streams and unary calls end before the world and the executor do
        await servers.stop()
    return 0


def _middle(settings: Settings, database: Database, *, wake: Callable[[ActionId], None]) -> Middle:
    wakeups = Wakeups()
    return Middle(
        database=database,
        ledger=Ledger(database, wakeups, _now),
        reader=Reader(database, wakeups),
        projects=Projects(database, _now, create_on_write=True, domains=dict(settings.runs.domains)),
        folder=make_folder(settings.data_dir, database.instance_id, database=settings.database.sqlite.file),
        wake=wake,
        clock=_now,
    )


async def _world(settings: Settings, middle: Middle, stack: AsyncExitStack) -> Parts:
    """Processes or pods. What belongs to Kubernetes is imported only where it may be pods: it takes a while."""
    why = "tasks run as processes of this machine"
    if may_be_pods(settings, os.environ, Path.home()):
        from flyte_manager import choice, cluster

        chosen = await choice.choose(settings, os.environ, Path.home())
        if chosen.access is not None:
            return await cluster.build(settings, middle, access=chosen.access, why=chosen.why, stack=stack)
        why = chosen.why
    return await embedded.build(settings, middle, why=why, stack=stack)


def _executor(middle: Middle, parts: Parts, *, endpoint: str, insecure: bool, limits: Limits) -> Controller[ActionId]:
    plans = Plans(middle.reader, parts.world, limits)
    reconciler = Reconciler(
        reader=middle.reader,
        ledger=middle.ledger,
        runtime=parts.runtime,
        admission=parts.admission,
        plans=plans,
        launching=Launching(
            secrets=parts.secrets,
            blobs=parts.blobs,
            endpoint=endpoint,
            insecure=insecure,
            defaults=parts.defaults,
            namespace=parts.namespace,
            interpreter=parts.interpreter,
        ),
        outcomes=Outcomes(parts.blobs, parts.advice),
        resources=parts.resources,
        clock=_now,
        timing=Timing(
            reader=middle.reader,
            plans=plans,
            world=parts.world,
            countdowns=Countdowns(_now, asyncio.get_running_loop().time),
        ),
        caching=Caching(
            cache=Cache(middle.database, _now),
            ledger=middle.ledger,
            plans=plans,
            blobs=parts.blobs,
            clock=_now,
            wake=middle.wake,
        ),
    )

    async def reconcile(key: ActionId) -> Done | Requeue:
        while not parts.may_work():  # noqa: ASYNC110 - time alone may take the leave away
            await asyncio.sleep(LEAVE_CHECK_SECONDS)
        return await reconciler.reconcile(key)

    controller = Controller(reconcile, reconciler.list_all)

    def changed(action: Action) -> None:
        if reconciler.changed(action):
            controller.enqueue(action.id)

    middle.ledger.listen(changed)
    return controller


def _limits(tasks: TasksSettings) -> Limits:
    def limit(each: LimitSettings) -> Limit:
        return Limit(each.default, each.most)

    return Limits(limit(tasks.max_runtime), limit(tasks.queued_timeout), limit(tasks.deadline))


async def _operate(controller: Controller[ActionId], parts: Parts, sweeper: Sweeper | None) -> None:
    """The executor and what its world does beside it; one that ends ends the other."""
    async with asyncio.TaskGroup() as group:
        group.create_task(parts.watch(), name="world")
        group.create_task(controller.run(), name="controller")
        if sweeper is not None:
            group.create_task(sweeper.run(), name="sweeper")


def _listeners(
    settings: Settings, middle: Middle, parts: Parts, stopping: asyncio.Event, *, identity: Identity | None
) -> Sequence[Listener]:
    edge = Edge(stopping=stopping)
    tls = identity.context if identity is not None else None
    certified = identity.hosts if identity is not None else ()
    allowed = (*settings.server.allowed_hosts, *parts.allowed_hosts, *certified)
    runs, queue = settings.manager.runs_service, settings.manager.queue_service

    async def ready() -> str | None:
        await middle.database.ping()
        return await parts.ready()

    own = _services(middle, parts, edge, Callers(owner(), _identity_headers(settings.runs)))
    services = with_grpc_services(own, ready=ready, edge=edge)
    api = Gate(build_app(services, parts.routes, ready=ready, aliases=ALIASES), allowed_hosts=allowed)
    health = Gate(build_app([], ready=ready), allowed_hosts=allowed)
    health_port = settings.manager.executor.health_probe_port
    beside = [Listener("tasks", "localhost", parts.task_port, api, "server.tls.key")] if parts.task_port else []
    return [
        Listener("runs", runs.host, runs.port, api, "manager.runsService.port", tls),
        Listener("queue", queue.host, queue.port, api, "manager.queueService.port", tls),
        Listener("health", runs.host, health_port, health, "manager.executor.healthProbePort"),
        *beside,
    ]


def _identity_headers(runs: RunsSettings) -> IdentityHeaders:
    names = runs.identity_headers
    return IdentityHeaders(
        trusted=runs.trust_forwarded_identity_headers,
        claims=names.claims_jwt_header,
        subject=names.subject_header,
        email=names.email_header,
    )


def _services(middle: Middle, parts: Parts, edge: Edge, callers: Callers) -> Sequence[ConnectApp]:
    reader, ledger, projects = middle.reader, middle.ledger, middle.projects
    enqueue = Enqueue(ledger, parts.blobs)
    data = DataProxyService(
        projects=projects,
        blobs=parts.blobs,
        links=parts.links,
        database=middle.database,
        logs=parts.logs,
    )
    orders = RunOrders(reader, projects, parts.blobs, parts.world)
    cached = CacheCalls(projects, Cache(middle.database, _now), parts.blobs, _now)
    state = StateService(reader, ledger)
    internal = _internal(middle, parts, enqueue)
    return [
        connect_app(
            RunServiceASGIApplication,
            RunService(
                reader=reader,
                ledger=ledger,
                projects=projects,
                orders=orders,
                data=data,
                callers=callers,
                platform=parts.platform,
            ),
            edge=edge,
        ),
        with_streams(
            connect_app(StateServiceASGIApplication, state, edge=edge),
            connect_app(DescribedApplication, StateStreams(state), edge=edge),
        ),
        connect_app(QueueServiceASGIApplication, QueueService(ledger, enqueue, callers), edge=edge),
        connect_app(
            ActionsServiceASGIApplication,
            ActionsService(reader=reader, ledger=ledger, enqueue=enqueue, callers=callers, clock=_now),
            edge=edge,
        ),
        connect_app(InternalRunServiceASGIApplication, internal, edge=edge),
        connect_app(EventsProxyServiceASGIApplication, EventsProxyService(internal), edge=edge),
        connect_app(DataProxyServiceASGIApplication, data, edge=edge),
        connect_app(RunLogsServiceASGIApplication, RunLogsService(data), edge=edge),
        connect_app(CacheServiceASGIApplication, CacheService(cached), edge=edge),
        connect_app(CacheServiceV2ASGIApplication, CacheServiceV2(cached), edge=edge),
        connect_app(ClusterServiceASGIApplication, ClusterService(), edge=edge),
        connect_app(
            TaskServiceASGIApplication,
            TaskService(projects=projects, database=middle.database, callers=callers, clock=_now),
            edge=edge,
        ),
        connect_app(ProjectServiceASGIApplication, ProjectService(projects, _now), edge=edge),
        connect_app(DomainServiceASGIApplication, DomainService(projects), edge=edge),
        connect_app(TranslatorServiceASGIApplication, TranslatorService(reader, parts.blobs), edge=edge),
        connect_app(SecretServiceASGIApplication, SecretService(projects, parts.secrets), edge=edge),
        connect_app(ImageServiceASGIApplication, ImageService(pods=parts.world is World.PODS), edge=edge),
        connect_app(IdentityServiceASGIApplication, IdentityService(callers), edge=edge),
        connect_app(AuthMetadataServiceASGIApplication, AuthMetadataService(), edge=edge),
    ]


def _internal(middle: Middle, parts: Parts, enqueue: Enqueue) -> InternalRunService:
    return InternalRunService(
        reader=middle.reader,
        ledger=middle.ledger,
        outside=Outside(middle.ledger, budget=lambda spec: retry_budget(parse_spec(spec)), merge=merged),
        enqueue=enqueue,
        projects=middle.projects,
        blobs=parts.blobs,
        clock=_now,
    )


def _identity(settings: Settings) -> Identity | None:
    """What the manager shows to clients by https. Raises a Refusal. What reads it is imported where it is needed."""
    given = settings.server.tls
    if not given.certificate and not given.key:
        return None
    from flyte_manager.rpc import tls

    identity = tls.load_identity(given.certificate, given.key)
    if identity is not None and identity.until < _now():
        log.warning("the certificate %s has passed: clients will refuse it", given.certificate)
    if identity is not None and identity.authority:
        log.warning("the certificate %s is an authority's (CA:TRUE): the SDK will refuse it", given.certificate)
    return identity


def _facts(settings: Settings, servers: Servers, middle: Middle, parts: Parts, started: float) -> Facts:
    runs, queue = settings.manager.runs_service, settings.manager.queue_service
    world = parts.facts()
    return Facts(
        version=__version__,
        domain=settings.runs.domains[0][0],
        api=Endpoint(runs.host, servers.port_of("runs")),
        queue=Endpoint(queue.host, servers.port_of("queue")),
        health=Endpoint(runs.host, servers.port_of("health")),
        database=settings.database.sqlite.file.absolute(),
        data_dir=middle.folder,
        mode=parts.world.value,
        why=world.why,
        pods=world.pods,
        interpreter=world.interpreter,
        sdk_version=world.sdk_version,
        start=world.start,
        seconds=time.time() - started,
        secure=bool(settings.server.tls.certificate),
        own_config_here=Path("config.yaml").exists(),
    )


class _Interrupts:
    """SIGTERM ends at once. SIGINT with tasks running asks for a second one, which aborts their runs."""

    def __init__(self) -> None:
        self._interrupted = asyncio.Event()
        self._terminated = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted.set)
        loop.add_signal_handler(signal.SIGTERM, self._terminated.set)

    async def unless_stopped(self, start: Awaitable[Result]) -> Result | None:
        """What the start returns; None when it is time to end before it is done."""
        starting = asyncio.ensure_future(start)
        signals = [asyncio.create_task(event.wait()) for event in (self._terminated, self._interrupted)]
        await asyncio.wait([starting, *signals], return_when=asyncio.FIRST_COMPLETED)
        for each in signals:
            each.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            return None
        return starting.result()

    async def until_stopped(self, operator: "asyncio.Task[None]", middle: Middle, parts: Parts) -> None:
        """Returns when it is time to end; raises what the executor raised."""
        waits = [
            asyncio.create_task(self._terminated.wait(), name="terminated"),
            asyncio.create_task(self._interrupt(middle, parts), name="interrupted"),
        ]
        done, _ = await asyncio.wait([operator, *waits], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for ended in done:
            try:
                ended.result()
            except* Refusal as refusals:
                raise _first(refusals) from None

    async def _interrupt(self, middle: Middle, parts: Parts) -> None:
        await self._interrupted.wait()
        running = await parts.running()
        if not running:
            return
        self._interrupted.clear()
        tasks = "1 task goes on" if running == 1 else f"{running} tasks go on"
        cure = f"start again to adopt them; Ctrl-C again within {SECOND_INTERRUPT_SECONDS:g} s aborts them"
        say(f"\n{tasks}; {cure}")
        try:
            async with asyncio.timeout(SECOND_INTERRUPT_SECONDS):
                await self._interrupted.wait()
        except TimeoutError:
            return
        await _abort_all(middle)
        for _ in range(ABORT_CHECKS):
            if not await parts.running():
                return
            await asyncio.sleep(ABORT_CHECK_SECONDS)


def _first(group: BaseExceptionGroup[Refusal]) -> Refusal:
    """The refusal itself, however many task groups it went through."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _abort_all(middle: Middle) -> None:
    for run_id in {action.id.run for action in await middle.reader.live()}:
        await middle.ledger.abort_run(run_id, "the manager was interrupted")


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _now() -> datetime:
    return datetime.now(UTC)


def _allow_files() -> None:
    """A thousand watchers by HTTP/1.1 are a thousand open files, which is all that a shell usually allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard) if hard >= 0 else OPEN_FILES, hard))


def _process_start() -> float:
    """When this process began, in seconds since the epoch: the banner tells the user's wait."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
