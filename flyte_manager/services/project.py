"""ProjectService."""

from flyteidl2.project import project_service_connect
from flyteidl2.project import project_service_pb2 as pb

from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.ports import Clock
from flyte_manager.ledger.projects import Projects
from flyte_manager.services.context import Context
from flyte_manager.wire.projects import project, project_proto, project_query, projects_proto


class ProjectService(project_service_connect.ProjectService):
    def __init__(self, projects: Projects, clock: Clock) -> None:
        self._projects = projects
        self._clock = clock

    async def create_project(self, request: pb.CreateProjectRequest, _ctx: Context) -> pb.CreateProjectResponse:
        if not request.HasField("project"):
            raise NotGiven(field="project")
        await self._projects.create(project(request.project, self._projects.domains, at=self._clock()))
        return pb.CreateProjectResponse()

    async def update_project(self, request: pb.UpdateProjectRequest, _ctx: Context) -> pb.UpdateProjectResponse:
        if not request.HasField("project"):
            raise NotGiven(field="project")
        await self._projects.update(project(request.project, self._projects.domains, at=self._clock()))
        return pb.UpdateProjectResponse()

    async def get_project(self, request: pb.GetProjectRequest, _ctx: Context) -> pb.GetProjectResponse:
        found = await self._projects.get(request.id)
        return pb.GetProjectResponse(project=project_proto(found, self._projects.domains))

    async def list_projects(self, request: pb.ListProjectsRequest, _ctx: Context) -> pb.ListProjectsResponse:
        query = project_query(request)
        found = await self._projects.page(query)
        return pb.ListProjectsResponse(projects=projects_proto(found, self._projects.domains, query))
