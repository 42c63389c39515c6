"""The services of projects, tasks, secrets and data behind the real edge, on real sockets, files and database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.auth import auth_service_connect, identity_connect
from flyteidl2.cacheservice import cacheservice_connect
from flyteidl2.cacheservice.v2 import cacheservice_connect as cacheservice_v2_connect
from flyteidl2.cluster import service_connect as cluster_connect
from flyteidl2.dataproxy import dataproxy_service_connect
from flyteidl2.imagebuilder import service_connect as image_connect
from flyteidl2.org import domain_service_connect
from flyteidl2.project import project_service_connect
from flyteidl2.secret import secret_connect
from flyteidl2.task import task_service_connect
from flyteidl2.workflow import run_logs_service_connect

from flyte_manager.blobs.directory import Directory
from flyte_manager.blobs.signed import SignedLinks, Signer
from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt
from flyte_manager.domain.identities import Identity, IdentityHeaders
from flyte_manager.domain.ids import DOMAINS, ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import LogLine
from flyte_manager.ledger.cache import Cache
from flyte_manager.ledger.projects import Projects
from flyte_manager.rpc.blobs import BlobRoutes
from flyte_manager.services.auth_metadata import AuthMetadataService
from flyte_manager.services.cache import CacheCalls, CacheService
from flyte_manager.services.cache_v2 import CacheServiceV2
from flyte_manager.services.callers import Callers
from flyte_manager.services.cluster import ClusterService
from flyte_manager.services.dataproxy import DataProxyService
from flyte_manager.services.domain import DomainService
from flyte_manager.services.identity import IdentityService
from flyte_manager.services.image import ImageService
from flyte_manager.services.project import ProjectService
from flyte_manager.services.run_logs import RunLogsService
from flyte_manager.services.secret import SecretService
from flyte_manager.services.task import TaskService
from flyte_manager.store import actions, attempts
from flyte_manager.store.engine import Database
from flyte_manager.store.vault import Vault
from tests.unit.services.served import served

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
RUN = RunId("flytesnacks", "development", "r1")
ROOT = ActionId(RUN, "a0")
ADA = Identity("ada", name="Ada L.", username="ada")
UNTRUSTED = IdentityHeaders()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class Lines:
    """ports.Logs: `pages` are told at once, then `later` when the attempt has ended."""

    def __init__(self) -> None:
        self.pages: list[list[LogLine]] = []
        self.later: list[LogLine] = []
        self.asked: list[AttemptId] = []
        self.before_first: Callable[[], Awaitable[None]] | None = None

    async def tail(
        self, attempt: AttemptId, *, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[Sequence[LogLine]]:
        self.asked.append(attempt)
        if self.before_first:
            await self.before_first()
        for page in self.pages:
            yield page
        if await ended():
            yield self.later


@dataclass
class Manager:
    """A running part of the manager, with clients."""

    url: str
    folder: Path
    clock: Clock
    database: Database
    directory: Directory
    signer: Signer
    projects: Projects
    vault: Vault
    logs: Lines
    clients: list[Any] = field(default_factory=list)

    def _client(self, kind: Callable[[str], Any]) -> Any:
        client = kind(self.url)
        self.clients.append(client)
        return client

    @property
    def data(self) -> dataproxy_service_connect.DataProxyServiceClient:
        client: dataproxy_service_connect.DataProxyServiceClient = self._client(
            dataproxy_service_connect.DataProxyServiceClient
        )
        return client

    @property
    def run_logs(self) -> run_logs_service_connect.RunLogsServiceClient:
        client: run_logs_service_connect.RunLogsServiceClient = self._client(
            run_logs_service_connect.RunLogsServiceClient
        )
        return client

    @property
    def tasks(self) -> task_service_connect.TaskServiceClient:
        client: task_service_connect.TaskServiceClient = self._client(task_service_connect.TaskServiceClient)
        return client

    @property
    def project(self) -> project_service_connect.ProjectServiceClient:
        client: project_service_connect.ProjectServiceClient = self._client(
            project_service_connect.ProjectServiceClient
        )
        return client

    @property
    def cache(self) -> cacheservice_connect.CacheServiceClient:
        client: cacheservice_connect.CacheServiceClient = self._client(cacheservice_connect.CacheServiceClient)
        return client

    @property
    def scoped_cache(self) -> cacheservice_v2_connect.CacheServiceClient:
        client: cacheservice_v2_connect.CacheServiceClient = self._client(cacheservice_v2_connect.CacheServiceClient)
        return client

    @property
    def domains(self) -> domain_service_connect.DomainServiceClient:
        client: domain_service_connect.DomainServiceClient = self._client(domain_service_connect.DomainServiceClient)
        return client

    @property
    def secrets(self) -> secret_connect.SecretServiceClient:
        client: secret_connect.SecretServiceClient = self._client(secret_connect.SecretServiceClient)
        return client

    async def add(self, action: Action, attempt: Attempt | None = None) -> None:
        """Puts rows into the database; a task without an attempt gets its first one."""
        first = attempt or lifecycle.new_attempt(action, action.attempt, NOW)
        await self.database.write(lambda tx: actions.insert(tx, replace(action, revision=tx.revision)))
        if action.kind is Kind.TASK:
            await self.database.write(lambda tx: attempts.insert(tx, first))

    def action(self, action_id: ActionId = ROOT, **fields: Any) -> Action:
        base = self.directory.join("flytesnacks", "development", "r1")
        defaults: dict[str, Any] = {"kind": Kind.TASK, "phase": Phase.RUNNING, "created_at": NOW, "base_uri": base}
        action = Action(id=action_id, **(defaults | fields))
        if action.kind is Kind.TASK and not action.output_uri:
            return replace(action, output_uri=action.output_prefix(action.attempt))
        return action

    async def put(self, url: str, content: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient() as client:
            return await client.put(url, content=content, headers=named)

    async def get(self, url: str, method: str = "GET") -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.request(method, url)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    create_on_write: bool = True,
    pods: bool = False,
    headers: IdentityHeaders = UNTRUSTED,
    domains: Mapping[str, str] = DOMAINS,
) -> AsyncIterator[Manager]:
    """Everything, on a free port, with its database and store in the folder."""
    clock = Clock()
    database = Database.open(folder / "flyte.db", clock=clock)
    try:
        directory, signer = Directory(folder / "store"), Signer(b"s" * 32, clock)
        projects = Projects(database, clock, create_on_write=create_on_write, domains=domains)
        vault = Vault(database, b"v" * 32, clock)
        await projects.seed()
        logs, callers = Lines(), Callers(ADA, headers)
        links = SignedLinks(signer)
        data = DataProxyService(projects=projects, blobs=directory, links=links, database=database, logs=logs)
        cached = CacheCalls(projects, Cache(database, clock), directory, clock)
        services: list[tuple[Any, object]] = [
            (cacheservice_connect.CacheServiceASGIApplication, CacheService(cached)),
            (cacheservice_v2_connect.CacheServiceASGIApplication, CacheServiceV2(cached)),
            (dataproxy_service_connect.DataProxyServiceASGIApplication, data),
            (run_logs_service_connect.RunLogsServiceASGIApplication, RunLogsService(data)),
            (cluster_connect.ClusterServiceASGIApplication, ClusterService()),
            (project_service_connect.ProjectServiceASGIApplication, ProjectService(projects, clock)),
            (domain_service_connect.DomainServiceASGIApplication, DomainService(projects)),
            (
                task_service_connect.TaskServiceASGIApplication,
                TaskService(projects=projects, database=database, callers=callers, clock=clock),
            ),
            (secret_connect.SecretServiceASGIApplication, SecretService(projects, vault)),
            (image_connect.ImageServiceASGIApplication, ImageService(pods=pods)),
            (identity_connect.IdentityServiceASGIApplication, IdentityService(callers)),
            (auth_service_connect.AuthMetadataServiceASGIApplication, AuthMetadataService()),
        ]
        async with served(services, BlobRoutes(signer, directory).routes()) as url:
            manager = Manager(
                url=url,
                folder=folder,
                clock=clock,
                database=database,
                directory=directory,
                signer=signer,
                projects=projects,
                vault=vault,
                logs=logs,
            )
            try:
                yield manager
            finally:
                for client in manager.clients:
                    await client.close()
    finally:
        database.close()


async def refused(call: Awaitable[object], code: Code) -> str:
    """The message with which the call is refused with that code; fails when it isn't."""
    with pytest.raises(ConnectError) as caught:
        await call
    assert caught.value.code is code, f"{caught.value.code}: {caught.value.message}"
    return caught.value.message
