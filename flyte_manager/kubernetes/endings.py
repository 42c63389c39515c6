"""Why a pod ended: what its task did (the exit code, which `error.pb` may explain), or what was done to it.

Whoever ended well succeeded, unless it was short of memory: what else happened to the pod comes after that. Then what
others did to the pod counts (its node, its deletion), then what the container runtime says, and last the exit code.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from flyte_manager.domain.attempts import ErrorKind, Exit, Failure, StopReason
from flyte_manager.kubernetes.data_files import DOWNLOADER, UPLOADER
from flyte_manager.kubernetes.pod_status import Container, Pod, State

SIGKILL = 9
_MOST_SIGNALS = 64
_TAKEN_AWAY = frozenset(
    {
        "Shutdown",
        "Terminated",
        "NodeShutdown",
        "NodeAffinity",
        "NodeLost",
        "Preempting",
        "Preempted",
        "UnexpectedAdmissionError",
        "UnknownError",
    }
)
_UNKNOWN_END = frozenset({"UnknownError", "ContainerStatusUnknown"})
_NOT_STARTED = frozenset({"StartError", "ContainerCannotRun"})
_NO_SUCH_PROGRAM = ("executable file not found", "no such file or directory", "permission denied", "exec format error")


@dataclass(frozen=True, slots=True)
class Ending:
    """`exit` is None when the primary container never ran; `failure` is None when only exit code and files tell."""

    exit: Exit | None
    failure: Failure | None


def ending(pod: Pod, now: datetime) -> Ending:
    """Of a pod that is over."""
    ended = _culprit(pod)
    exit_ = _exit(pod, now) if ended is pod.main else _helper_exit(ended)
    for explain in (_out_of_memory, _well, _too_long, _taken_away, _deleted, _broken):
        found = explain(pod, ended)
        if found is not None:
            return Ending(exit_, found.failure)
    return Ending(exit_, None if exit_ else _never_ran(pod))


@dataclass(frozen=True, slots=True)
class _Found:
    failure: Failure | None = None


def _culprit(pod: Pod) -> Container:
    """The container whose end ended the attempt: an init container or the uploader that failed, else the primary."""
    for container in pod.containers:
        if container.init and not container.sidecar and container.state is State.TERMINATED and container.code:
            return container
    main, uploader = pod.main, pod.uploader
    failed = uploader and uploader.state is State.TERMINATED and uploader.code
    return uploader if uploader and failed and main.state is State.TERMINATED and main.code == 0 else main


def _exit(pod: Pod, now: datetime) -> Exit | None:
    main, uploader = pod.main, pod.uploader
    ended_at = max((each.ended_at for each in (main, uploader) if each and each.ended_at), default=now)
    started_at = min(main.started_at or ended_at, ended_at)
    well = main.code == 0 and (main.state is State.TERMINATED or pod.phase == "Succeeded")
    if pod.reason == "DeadlineExceeded" and not well:
        return Exit(-SIGKILL, started_at, ended_at, reason=StopReason.TIMEOUT, detail=pod.message)
    ran = main.state is State.TERMINATED and (main.started_at or main.reason not in _NOT_STARTED | _UNKNOWN_END)
    if not ran and not well:
        return None
    return Exit(process_code(main.code), started_at, ended_at, detail=main.message)


def _helper_exit(ended: Container) -> Exit | None:
    """Of one of Flyte's own helpers, which tell in `error.pb` why, as the task does."""
    if ended.name not in (UPLOADER, DOWNLOADER) or not ended.started_at or not ended.ended_at:
        return None
    detail = f"{_name(ended)}: {ended.message}" if ended.message else _name(ended)
    return Exit(process_code(ended.code), ended.started_at, ended.ended_at, detail=detail)


def process_code(code: int) -> int:
    """As a process tells it: negative for a signal, which containers tell as 128 more."""
    return 128 - code if 128 < code <= 128 + _MOST_SIGNALS else code


def _out_of_memory(pod: Pod, ended: Container) -> _Found | None:
    if ended.reason != "OOMKilled":
        return None
    limit = (
        f"its memory limit is {ended.memory_limit}: raise resources.memory"
        if ended.memory_limit
        else f"it has no memory limit of its own and node {pod.node} had no more: ask for memory in resources"
    )
    return _Found(Failure(ErrorKind.USER, "OOM", f"{_name(ended)} was killed for want of memory; {limit}"))


