"""Projects by ProjectService, and the projects that writes make."""

import logging
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.common import list_pb2
from flyteidl2.core import identifier_pb2, tasks_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.project import project_service_pb2 as pb
from flyteidl2.secret import definition_pb2, payload_pb2
from flyteidl2.task import run_pb2, task_definition_pb2, task_service_pb2

from flyte_manager.domain.catalog import Project
from flyte_manager.domain.errors import IllegalName, UnknownDomain, UnknownProject
from flyte_manager.domain.ids import ProjectId
from flyte_manager.ledger.projects import ProjectArchived, Projects
from flyte_manager.store import projects
from flyte_manager.store.engine import Transaction
from tests.unit.services.running import NOW, Clock, Manager, refused, running


def record(project_id: str) -> Project:
    return Project(id=project_id, name=project_id, created_at=NOW, updated_at=NOW)


async def create(manager: Manager, *names: str) -> None:
    for name in names:
        await manager.project.create_project(pb.CreateProjectRequest(project=pb.Project(id=name, name=name.title())))


async def listed(manager: Manager, filters: str = "", **fields: object) -> list[str]:
    request = pb.ListProjectsRequest(filters=filters, **fields)  # type: ignore[arg-type]
    return [project.id for project in (await manager.project.list_projects(request)).projects.projects]


async def update(manager: Manager, project_id: str, **fields: object) -> None:
    project = pb.Project(id=project_id, **fields)  # type: ignore[arg-type]
    await manager.project.update_project(pb.UpdateProjectRequest(project=project))


async def test_flytesnacks_is_there_from_the_start_with_its_domains(manager: Manager) -> None:
    await manager.projects.seed()
    found = (await manager.project.get_project(pb.GetProjectRequest(id="flytesnacks"))).project
    assert found.name == "flytesnacks"
    assert [domain.id for domain in found.domains] == ["development", "staging", "production"]
    assert await listed(manager) == ["flytesnacks"]


async def test_a_project_is_created_once_and_updated_as_a_whole(manager: Manager) -> None:
    labels = run_pb2.Labels(values={"team": "a"})
    made = pb.Project(id="p1", name="One", description="first", labels=labels)
    await manager.project.create_project(pb.CreateProjectRequest(project=made))
    again = manager.project.create_project(pb.CreateProjectRequest(project=made))
    assert "'p1' exists already" in await refused(again, Code.ALREADY_EXISTS)
    await update(manager, "p1", name="Uno")
    found = (await manager.project.get_project(pb.GetProjectRequest(id="p1"))).project
    assert (found.name, found.description, dict(found.labels.values)) == ("Uno", "", {})
    await refused(manager.project.get_project(pb.GetProjectRequest(id="p2")), Code.NOT_FOUND)
    await refused(update(manager, "p2"), Code.NOT_FOUND)


@pytest.mark.parametrize(
    "project",
    [
        None,
        pb.Project(),
        pb.Project(id="Upper"),
        pb.Project(id="a/b"),
        pb.Project(id="p", domains=[pb.Domain(id="moon")]),
    ],
)
async def test_a_project_that_cannot_be_is_refused(manager: Manager, project: pb.Project | None) -> None:
    await refused(manager.project.create_project(pb.CreateProjectRequest(project=project)), Code.INVALID_ARGUMENT)
    assert await listed(manager) == ["flytesnacks"]


async def test_a_project_is_given_no_system_state(manager: Manager) -> None:
    call = update(manager, "flytesnacks", state=pb.PROJECT_STATE_SYSTEM_GENERATED)
    assert "archived (1)" in await refused(call, Code.INVALID_ARGUMENT)


async def test_archived_projects_are_hidden_unless_there_are_filters(manager: Manager) -> None:
    await create(manager, "old")
    await update(manager, "old", state=pb.PROJECT_STATE_ARCHIVED)
    assert await listed(manager) == ["flytesnacks"]
    assert await listed(manager, "eq(state, 1)") == ["old"]
    assert await listed(manager, "ne(state,1)") == ["flytesnacks"]
    assert await listed(manager, "value_in(state, 0;1)") == ["flytesnacks", "old"]
    assert await listed(manager, "eq(identifier,old)") == ["old"]


async def test_a_list_without_a_limit_has_all_projects_and_no_token(manager: Manager) -> None:
    def write(tx: Transaction) -> None:
        for number in range(1100):
            projects.insert(tx, record(f"p{number}"))

    await manager.database.write(write)
    everything = (await manager.project.list_projects(pb.ListProjectsRequest())).projects
    assert (len(everything.projects), everything.token) == (1101, "")
    most = (await manager.project.list_projects(pb.ListProjectsRequest(limit=1100))).projects
    assert (len(most.projects), most.token) == (1100, "1100")
    exact = (await manager.project.list_projects(pb.ListProjectsRequest(limit=1101))).projects
    assert (len(exact.projects), exact.token) == (1101, "")


@pytest.mark.parametrize("field", ["name", "description"])
async def test_a_text_that_is_too_long_is_refused(manager: Manager, field: str) -> None:
    call = update(manager, "flytesnacks", **{field: "x" * 301})
    assert f"the {field} has 301 characters" in await refused(call, Code.INVALID_ARGUMENT)


