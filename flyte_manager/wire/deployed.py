"""Deployed tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from flyteidl2.task import task_definition_pb2, task_service_pb2

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.catalog import DeployedTask, LatestRun
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.filters import Filter, Function, Query
from flyte_manager.domain.ids import check_scope, check_task
from flyte_manager.wire import ids, listing
from flyte_manager.wire.phases import phase_proto
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
        environment_description=spec.environment.description[:LONGEST_DESCRIPTION],
        entrypoint=spec.task_template.metadata.is_entrypoint,
    )


def task_query(request: task_service_pb2.ListTasksRequest) -> Query:
    """Raises NotGiven for an empty filter, and what `listing.query` raises."""
    query = listing.query(request.request)
    known: list[Filter] = []
    for each in request.known_filters:
        match each.WhichOneof("filter_by"):
            case "is_entrypoint":
                known.append(Filter("is_entrypoint", Function.EQUAL, [str(each.is_entrypoint).lower()]))
            case "deployed_by":
                known.append(Filter("deployed_by", Function.EQUAL, [each.deployed_by]))
            case _:
                raise NotGiven(field="known_filters (deployed_by or is_entrypoint)")
    return replace(query, filters=(*query.filters, *known))


def task_proto(task: DeployedTask, latest: LatestRun | None = None) -> task_definition_pb2.Task:
    shown = task_definition_pb2.Task(task_id=ids.task_proto(task.name), metadata=_metadata(task))
    if latest is not None:
        shown.task_summary.latest_run.CopyFrom(_latest_run(task, latest))
    return shown


def details_proto(task: DeployedTask, spec: bytes) -> task_definition_pb2.TaskDetails:
    return task_definition_pb2.TaskDetails(
        task_id=ids.task_proto(task.name),
        metadata=_metadata(task),
        spec=task_definition_pb2.TaskSpec.FromString(spec),
    )


def versions_proto(
    found: Sequence[DeployedTask], token: str, latest: Mapping[TaskName, LatestRun]
) -> task_service_pb2.ListVersionsResponse:
    response = task_service_pb2.ListVersionsResponse(token=token)
    for task in found:
        shown = response.versions.add(version=task.name.version, deployed_at=timestamp(task.created_at))
        if task.deployed_by:
            shown.deployed_by.MergeFromString(task.deployed_by)
        if task.name in latest:
            shown.latest_run.CopyFrom(_latest_run(task, latest[task.name]))
    return response


def _latest_run(task: DeployedTask, latest: LatestRun) -> task_definition_pb2.LatestRunSummary:
    return task_definition_pb2.LatestRunSummary(
        run_id=ids.run_proto(latest.id),
        run_time=timestamp(latest.created_at),
        phase=phase_proto(latest.phase),
        root_task_name=task.name.name,
    )


def _metadata(task: DeployedTask) -> task_definition_pb2.TaskMetadata:
    metadata = task_definition_pb2.TaskMetadata(
        short_name=task.short_name,
        deployed_at=timestamp(task.created_at),
        environment_name=task.environment,
        short_description=task.description,
    )
    if task.deployed_by:
        metadata.deployed_by.MergeFromString(task.deployed_by)
    return metadata
