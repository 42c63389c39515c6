"""Identifiers. Reading one checks its names by meaning (DESIGN.md §4.9), writing one echoes the org."""

from flyteidl2.common import identifier_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.ids import (
    ROOT,
    ActionId,
    ProjectId,
    RunId,
    check_action,
    check_org,
    check_run,
    check_scope,
    check_task,
)

_Scoped = dataproxy_service_pb2.UploadInputsRequest | run_service_pb2.CreateRunRequest


def project_id(proto: identifier_pb2.ProjectIdentifier) -> ProjectId:
    check_scope(proto.name, proto.domain)
    check_org(proto.organization)
    return ProjectId(proto.name, proto.domain, proto.organization)


def run_id(proto: identifier_pb2.RunIdentifier) -> RunId:
    run = RunId(proto.project, proto.domain, proto.name, proto.org)
    check_run(run)
    return run


def scope_of(request: _Scoped, *, field: str) -> ProjectId:
    """The project that the request names, by itself or as its run's. `field`: how a request without either is told."""
    match request.WhichOneof("id"):
        case "run_id":
            run = run_id(request.run_id)
            return ProjectId(run.project, run.domain, run.org)
        case "project_id":
            return project_id(request.project_id)
        case _:
            raise NotGiven(field=field)


def action_id(proto: identifier_pb2.ActionIdentifier) -> ActionId:
    if not proto.HasField("run"):
        raise NotGiven(field="action_id.run")
    run = run_id(proto.run)
    action = ActionId(run, action_name(proto.name, run))
    check_action(action)
    return action


def action_name(name: str, run: RunId) -> str:
    """The action's name in rows: the first clients of Flyte 2 call a run's root action by the run's name."""
    return ROOT if name == run.name else name


def task_name(proto: task_definition_pb2.TaskIdentifier) -> TaskName:
    """Of one version; the version may be empty where the request can do without."""
    check_scope(proto.project, proto.domain)
    check_org(proto.org)
    check_task("task name", proto.name)
    if proto.version:
        check_task("task version", proto.version)
    return TaskName(proto.project, proto.domain, proto.name, proto.version, proto.org)


def run_proto(run: RunId) -> identifier_pb2.RunIdentifier:
    return identifier_pb2.RunIdentifier(org=run.org, project=run.project, domain=run.domain, name=run.name)


def action_proto(action: ActionId) -> identifier_pb2.ActionIdentifier:
    return identifier_pb2.ActionIdentifier(run=run_proto(action.run), name=action.name)


def task_proto(task: TaskName) -> task_definition_pb2.TaskIdentifier:
    return task_definition_pb2.TaskIdentifier(
        org=task.org, project=task.project, domain=task.domain, name=task.name, version=task.version
    )
