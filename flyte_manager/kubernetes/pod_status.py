"""What is kept in memory of a pod: enough to judge, stop and read it, and no more.

Two of these are equal when nothing that matters changed between them: heartbeats, readiness and versions don't count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from sys import intern
from typing import Any

from flyte_manager.domain.ids import AttemptId
from flyte_manager.kubernetes import labels
from flyte_manager.kubernetes.data_files import UPLOADER

LONGEST_MESSAGE = 2000


class State(Enum):
    """Of a container, as the kubelet tells it."""

    UNKNOWN = ""
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class Container:
    """One container's last known state."""

    name: str
    init: bool = False
    sidecar: bool = False
    """an init container that runs as long as the pod"""
    state: State = State.UNKNOWN
    reason: str = ""
    message: str = ""
    code: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    memory_limit: str = ""
    """as the pod says it, e.g. 500Mi"""


@dataclass(frozen=True, slots=True)
class Condition:
    true: bool
    reason: str = ""
    message: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of one attempt."""

    attempt: AttemptId
    name: str
    uid: str
    version: str = field(compare=False)
    """its resourceVersion"""
    created_at: datetime
    phase: str
    primary: str
    """name of the container that runs the task"""
    containers: tuple[Container, ...]
    """init containers first, in order; those that the kubelet has not told of too"""
    node: str = ""
    reason: str = ""
    message: str = ""
    delete_at: datetime | None = None
    """when it is, or was, to be gone"""
    delete_grace: int = 0
    """seconds between the wish to delete it and `delete_at`"""
    grace_seconds: int = 30
    notes: str = ""
    """lines that its log begins with"""
    scheduled: Condition | None = None
    unready: Condition | None = None
    """ContainersReady, while it is false in a pod that has not started"""
    disruption: Condition | None = None
    """DisruptionTarget, once it is true"""

    @property
    def main(self) -> Container:
        """The primary container."""
        for container in self.containers:
            if container.name == self.primary and not container.init:
                return container
        return Container(self.primary)

    @property
    def uploader(self) -> Container | None:
        """The helper whose end is the end of an attempt whose program ended well."""
        return next((each for each in self.containers if each.init and each.name == UPLOADER), None)

    @property
    def over(self) -> bool:
        """Whether the attempt has ended, whatever containers still run, or never will start."""
        if self.phase in ("Succeeded", "Failed"):
            return True
        main, uploader = self.main, self.uploader
        ended = main.state is State.TERMINATED
        return ended and (main.code != 0 or uploader is None or uploader.state is State.TERMINATED)

    @property
    def held_up(self) -> bool:
        """Whether the uploader waits for containers that nobody ends: it begins when all others have ended."""
        running = (each.state is not State.TERMINATED for each in self.containers if not each.init)
        return not self.over and self.main.state is State.TERMINATED and any(running)

    @property
    def all_over(self) -> bool:
        """Whether no container runs any more."""
        return self.phase in ("Succeeded", "Failed") or all(
            container.state is State.TERMINATED for container in self.containers
        )


def kept(pod: Mapping[str, Any]) -> Pod | None:
    """The pod in short; None for one that was not made for an attempt."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    attempt = labels.attempt_of(metadata.get("labels") or {})
    if attempt is None:
        return None
    mains: Sequence[Mapping[str, Any]] = spec.get("containers") or ()
    annotations = metadata.get("annotations") or {}
    primary = annotations.get(labels.PRIMARY_CONTAINER) or (mains[0]["name"] if mains else "")
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    grace, phase = spec.get("terminationGracePeriodSeconds"), intern(status.get("phase") or "Pending")
    return Pod(
        attempt=attempt,
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        version=metadata.get("resourceVersion", ""),
        created_at=moment(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC),
        phase=phase,
        primary=intern(primary),
        containers=(*_containers(spec, status, init=True), *_containers(spec, status, init=False)),
        node=intern(spec.get("nodeName") or ""),
        reason=intern(status.get("reason") or ""),
        message=_short(status.get("message")),
        delete_at=moment(metadata.get("deletionTimestamp")),
        delete_grace=metadata.get("deletionGracePeriodSeconds") or 0,
        grace_seconds=30 if grace is None else grace,
        notes=intern(_short(annotations.get(labels.NOTES))),
        scheduled=_condition(conditions.get("PodScheduled")),
        unready=_only(_condition(conditions.get("ContainersReady")), true=False) if phase == "Pending" else None,
        disruption=_only(_condition(conditions.get("DisruptionTarget")), true=True),
    )


def moment(text: str | None) -> datetime | None:
    """A time of the API; the zero times that some container runtimes tell are none."""
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.year > 1970 else None


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any], *, init: bool) -> Iterator[Container]:
    told = {each["name"]: each for each in status.get("initContainerStatuses" if init else "containerStatuses") or ()}
    for each in spec.get("initContainers" if init else "containers") or ():
        states = (told.get(each["name"]) or {}).get("state") or {}
        state = next((known for known in State if known.value and states.get(known.value) is not None), State.UNKNOWN)
        detail = states.get(state.value) or {}
        limits = (each.get("resources") or {}).get("limits") or {}
        yield Container(
            name=intern(each["name"]),
            init=init,
            sidecar=init and each.get("restartPolicy") == "Always",
            state=state,
            reason=intern(detail.get("reason") or ""),
            message=_short(detail.get("message")),
            code=detail.get("exitCode") or 0,
            started_at=moment(detail.get("startedAt")),
            ended_at=moment(detail.get("finishedAt")),
            memory_limit=intern(str(limits.get("memory") or "")),
        )


def _condition(told: Mapping[str, Any] | None) -> Condition | None:
    if told is None:
        return None
    return Condition(
        true=told.get("status") == "True",
        reason=intern(told.get("reason") or ""),
        message=_short(told.get("message")),
        at=moment(told.get("lastTransitionTime")),
    )


def _only(condition: Condition | None, *, true: bool) -> Condition | None:
    return condition if condition and condition.true is true else None


def _short(message: str | None) -> str:
    text = (message or "").strip()
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"
