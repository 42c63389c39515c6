"""TaskService: deployed tasks. A version is for good: deploying it again must bring the same spec."""

from dataclasses import replace

from flyteidl2.task import task_service_connect
from flyteidl2.task import task_service_pb2 as pb

from flyte_manager.domain.errors import Exists, NotGiven, UnknownTask
from flyte_manager.domain.features import TRIGGERS, NotYet
from flyte_manager.domain.filters import Query
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import Clock
from flyte_manager.ledger.projects import Projects
from flyte_manager.services.callers import Callers
from flyte_manager.services.context import Context
from flyte_manager.store import task_lists, tasks
from flyte_manager.store.engine import Connection, Database, Transaction
from flyte_manager.wire import deployed, ids, listing, plan
from flyte_manager.wire.orders import spec_digest


class TaskDiffers(Exists):
    """task {name!r} version {version!r} exists already with another spec: deploy it under another version
    (`flyte deploy --version`)."""


class TaskService(task_service_connect.TaskService):
    def __init__(self, *, projects: Projects, database: Database, callers: Callers, clock: Clock) -> None:
        self._projects = projects
        self._callers = callers
        self._database = database
        self._clock = clock

    async def deploy_task(self, request: pb.DeployTaskRequest, ctx: Context) -> pb.DeployTaskResponse:
        name = deployed.version_name(request.task_id)
        if not request.HasField("spec"):
            raise NotGiven(field="spec")
        plan.check_spec(request.spec)
        if request.triggers:
            raise NotYet("a task with triggers", TRIGGERS)
        await self._projects.admit_write(ProjectId(name.project, name.domain, name.org))
        digest, content = spec_digest(request.spec)
        caller = self._callers.caller(ctx)
        task = deployed.deployed_task(name, request.spec, digest=digest, at=self._clock())
        task = replace(task, deployed_by=caller.identity, deployed_by_subject=caller.subject)

        def write(tx: Transaction) -> None:
            found = tasks.get(tx.connection, name)
            if found is None:
                tasks.keep_spec(tx, digest, content)
                tasks.insert(tx, task)
            elif found.spec_digest != digest:
                raise TaskDiffers(name=name.name, version=name.version)

        await self._database.write(write)
        return pb.DeployTaskResponse()

    async def get_task_details(self, request: pb.GetTaskDetailsRequest, _ctx: Context) -> pb.GetTaskDetailsResponse:
        name = deployed.version_name(request.task_id)
        task = await self._database.read(lambda connection: tasks.get(connection, name))
        if task is None:
            raise UnknownTask(name=name.name, version=name.version, project=name.project, domain=name.domain)
        digest = task.spec_digest
        spec = await self._database.read(lambda connection: tasks.spec(connection, digest))
        return pb.GetTaskDetailsResponse(details=deployed.details_proto(task, spec or b""))

    async def list_tasks(self, request: pb.ListTasksRequest, _ctx: Context) -> pb.ListTasksResponse:
        query = deployed.task_query(request)
        scope: ProjectId | str = request.org
        if request.WhichOneof("scope_by") == "project_id":
            scope = ids.project_id(request.project_id)
            await self._projects.check_read(scope)

        def read(connection: Connection) -> pb.ListTasksResponse:
            found, token, matching = task_lists.latest(connection, scope, query)
            total = matching
            if query.filters:
                *_, total = task_lists.latest(connection, scope, Query(limit=1))
            runs = task_lists.newest_runs(connection, [task.name for task in found], each_version=False)
            return pb.ListTasksResponse(
                tasks=[deployed.task_proto(task, runs.get(task.name)) for task in found],
                token=token,
                metadata=pb.ListTasksResponse.ListTasksMetadata(total=total, filtered_total=matching),
            )

        return await self._database.read(read)

    async def list_versions(self, request: pb.ListVersionsRequest, _ctx: Context) -> pb.ListVersionsResponse:
        name = deployed.task_of_versions(request.task_name)
        await self._projects.check_read(ProjectId(name.project, name.domain))
        query = listing.query(request.request)

        def read(connection: Connection) -> pb.ListVersionsResponse:
            found, token = task_lists.versions(connection, name, query)
            runs = task_lists.newest_runs(connection, [task.name for task in found], each_version=True)
            return deployed.versions_proto(found, token, runs)

        return await self._database.read(read)
