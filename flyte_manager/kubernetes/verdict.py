"""What a pod's state means for its attempt. Pure: a pod, the time and some patience make an Observation.

    not scheduled ─▶ QUEUED, WAITING_FOR_RESOURCES      with the scheduler's words
    scheduled     ─▶ INITIALIZING                       with the kubelet's words; what can't get better, or did not for
                                                        a while, is a failure of a pod that is alive: it must be stopped
    primary runs  ─▶ RUNNING                            deleted or not, until it has ended
    primary ended ─▶ EXITED                             whatever its sidecars do, but for the uploader of its results;
                                                        `endings.py` says why
    node silent   ─▶ VANISHED                           some time after the pod should have been gone

Init containers come before the others: these can't start before those have ended.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flyte_manager.domain.attempts import ErrorKind, Failure, Observation, Presence, Transition
from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes import endings
from flyte_manager.kubernetes.pod_status import Container, Pod, State, kept


@dataclass(frozen=True, slots=True)
class VerdictSettings:
    """How long a pod may be in trouble before its attempt fails, in seconds."""

    pending_seconds: float = 0.0
    """until it runs, from its creation; 0 = for ever"""
    image_pull_seconds: float = 180.0
    create_seconds: float = 180.0
    config_seconds: float = 0.0
    """a ConfigMap or Secret that it names isn't there"""
    node_lost_seconds: float = 60.0
    """after it should have been gone"""


@dataclass(frozen=True, slots=True)
class Judgement:
    observation: Observation
    again: float | None = None
    """seconds after which time alone may change it"""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a container's reason to wait means once the patience is over."""

    patience: Callable[[VerdictSettings], float]
    advice: str
    kind: ErrorKind = ErrorKind.USER
    recoverable: bool = False


_AT_ONCE: Callable[[VerdictSettings], float] = lambda _: 0.0  # noqa: E731
_NAME_ADVICE = "check the name of the task's image"
_RULES: Mapping[str, _Rule] = {
    "ImagePullBackOff": _Rule(
        lambda settings: settings.image_pull_seconds,
        "check the image's name and tag, that its registry can be reached from the node, and the pull secrets of the "
        "pod's service account",
        recoverable=True,
    ),
    "InvalidImageName": _Rule(_AT_ONCE, _NAME_ADVICE),
    "ErrImageNeverPull": _Rule(_AT_ONCE, "put the image on the node, or let the pod's imagePullPolicy allow pulling"),
    "CreateContainerConfigError": _Rule(
        lambda settings: settings.config_seconds,
        "make the ConfigMap or Secret that it names, in the pod's namespace, or correct the pod template",
    ),
    "CreateContainerError": _Rule(
        lambda settings: settings.create_seconds, "correct the container's command, volumes or security context"
    ),
}
_OTHER_RULE = _Rule(
    lambda settings: settings.create_seconds, "look at the node and at the pod's events", ErrorKind.SYSTEM, True
)
_ON_THE_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
_BUSY_KUBELET = ("failed to sync", "not yet been read", "timed out", "timeout", "connection refused")
"""in CreateContainerConfigError: it could not look, and will look again; that something is missing it says otherwise"""
_BUSY_REGISTRY = ("toomanyrequests", "too many requests", "429")


def read(pod: Mapping[str, Any], *, now: datetime, settings: VerdictSettings) -> Observation:
    """The same as `observe`, of a whole pod. One that was not made for an attempt is ABSENT."""
    short = kept(pod)
    return Observation(Presence.ABSENT) if short is None else observe(short, now=now, settings=settings)


def observe(pod: Pod, *, now: datetime, settings: VerdictSettings) -> Observation:
    return judge(pod, now=now, settings=settings).observation


def judge(pod: Pod, *, now: datetime, settings: VerdictSettings) -> Judgement:
    if pod.over:
        ending = endings.ending(pod, now)
        started_at = ending.exit.started_at if ending.exit else None
        return Judgement(
            Observation(
                Presence.EXITED,
                started_at=started_at,
                exit=ending.exit,
                failure=ending.failure,
                transitions=tuple(_transitions(pod)),
            )
        )
    if pod.delete_at and pod.node:
        silent = (now - pod.delete_at).total_seconds()
        if silent >= settings.node_lost_seconds:
            return Judgement(_lost(pod))
        return replace(_alive(pod, now, settings), again=settings.node_lost_seconds - silent)
    return _alive(pod, now, settings)


def _alive(pod: Pod, now: datetime, settings: VerdictSettings) -> Judgement:
    main = pod.main
    if main.state in (State.RUNNING, State.TERMINATED):
        reason = f"node {pod.node} does not answer" if pod.phase == "Unknown" else ""
        return Judgement(
            Observation(Presence.ALIVE, started_at=main.started_at, reason=reason, transitions=tuple(_transitions(pod)))
        )
    if pod.scheduled is None or not pod.scheduled.true:
        return _or_too_late(pod, _unscheduled(pod), now, settings)
    return _or_too_late(pod, _initializing(pod, now, settings), now, settings)