async def test_an_archived_project_takes_no_run_task_input_or_secret_and_says_how_to_activate_it(
    manager: Manager,
) -> None:
    await update(manager, "flytesnacks", state=pb.PROJECT_STATE_ARCHIVED)
    scope = {"project": "flytesnacks", "domain": "development"}
    task_id = task_definition_pb2.TaskIdentifier(**scope, name="t", version="1")
    template = tasks_pb2.TaskTemplate(type="python", id=identifier_pb2.Identifier(name="t"))
    spec = task_definition_pb2.TaskSpec(task_template=template)
    secret = definition_pb2.SecretIdentifier(**scope, name="s")
    value = definition_pb2.SecretSpec(string_value="v")
    calls = (
        manager.tasks.deploy_task(task_service_pb2.DeployTaskRequest(task_id=task_id, spec=spec)),
        manager.data.create_upload_location(
            dataproxy_service_pb2.CreateUploadLocationRequest(
                project="flytesnacks", domain="development", filename="f", filename_root="r"
            )
        ),
        manager.secrets.create_secret(payload_pb2.CreateSecretRequest(id=secret, secret_spec=value)),
    )
    for call in calls:
        assert "flyte update project flytesnacks --unarchive" in await refused(call, Code.FAILED_PRECONDITION)


async def test_projects_have_the_domains_of_the_configuration(tmp_path: Path) -> None:
    async with running(tmp_path, domains={"qa": "Quality", "live": "live"}) as manager:
        found = (await manager.project.get_project(pb.GetProjectRequest(id="flytesnacks"))).project
        assert [(domain.id, domain.name) for domain in found.domains] == [("qa", "Quality"), ("live", "live")]
        await manager.projects.admit_write(ProjectId("flytesnacks", "live"))
        with pytest.raises(UnknownDomain, match="use one of qa, live"):
            await manager.projects.admit_write(ProjectId("flytesnacks", "development"))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("eq(id,alpha)", ["alpha"]),
        ("contains(id,a)+ne(id,alpha)+eq(state, 0)", ["beta", "flytesnacks"]),
        ("value_in(id, alpha;beta)", ["alpha", "beta"]),
        ("gte( id , b )", ["beta", "flytesnacks"]),
        ("contains(name,ALPHA)", []),
    ],
)
async def test_filters_pick_projects(manager: Manager, filters: str, expected: list[str]) -> None:
    await create(manager, "alpha", "beta")
    assert await listed(manager, filters) == expected


@pytest.mark.parametrize(
    "filters",
    ["id=x", "eq(id,x", "eq(id)", "like(id,x)", "eq(id,x)+", "eq(id,x)eq(id,y)", "eq(secret,x)", "eq(state,x)"],
)
async def test_filters_that_cannot_be_read_are_refused(manager: Manager, filters: str) -> None:
    await refused(listed(manager, filters), Code.INVALID_ARGUMENT)


async def test_projects_are_sorted_and_paged(manager: Manager) -> None:
    await create(manager, "a", "b", "c")
    descending = list_pb2.Sort(key="id", direction=list_pb2.Sort.DESCENDING)
    first = (await manager.project.list_projects(pb.ListProjectsRequest(limit=2, sort_by=descending))).projects
    assert [project.id for project in first.projects] == ["flytesnacks", "c"]
    rest = await manager.project.list_projects(pb.ListProjectsRequest(limit=2, sort_by=descending, token=first.token))
    assert [project.id for project in rest.projects.projects] == ["b", "a"]
    assert rest.projects.token == ""
    await refused(listed(manager, token="x"), Code.INVALID_ARGUMENT)
    await refused(listed(manager, sort_by=list_pb2.Sort(key="secret")), Code.INVALID_ARGUMENT)


async def test_the_first_write_makes_a_project_and_says_so_and_a_read_never_does(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    scope = ProjectId("fresh", "staging")
    with pytest.raises(UnknownProject):
        await manager.projects.check_read(scope)
    with caplog.at_level(logging.INFO):
        await manager.projects.admit_write(scope)
        await manager.projects.admit_write(scope)
    assert [record.getMessage() for record in caplog.records].count("project fresh created") == 1
    await manager.projects.check_read(scope)
    for illegal, error in ((ProjectId("No", "staging"), IllegalName), (ProjectId("fresh", "moon"), UnknownDomain)):
        with pytest.raises(error):
            await manager.projects.admit_write(illegal)
        with pytest.raises(error):
            await manager.projects.check_read(illegal)


async def test_where_writes_make_no_projects_an_unknown_one_is_refused(manager: Manager) -> None:
    strict = Projects(manager.database, Clock(), create_on_write=False)
    with pytest.raises(UnknownProject):
        await strict.admit_write(ProjectId("fresh", "staging"))
    await strict.admit_write(ProjectId("flytesnacks", "staging"))


async def test_an_archived_project_takes_writes_again_once_it_is_active(manager: Manager) -> None:
    scope = ProjectId("flytesnacks", "development")
    await manager.projects.admit_write(scope)
    await update(manager, "flytesnacks", state=pb.PROJECT_STATE_ARCHIVED)
    with pytest.raises(ProjectArchived, match="--unarchive"):
        await manager.projects.admit_write(scope)
    await manager.projects.check_read(scope)
    await update(manager, "flytesnacks", state=pb.PROJECT_STATE_ACTIVE)
    await manager.projects.admit_write(scope)