def _well(pod: Pod, ended: Container) -> _Found | None:
    return _Found() if ended.code == 0 and (ended.state is State.TERMINATED or pod.phase == "Succeeded") else None


def _too_long(pod: Pod, _: Container) -> _Found | None:
    return _Found() if pod.reason == "DeadlineExceeded" else None  # the exit says so


def _taken_away(pod: Pod, ended: Container) -> _Found | None:
    """By its node or by the cluster."""
    disruption = pod.disruption
    if disruption and disruption.at and ended.ended_at and ended.ended_at < disruption.at:
        return None  # it had failed by itself before
    words = pod.message or (disruption.message if disruption else "") or pod.reason
    if pod.reason == "Evicted":
        return _Found(_evicted(pod, words))
    full = pod.reason.startswith("OutOf")  # OutOfcpu and such: the node had no room any more when the pod came to it
    if pod.reason in _TAKEN_AWAY or full or disruption:
        why = pod.reason or (disruption.reason if disruption else "")
        return _Found(_interrupted(f"the pod was taken from node {pod.node}: {why}: {words}"))
    return None


def _evicted(pod: Pod, words: str) -> Failure:
    said = words.lower()
    if ("ephemeral" in said or "emptydir" in said) and "low on resource" not in said:
        message = f"the task filled its disk: {words} (write less, or ask for more ephemeral storage)"
        return Failure(ErrorKind.USER, "EphemeralStorageExceeded", message)
    advice = "ask for as much memory and ephemeral storage as the task uses"
    return Failure(ErrorKind.SYSTEM, "Evicted", f"node {pod.node} evicted the pod: {words} ({advice})")


def _deleted(pod: Pod, ended: Container) -> _Found | None:
    """By somebody, before it had ended."""
    if pod.delete_at is None:
        return None
    deleted_at = pod.delete_at - timedelta(seconds=pod.delete_grace)
    if ended.ended_at and ended.ended_at < deleted_at:
        return None
    return _Found(deleted_externally(pod.name))


def deleted_externally(pod: str) -> Failure:
    message = f"pod {pod} was deleted from outside this manager before the task had ended"
    return Failure(ErrorKind.SYSTEM, "ResourceDeletedExternally", message)


def removed(pod: Pod) -> Failure:
    """Why a pod is gone that had not ended when it was last seen."""
    if pod.disruption is None:
        return deleted_externally(pod.name)
    why = pod.disruption.message or pod.disruption.reason
    return _interrupted(f"the pod was taken from node {pod.node}: {why}")


def _broken(pod: Pod, ended: Container) -> _Found | None:
    """What the container runtime, or an init container, did."""
    if ended.state is not State.TERMINATED:
        return None
    words = ended.message or ended.reason
    if ended.reason in _NOT_STARTED:
        theirs = any(sign in words.lower() for sign in _NO_SUCH_PROGRAM)
        kind = ErrorKind.USER if theirs else ErrorKind.SYSTEM
        advice = "the command must exist in the task's image" if theirs else f"look at node {pod.node}"
        message = f"{_name(ended)} could not be started: {words} ({advice})"
        return _Found(Failure(kind, ended.reason, message, recoverable=not theirs))
    if ended.reason in _UNKNOWN_END:
        return _Found(_interrupted(f"how {_name(ended)} ended is not known: {words}"))
    if process_code(ended.code) == -SIGKILL:
        message = f"{_name(ended)} was killed on node {pod.node}, not for its memory limit and not by this manager"
        return _Found(_interrupted(message))
    if ended.init and ended.name not in (UPLOADER, DOWNLOADER):
        message = f"{_name(ended)} ended with exit code {ended.code}: {words}; see its log"
        return _Found(Failure(ErrorKind.USER, "InitContainerFailed", message))
    if pod.uploader and ended is pod.main and ended.code:
        # its error.pb would only tell that outputs are missing: the uploader wrote it, who can't know of the exit code
        message = f"{_name(ended)} ended with exit code {process_code(ended.code)}; see its log"
        return _Found(Failure(ErrorKind.USER, "ProcessDied", message))
    return None


def _never_ran(pod: Pod) -> Failure:
    words = ": ".join(word for word in (pod.reason, pod.message) if word) or "it says nothing more"
    return _interrupted(f"the pod {pod.phase.lower()} before the task ran: {words}")


def _interrupted(message: str) -> Failure:
    return Failure(ErrorKind.SYSTEM, "Interrupted", message)


def _name(container: Container) -> str:
    return f"{'init container' if container.init else 'container'} {container.name!r}"
