"""Deployed tasks by TaskService."""

from datetime import timedelta

import pytest
from connectrpc.code import Code
from flyteidl2.common import identifier_pb2, list_pb2, phase_pb2
from flyteidl2.core import tasks_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.task import task_service_pb2 as pb

from flyte_manager.domain.actions import Run, TaskName
from flyte_manager.domain.ids import RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.store import runs
from tests.unit.services.running import NOW, Manager, refused

PROJECT = identifier_pb2.ProjectIdentifier(name="flytesnacks", domain="development")


def task_id(name: str = "env.main", version: str = "v1", **fields: str) -> task_definition_pb2.TaskIdentifier:
    given = {"project": "flytesnacks", "domain": "development"} | fields
    return task_definition_pb2.TaskIdentifier(name=name, version=version, **given)


def spec(name: str = "env.main", *, entrypoint: bool = False, image: str = "a") -> task_definition_pb2.TaskSpec:
    template = tasks_pb2.TaskTemplate(type="python", metadata=tasks_pb2.TaskMetadata(is_entrypoint=entrypoint))
    template.id.name = name
    template.container.image = image
    made = task_definition_pb2.TaskSpec(task_template=template, short_name=name.partition(".")[2])
    made.environment.name, made.environment.description = "env", "where"
    made.documentation.short_description = "d" * 300
    return made


async def deploy(manager: Manager, name: str = "env.main", version: str = "v1", **fields: object) -> None:
    content = spec(name, **fields)  # type: ignore[arg-type]
    await manager.tasks.deploy_task(pb.DeployTaskRequest(task_id=task_id(name, version), spec=content))


async def listed(manager: Manager, *, known: object = None, **request: object) -> pb.ListTasksResponse:
    asked = list_pb2.ListRequest(**request)  # type: ignore[arg-type]
    return await manager.tasks.list_tasks(
        pb.ListTasksRequest(request=asked, project_id=PROJECT, known_filters=[known] if known else [])  # type: ignore[list-item]
    )


def names(response: pb.ListTasksResponse) -> list[tuple[str, str]]:
    return [(task.task_id.name, task.task_id.version) for task in response.tasks]


async def test_a_deployed_task_is_told_in_full(manager: Manager) -> None:
    await deploy(manager)
    told = (await manager.tasks.get_task_details(pb.GetTaskDetailsRequest(task_id=task_id(org="x")))).details
    assert told.spec == spec()
    assert told.task_id == task_id()
    assert told.metadata.short_name == "main"
    assert told.metadata.environment_name == "env"
    assert len(told.metadata.short_description) == 255
    assert told.metadata.deployed_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW


async def test_deploying_the_same_again_changes_nothing_and_other_content_is_refused(manager: Manager) -> None:
    await deploy(manager)
    manager.clock.advance(hours=1)
    await deploy(manager)
    told = (await manager.tasks.get_task_details(pb.GetTaskDetailsRequest(task_id=task_id()))).details
    assert told.metadata.deployed_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    assert "another version" in await refused(deploy(manager, image="b"), Code.ALREADY_EXISTS)
    await deploy(manager, version="v2", image="b")


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.DeployTaskRequest(spec=spec()), Code.INVALID_ARGUMENT, "project is required"),
        (pb.DeployTaskRequest(task_id=task_id()), Code.INVALID_ARGUMENT, "spec is required"),
        (
            pb.DeployTaskRequest(task_id=task_id(), spec=task_definition_pb2.TaskSpec()),
            Code.INVALID_ARGUMENT,
            "task_template",
        ),
        (pb.DeployTaskRequest(task_id=task_id(version=""), spec=spec()), Code.INVALID_ARGUMENT, "task version"),
        (pb.DeployTaskRequest(task_id=task_id(name=""), spec=spec()), Code.INVALID_ARGUMENT, "task name"),
        (pb.DeployTaskRequest(task_id=task_id(name="a\nb"), spec=spec()), Code.INVALID_ARGUMENT, "printable"),
        (pb.DeployTaskRequest(task_id=task_id(version="v" * 256), spec=spec()), Code.INVALID_ARGUMENT, "255"),
        (pb.DeployTaskRequest(task_id=task_id(domain="moon"), spec=spec()), Code.NOT_FOUND, "moon"),
        (
            pb.DeployTaskRequest(
                task_id=task_id(), spec=spec(), triggers=[task_definition_pb2.TaskTrigger(name="nightly")]
            ),
            Code.UNIMPLEMENTED,
            "triggers",
        ),
    ],
)
async def test_what_cannot_be_deployed_is_refused_and_not_kept(
    manager: Manager, request_: pb.DeployTaskRequest, code: Code, says: str
) -> None:
    assert says in await refused(manager.tasks.deploy_task(request_), code)
    assert names(await listed(manager)) == []