def _unscheduled(pod: Pod) -> Judgement:
    told = pod.scheduled
    if told is None:
        return Judgement(Observation(Presence.ALIVE, phase=Phase.QUEUED))
    return Judgement(
        Observation(
            Presence.ALIVE,
            phase=Phase.WAITING_FOR_RESOURCES,
            reason=told.message or told.reason,
            transitions=tuple(_transitions(pod)),
        )
    )


def _initializing(pod: Pod, now: datetime, settings: VerdictSettings) -> Judgement:
    container = _holding_up(pod)
    reason, failure, again = "ContainerCreating", None, None
    if container and container.state is State.RUNNING:
        reason = f"init container {container.name!r} runs"
    elif container:
        reason = f"{container.reason}: {container.message}" if container.message else container.reason
        if container.reason != "ErrImagePull":  # it is tried again; ImagePullBackOff follows
            waited = (now - _waits_since(pod, container)).total_seconds()
            patience = _rule(container).patience(settings)
            if waited >= patience:
                failure = _stuck(container, waited)
            else:
                again = patience - waited
    seen = Observation(
        Presence.ALIVE,
        phase=Phase.INITIALIZING,
        reason=reason,
        failure=failure,
        transitions=tuple(_transitions(pod)),
    )
    return Judgement(seen, again)


def _holding_up(pod: Pod) -> Container | None:
    """The container for which the start of the primary one waits, when there is something to tell of it."""
    for container in pod.containers:
        if container.init and container.state is State.RUNNING and not container.sidecar:
            return container
        if container.init and container.state is State.WAITING and container.reason not in _ON_THE_WAY:
            return container
    others = sorted((each for each in pod.containers if not each.init), key=lambda each: each.name != pod.primary)
    waiting = (each for each in others if each.state is State.WAITING and each.reason not in _ON_THE_WAY)
    return next(waiting, None)


def _waits_since(pod: Pod, container: Container) -> datetime:
    """Since when the container could have started: init containers before it may have taken long."""
    since = (pod.unready and pod.unready.at) or (pod.scheduled and pod.scheduled.at) or pod.created_at
    for before in pod.containers:
        if before == container:
            break
        if before.init and before.ended_at:
            since = max(since, before.ended_at)
    return since


def _rule(container: Container) -> _Rule:
    if container.reason == "CreateContainerConfigError" and any(sign in container.message for sign in _BUSY_KUBELET):
        return _OTHER_RULE
    return _RULES.get(container.reason, _OTHER_RULE)


def _stuck(container: Container, waited: float) -> Failure:
    rule = _rule(container)
    words = container.message or container.reason
    after = f" after {waited:.0f} s" if waited >= 1 and rule.patience is not _AT_ONCE else ""
    busy = container.reason == "ImagePullBackOff" and any(sign in words.lower() for sign in _BUSY_REGISTRY)
    kind, advice = (
        (ErrorKind.SYSTEM, "the registry limits how often it is asked: log in to it, or use a mirror")
        if busy
        else (rule.kind, rule.advice)
    )
    what = "init container" if container.init else "container"
    message = f"{what} {container.name!r} does not start{after}: {words} ({advice})"
    return Failure(kind, container.reason, message, recoverable=rule.recoverable)


def _or_too_late(pod: Pod, judged: Judgement, now: datetime, settings: VerdictSettings) -> Judgement:
    """A SYSTEM failure instead, when the pod has not run for too long. A running init container is no waiting."""
    seen, limit = judged.observation, settings.pending_seconds
    works = any(each.init and not each.sidecar and each.state is State.RUNNING for each in pod.containers)
    if limit <= 0 or seen.failure or works:
        return judged
    left = limit - (now - pod.created_at).total_seconds()
    if left > 0:
        return replace(judged, again=left if judged.again is None else min(left, judged.again))
    message = (
        f"the pod does not run {limit:.0f} s after its creation: {seen.reason or 'the scheduler has not looked at it'} "
        "(ask for less, add nodes, or wait longer)"
    )
    failure = Failure(ErrorKind.SYSTEM, "PodPendingTimeout", message)
    return Judgement(replace(seen, failure=failure))


def _lost(pod: Pod) -> Observation:
    main = pod.main
    message = f"node {pod.node} does not answer any more; the pod should have been gone since {pod.delete_at:%H:%M:%S}"
    if pod.disruption and pod.disruption.message:
        message += f" ({pod.disruption.message})"
    failure = Failure(ErrorKind.SYSTEM, "NodeLost", message)
    return Observation(
        Presence.VANISHED, started_at=main.started_at, failure=failure, transitions=tuple(_transitions(pod))
    )


def _transitions(pod: Pod) -> Iterator[Transition]:
    """The times of phases that the pod tells."""
    told = pod.scheduled
    if told and told.at and told.true:
        yield Transition(Phase.INITIALIZING, told.at)
    elif told and told.at:
        yield Transition(Phase.WAITING_FOR_RESOURCES, told.at)
    if pod.main.started_at:
        yield Transition(Phase.RUNNING, pod.main.started_at)
