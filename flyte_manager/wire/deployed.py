"""Deployed tasks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from flyteidl2.task import task_definition_pb2, task_service_pb2

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.catalog import DeployedTask
from flyte_manager.domain.errors import Unsupported
from flyte_manager.domain.filters import Filter, Function, Query, next_token
from flyte_manager.domain.ids import check_scope, check_task
from flyte_manager.wire import ids, listing
from flyte_manager.wire.times import timestamp

LONGEST_DESCRIPTION = 255
"""Characters; the spec keeps the whole."""


def version_name(proto: task_definition_pb2.TaskIdentifier) -> TaskName:
    """The name of one version. Raises NotGiven, IllegalName."""
    name = ids.task_name(proto)
    check_task("task version", name.version)
    return name


def task_of_versions(proto: task_definition_pb2.TaskName) -> TaskName:
    """The name of all versions. Raises NotGiven, IllegalName."""
    check_scope(proto.project, proto.domain)
    check_task("task name", proto.name)
    return TaskName(proto.project, proto.domain, proto.name, org=proto.org)


def deployed_task(name: TaskName, spec: task_definition_pb2.TaskSpec, *, digest: str, at: datetime) -> DeployedTask:
    return DeployedTask(
        name=name,
        spec_digest=digest,
        created_at=at,
        short_name=spec.short_name,
        environment=spec.environment.name,
        description=spec.documentation.short_description[:LONGEST_DESCRIPTION],
        entrypoint=spec.task_template.metadata.is_entrypoint,
    )


def task_query(request: task_service_pb2.ListTasksRequest) -> Query:
    """Raises Unsupported for what this manager keeps no record of, and what `listing.query` raises."""
    query = listing.query(request.request)
    known: list[Filter] = []
    for each in request.known_filters:
        if each.WhichOneof("filter_by") == "is_entrypoint":
            known.append(Filter("is_entrypoint", Function.EQUAL, [str(each.is_entrypoint).lower()]))
        else:
            raise Unsupported(what="a list of tasks by who deployed them")
    return replace(query, filters=(*query.filters, *known))


def task_proto(task: DeployedTask) -> task_definition_pb2.Task:
    return task_definition_pb2.Task(task_id=ids.task_proto(task.name), metadata=_metadata(task))


def details_proto(task: DeployedTask, spec: bytes) -> task_definition_pb2.TaskDetails:
    return task_definition_pb2.TaskDetails(
        task_id=ids.task_proto(task.name),
        metadata=_metadata(task),
        spec=task_definition_pb2.TaskSpec.FromString(spec),
    )


def versions_proto(found: Sequence[DeployedTask], query: Query) -> task_service_pb2.ListVersionsResponse:
    """A page of a list, which was asked for one more than it holds."""
    response = task_service_pb2.ListVersionsResponse(token=next_token(query, len(found)))
    for task in found[: query.limit]:
        response.versions.add(version=task.name.version, deployed_at=timestamp(task.created_at))
    return response


def _metadata(task: DeployedTask) -> task_definition_pb2.TaskMetadata:
    return task_definition_pb2.TaskMetadata(
        short_name=task.short_name,
        deployed_at=timestamp(task.created_at),
        environment_name=task.environment,
        short_description=task.description,
    )