async def test_the_list_shows_the_newest_version_of_each_task(manager: Manager) -> None:
    await deploy(manager, version="v1")
    manager.clock.advance(seconds=1)
    await deploy(manager, version="v2")
    await deploy(manager, "env.leaf")
    assert names(await listed(manager)) == [("env.leaf", "v1"), ("env.main", "v2")]
    versions = pb.ListVersionsRequest(
        task_name=task_definition_pb2.TaskName(project="flytesnacks", domain="development", name="env.main")
    )
    found = await manager.tasks.list_versions(versions)
    assert [version.version for version in found.versions] == ["v2", "v1"]
    assert found.token == ""


async def test_lists_are_filtered_counted_and_paged(manager: Manager) -> None:
    await deploy(manager, "env.a", entrypoint=True)
    await deploy(manager, "env.b")
    await deploy(manager, "other.c")
    equal = list_pb2.Filter(function=list_pb2.Filter.EQUAL, field="name", values=["env.b"])
    assert names(await listed(manager, filters=[equal])) == [("env.b", "v1")]
    entry = pb.ListTasksRequest.KnownFilter(is_entrypoint=True)
    found = await listed(manager, known=entry)
    assert names(found) == [("env.a", "v1")]
    assert (found.metadata.total, found.metadata.filtered_total) == (3, 1)
    ascending = list_pb2.Sort(key="name", direction=list_pb2.Sort.ASCENDING)
    first = await listed(manager, limit=2, sort_by=ascending)
    assert [name for name, _ in names(first)] == ["env.a", "env.b"]
    second = await listed(manager, limit=2, sort_by=ascending, token=first.token)
    assert [name for name, _ in names(second)] == ["other.c"]
    assert second.token == ""


@pytest.mark.parametrize(
    ("field", "function", "values", "found"),
    [
        ("project", list_pb2.Filter.EQUAL, ["flytesnacks"], "env.a env.b"),
        ("domain", list_pb2.Filter.NOT_EQUAL, ["development"], ""),
        ("name", list_pb2.Filter.CONTAINS, ["v.b"], "env.b"),
        ("task_name", list_pb2.Filter.ENDS_WITH, [".a"], "env.a"),
        ("version", list_pb2.Filter.VALUE_IN, ["v1"], "env.a env.b"),
        ("function_name", list_pb2.Filter.EQUAL, ["b"], "env.b"),
        ("short_name", list_pb2.Filter.EQUAL, ["a"], "env.a"),
        ("environment", list_pb2.Filter.EQUAL, ["env"], "env.a env.b"),
        ("env_description", list_pb2.Filter.EQUAL, ["where"], "env.a env.b"),
        ("short_description", list_pb2.Filter.EXISTS, [], "env.a env.b"),
        ("deployed_by", list_pb2.Filter.EQUAL, ["ada"], "env.a env.b"),
        ("created_at", list_pb2.Filter.GREATER_THAN, [NOW.isoformat()], "env.b"),
        ("updated_at", list_pb2.Filter.LESS_THAN_OR_EQUAL, [NOW.isoformat()], "env.a"),
        ("trigger_name", list_pb2.Filter.NOT_EXISTS, [], "env.a env.b"),
        ("total_triggers", list_pb2.Filter.GREATER_THAN, ["0"], ""),
        ("active_triggers", list_pb2.Filter.EQUAL, ["0"], "env.a env.b"),
    ],
)
async def test_tasks_are_filtered_and_sorted_by_every_field(
    manager: Manager, field: str, function: "list_pb2.Filter.Function", values: list[str], found: str
) -> None:
    await deploy(manager, "env.a")
    manager.clock.advance(seconds=1)
    await deploy(manager, "env.b")
    asked = list_pb2.Filter(field=field, function=function, values=values)
    for direction in (list_pb2.Sort.ASCENDING, list_pb2.Sort.DESCENDING):
        sort = list_pb2.Sort(key=field, direction=direction)
        told = await listed(manager, filters=[asked], sort_by_fields=[sort])
        assert sorted(name for name, _ in names(told)) == found.split()
        assert (told.metadata.total, told.metadata.filtered_total) == (2, len(found.split()))


