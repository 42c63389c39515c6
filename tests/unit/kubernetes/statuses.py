"""Pods as the API server shows them, in the states that kubelets, schedulers and controllers bring them to."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.kubernetes import labels

CREATED = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ATTEMPT = AttemptId(ActionId(RunId("flytesnacks", "development", "r1"), "a0"), 1)

Document = dict[str, Any]


def at(seconds: float) -> str:
    """So many seconds after the creation, as Kubernetes writes it."""
    return (CREATED + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def time(seconds: float) -> datetime:
    return CREATED + timedelta(seconds=seconds)


def pod(attempt: AttemptId = ATTEMPT, *, inits: int = 0, sidecars: int = 0) -> Document:
    """One that was just created."""
    name = f"{attempt.action.run.name}-{attempt.action.name}-{attempt.number - 1}"
    containers = [{"name": "main", "image": "img:1", "resources": {"limits": {"memory": "500Mi", "cpu": "1"}}}]
    containers += [{"name": f"side{number}", "image": "side:1"} for number in range(sidecars)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "flyte",
            "uid": f"uid-of-{name}",
            "resourceVersion": "100",
            "creationTimestamp": at(0),
            "labels": labels.of_attempt(attempt),
            "annotations": {labels.PRIMARY_CONTAINER: "main"},
            "ownerReferences": [{"apiVersion": "flyte.org/v1", "kind": "TaskAction", "name": "r1-a0", "uid": "cr-1"}],
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30,
            "containers": containers,
            "initContainers": [{"name": f"init{number}", "image": "init:1"} for number in range(inits)],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def condition(kind: str, true: bool, seconds: float = 0, **more: str) -> Document:
    return {"type": kind, "status": "True" if true else "False", "lastTransitionTime": at(seconds), **more}


def scheduled(document: Document, seconds: float = 1) -> Document:
    """Bound to a node, whose kubelet has not told anything yet."""
    changed = deepcopy(document)
    changed["spec"]["nodeName"] = "node-1"
    changed["status"]["conditions"] = [condition("PodScheduled", True, seconds)]
    return changed


def unscheduled(document: Document, message: str, reason: str = "Unschedulable", seconds: float = 0) -> Document:
    changed = deepcopy(document)
    changed["status"]["conditions"] = [condition("PodScheduled", False, seconds, reason=reason, message=message)]
    return changed


def waiting(reason: str, message: str = "") -> Document:
    detail = {"reason": reason, "message": message} if message else {"reason": reason}
    return {"waiting": detail}


def running(seconds: float = 5) -> Document:
    return {"running": {"startedAt": at(seconds)}}


def terminated(
    code: int, reason: str = "", *, message: str = "", start: float | None = 5, end: float | None = 8
) -> Document:
    """`start` None: it never started, which container runtimes tell as 1970."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            **({"message": message} if message else {}),
            "startedAt": "1970-01-01T00:00:00Z" if start is None else at(start),
            "finishedAt": None if end is None else at(end),
            "containerID": "containerd://1",
        }
    }


def with_states(
    document: Document,
    *mains: Document,
    inits: tuple[Document, ...] = (),
    phase: str = "Pending",
    reason: str = "",
    message: str = "",
) -> Document:
    """On its node, with its containers in these states."""
    changed = document if document["spec"].get("nodeName") else scheduled(document)
    changed = deepcopy(changed)
    status = changed["status"]
    status["phase"] = phase
    status["startTime"] = at(1)
    status |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    ready = phase == "Running" and all("running" in each for each in mains)
    status["conditions"] = [
        *status["conditions"],
        condition("Initialized", True, 1),
        condition("ContainersReady", ready, 2, **({} if ready else {"reason": "ContainersNotReady"})),
        condition("Ready", ready, 2),
    ]
    status["containerStatuses"] = _statuses(changed["spec"]["containers"], mains)
    if inits:
        status["initContainerStatuses"] = _statuses(changed["spec"]["initContainers"], inits)
    return changed


def deleted(document: Document, seconds: float, grace: int = 30) -> Document:
    """Told to go at that time."""
    changed = deepcopy(document)
    changed["metadata"]["deletionTimestamp"] = at(seconds + grace)
    changed["metadata"]["deletionGracePeriodSeconds"] = grace
    return changed


def disrupted(document: Document, reason: str, message: str, seconds: float) -> Document:
    changed = deepcopy(document)
    changed["status"].setdefault("conditions", []).append(
        condition("DisruptionTarget", True, seconds, reason=reason, message=message)
    )
    return changed


def _statuses(containers: list[Document], states: tuple[Document, ...]) -> list[Document]:
    return [
        {"name": container["name"], "image": container["image"], "restartCount": 0, "state": state, "lastState": {}}
        for container, state in zip(containers, states, strict=True)
    ]
