"""The services of runs, state, queue and actions behind the real edge, on a real socket, database and blob folder.

Nothing executes: the tests report through the ledger what an executor would.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyteidl2.actions import actions_service_connect, actions_service_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_connect
from flyteidl2.workflow import (
    events_proxy_service_connect,
    internal_run_service_connect,
    queue_service_connect,
    queue_service_pb2,
    run_service_connect,
    run_service_pb2,
)
from flyteidl2.workflow import state_service_connect as state_connect

from flyte_manager.blobs.directory import Directory
from flyte_manager.blobs.signed import SignedLinks, Signer
from flyte_manager.domain.actions import Action, Budget
from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.identities import IdentityHeaders
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.tasks import World
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.outside import Outside
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.wakeups import Wakeups
from flyte_manager.ledger.watch import Reader
from flyte_manager.services.actions import ActionsService
from flyte_manager.services.callers import Callers
from flyte_manager.services.dataproxy import DataProxyService
from flyte_manager.services.enqueue import Enqueue
from flyte_manager.services.internal_run import EventsProxyService, InternalRunService
from flyte_manager.services.queue import QueueService
from flyte_manager.services.run import RunService
from flyte_manager.services.run_orders import RunOrders
from flyte_manager.services.state import StateService
from flyte_manager.services.task import TaskService
from flyte_manager.store.engine import Database
from flyte_manager.wire.ids import action_proto, run_proto
from flyte_manager.wire.plan import parse_spec, retry_budget
from flyte_manager.wire.runs import BARE, Platform
from flyte_manager.wire.told import merged
from tests.fakes.clock import FakeClock
from tests.fakes.middle import told
from tests.fakes.orders import action_id, condition_spec, run_id, task_spec
from tests.unit.services.running import ADA, UNTRUSTED, Lines
from tests.unit.services.served import served

FAILURE = Failure(ErrorKind.USER, "ValueError", "no")
Asked = queue_service_pb2.EnqueueActionRequest | actions_service_pb2.Action


@dataclass
class Flows:
    """A running part of the manager, with clients."""

    url: str
    clock: FakeClock
    ledger: Ledger
    reader: Reader
    blobs: Directory
    runs: run_service_connect.RunServiceClient
    state: state_connect.StateServiceClient
    queue: queue_service_connect.QueueServiceClient
    actions: actions_service_connect.ActionsServiceClient
    internal: internal_run_service_connect.InternalRunServiceClient
    events: events_proxy_service_connect.EventsProxyServiceClient
    tasks: task_service_connect.TaskServiceClient

    def base(self, run: str = "r1") -> str:
        return self.blobs.join("flytesnacks", "development", run)

    async def create(
        self, run: str = "r1", *, spec: task_definition_pb2.TaskSpec | None = None
    ) -> run_service_pb2.CreateRunResponse:
        return await self.runs.create_run(self.creation(run, spec=spec))

    def creation(
        self, run: str = "r1", *, spec: task_definition_pb2.TaskSpec | None = None
    ) -> run_service_pb2.CreateRunRequest:
        return run_service_pb2.CreateRunRequest(
            run_id=run_proto(run_id(run)), task_spec=spec or task_spec(), inputs=common_pb2.Inputs()
        )

    def asked(self, kind: Callable[..., Any], name: str, *, parent: str = "a0", run: str = "r1") -> Any:
        """A request for a child, without its spec."""
        base = self.base(run)
        return kind(
            action_id=action_proto(action_id(name, run)),
            parent_action_name=parent,
            input_uri=f"{base}/{name}/inputs.pb",
            run_output_base=base,
        )

    def task(self, name: str, *, parent: str = "a0", run: str = "r1") -> actions_service_pb2.EnqueueRequest:
        action = self.asked(actions_service_pb2.Action, name, parent=parent, run=run)
        action.task.spec.CopyFrom(task_spec("hello.child"))
        return actions_service_pb2.EnqueueRequest(action=action)

    def condition(self, name: str, *, timeout: int = 0) -> actions_service_pb2.EnqueueRequest:
        action = self.asked(actions_service_pb2.Action, name)
        action.condition.ParseFromString(condition_spec(timeout))
        return actions_service_pb2.EnqueueRequest(action=action)

    async def row(self, name: str = "a0", run: str = "r1") -> Action:
        return await self.reader.action(action_id(name, run))

    async def report(self, phase: Phase, name: str = "a0", *, run: str = "r1", retries: int = 0) -> None:
        failure = FAILURE if phase in (Phase.FAILED, Phase.TIMED_OUT) else None
        report = told(await self.row(name, run), phase, self.clock, failure=failure)
        await self.ledger.report(report, Budget(retries=retries))

    async def write_error(self, uri: str, code: str = "ValueError") -> None:
        error = execution_pb2.ContainerError(code=code, message="no", kind=execution_pb2.ContainerError.RECOVERABLE)
        await self.blobs.write(uri, execution_pb2.ErrorDocument(error=error).SerializeToString())


def named(name: str = "a0", run: str = "r1") -> identifier_pb2.ActionIdentifier:
    return action_proto(action_id(name, run))


@asynccontextmanager
async def flowing(
    folder: Path, *, platform: Platform = BARE, headers: IdentityHeaders = UNTRUSTED
) -> AsyncIterator[Flows]:
    """Everything, on a free port, with its database and store in the folder."""
    clock = FakeClock()
    database = Database.open(folder / "flyte.db", clock=clock)
    try:
        callers = Callers(ADA, headers)
        wakeups, blobs = Wakeups(), Directory(folder / "store")
        ledger, reader = Ledger(database, wakeups, clock), Reader(database, wakeups)
        projects = Projects(database, clock, create_on_write=True)
        await projects.seed()
        data = DataProxyService(
            projects=projects,
            blobs=blobs,
            links=SignedLinks(Signer(b"s" * 32, clock)),
            database=database,
            logs=Lines(),
        )
        orders, enqueue = RunOrders(reader, projects, blobs, World.PROCESSES), Enqueue(ledger, blobs)
        internal = InternalRunService(
            reader=reader,
            ledger=ledger,
            outside=Outside(ledger, budget=lambda spec: retry_budget(parse_spec(spec)), merge=merged),
            enqueue=enqueue,
            projects=projects,
            blobs=blobs,
            clock=clock,
        )
        services: list[tuple[Any, object]] = [
            (internal_run_service_connect.InternalRunServiceASGIApplication, internal),
            (events_proxy_service_connect.EventsProxyServiceASGIApplication, EventsProxyService(internal)),
            (
                run_service_connect.RunServiceASGIApplication,
                RunService(
                    reader=reader,
                    ledger=ledger,
                    projects=projects,
                    orders=orders,
                    data=data,
                    callers=callers,
                    platform=platform,
                ),
            ),
            (
                task_service_connect.TaskServiceASGIApplication,
                TaskService(projects=projects, database=database, callers=callers, clock=clock),
            ),
            (state_connect.StateServiceASGIApplication, StateService(reader, ledger)),
            (queue_service_connect.QueueServiceASGIApplication, QueueService(ledger, enqueue, callers)),
            (
                actions_service_connect.ActionsServiceASGIApplication,
                ActionsService(reader=reader, ledger=ledger, enqueue=enqueue, callers=callers, clock=clock),
            ),
        ]
        async with served(services) as url:
            flows = Flows(
                url=url,
                clock=clock,
                ledger=ledger,
                reader=reader,
                blobs=blobs,
                runs=run_service_connect.RunServiceClient(url),
                state=state_connect.StateServiceClient(url),
                queue=queue_service_connect.QueueServiceClient(url),
                actions=actions_service_connect.ActionsServiceClient(url),
                internal=internal_run_service_connect.InternalRunServiceClient(url),
                events=events_proxy_service_connect.EventsProxyServiceClient(url),
                tasks=task_service_connect.TaskServiceClient(url),
            )
            clients = (flows.runs, flows.state, flows.queue, flows.actions, flows.internal, flows.events, flows.tasks)
            try:
                yield flows
            finally:
                for client in clients:
                    await client.close()
    finally:
        database.close()
