"""Where an attempt runs and its log comes from, as clients see it. A process is shown as the pod that it would be."""

from flyteidl2.core import execution_pb2
from flyteidl2.logs.dataplane import payload_pb2

from flyte_manager.domain.attempts import Attempt, Place
from flyte_manager.wire.times import timestamp


def container(attempt: Attempt) -> payload_pb2.ContainerIdentifier:
    place = _place(attempt)
    return payload_pb2.ContainerIdentifier(
        kubernetes_namespace=place.namespace,
        kubernetes_pod_name=place.pod,
        kubernetes_container_name=place.container,
    )


def log_context(attempt: Attempt) -> execution_pb2.LogContext | None:
    """None while nothing of the attempt runs that could have a log."""
    if attempt.place is None and attempt.started_at is None:
        return None
    place = _place(attempt)
    primary = execution_pb2.ContainerContext(container_name=place.container)
    if attempt.started_at:
        primary.process.container_start_time.CopyFrom(timestamp(attempt.started_at))
    if attempt.ended_at:
        primary.process.container_end_time.CopyFrom(timestamp(attempt.ended_at))
    pod = execution_pb2.PodLogContext(
        namespace=place.namespace,
        pod_name=place.pod,
        containers=[primary],
        primary_container_name=place.container,
    )
    return execution_pb2.LogContext(pods=[pod], primary_pod_name=place.pod)


def _place(attempt: Attempt) -> Place:
    action = attempt.id.action
    return attempt.place or Place(
        namespace=f"{action.run.project}-{action.run.domain}",
        pod=f"{action.run.name}-{action.name}-{attempt.id.number - 1}",
        container="task",
    )