async def ran(manager: Manager, run: str, version: str, phase: Phase = Phase.SUCCEEDED) -> None:
    made = Run(
        RunId("flytesnacks", "development", run, "acme"),
        phase=phase,
        task=TaskName("flytesnacks", "development", "env.main", version),
        input_uri="",
        base_uri="",
        created_at=manager.clock(),
    )
    await manager.database.write(lambda tx: runs.insert(tx, made))
    manager.clock.advance(seconds=1)


async def test_the_newest_run_of_a_task_and_of_each_version_is_told(manager: Manager) -> None:
    for version in ("v1", "v2", "v3"):
        await deploy(manager, version=version)
        manager.clock.advance(seconds=1)
    await deploy(manager, "env.never")
    for run, version in (("r1", "v1"), ("r2", "v2"), ("r3", "v2"), ("r4", "v1")):
        await ran(manager, run, version, Phase.FAILED if run == "r3" else Phase.SUCCEEDED)
    never, main = (await listed(manager)).tasks
    assert not never.HasField("task_summary")
    told = main.task_summary.latest_run
    assert (told.run_id.name, told.run_id.org, told.root_task_name) == ("r4", "acme", "env.main")
    assert told.phase == phase_pb2.ACTION_PHASE_SUCCEEDED
    assert told.run_time.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=6)
    asked = pb.ListVersionsRequest(
        task_name=task_definition_pb2.TaskName(project="flytesnacks", domain="development", name="env.main")
    )
    versions = (await manager.tasks.list_versions(asked)).versions
    newest = {each.version: each.latest_run.run_id.name for each in versions}
    assert newest == {"v3": "", "v2": "r3", "v1": "r4"}
    assert [each.HasField("latest_run") for each in versions] == [False, True, True]
    assert versions[1].latest_run.phase == phase_pb2.ACTION_PHASE_FAILED


async def test_versions_that_come_between_two_pages_neither_repeat_nor_hide_one(manager: Manager) -> None:
    for number in range(5):
        await deploy(manager, version=f"v{number}")
    asked = pb.ListVersionsRequest(
        task_name=task_definition_pb2.TaskName(project="flytesnacks", domain="development", name="env.main")
    )
    asked.request.limit = 2
    found: list[str] = []
    while True:
        page = await manager.tasks.list_versions(asked)
        found += [each.version for each in page.versions]
        if not page.token:
            break
        asked.request.token = page.token
        manager.clock.advance(seconds=1)
        await deploy(manager, version=f"w{len(found)}")
    assert found == ["v4", "v3", "v2", "v1", "v0"]


async def test_what_lists_cannot_do_is_said(manager: Manager) -> None:
    empty = pb.ListTasksRequest.KnownFilter()
    assert "known_filters" in await refused(listed(manager, known=empty), Code.INVALID_ARGUMENT)
    unknown = list_pb2.Filter(field="colour", values=["x"])
    assert "'colour'" in await refused(listed(manager, filters=[unknown]), Code.INVALID_ARGUMENT)
    nowhere = pb.ListTasksRequest(project_id=identifier_pb2.ProjectIdentifier(name="nope", domain="development"))
    assert "'nope'" in await refused(manager.tasks.list_tasks(nowhere), Code.NOT_FOUND)
    assert "limit" in await refused(listed(manager, limit=100_000), Code.INVALID_ARGUMENT)


async def test_a_list_without_a_project_shows_all_projects(manager: Manager) -> None:
    await deploy(manager)
    elsewhere = task_id(project="other-project")
    await manager.tasks.deploy_task(pb.DeployTaskRequest(task_id=elsewhere, spec=spec()))
    everywhere = await manager.tasks.list_tasks(pb.ListTasksRequest(org="x"))
    assert {task.task_id.project for task in everywhere.tasks} == {"flytesnacks", "other-project"}
    assert len(names(await listed(manager))) == 1


async def test_a_task_that_nobody_deployed_is_not_found(manager: Manager) -> None:
    call = manager.tasks.get_task_details(pb.GetTaskDetailsRequest(task_id=task_id(version="v9")))
    assert "version 'v9'" in await refused(call, Code.NOT_FOUND)
