"""A short-lived pod that calls the manager, as every task's pod will have to.

Its container asks `<task endpoint>/healthz` and leaves one line of answer as its termination message, so that
no log need be read. `pod` builds it, `judge` reads it; doctor/way_back.py makes, watches and deletes it.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DEADLINE_SECONDS = 60
"""after which the kubelet ends it, whatever becomes of us"""
ANSWER_SECONDS = 5

_CALL = f"""\
import socket, sys, urllib.error, urllib.request
def call(url):
    try:
        with urllib.request.urlopen(url, timeout={ANSWER_SECONDS}) as answer:
            return "healthy" if answer.read(16).strip() == b"OK" else "stranger 200"
    except urllib.error.HTTPError as error:
        return f"stranger {{error.code}}" if error.code != 503 else "unhealthy"
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror):
            return "unresolved"
        if isinstance(reason, ConnectionRefusedError):
            return "refused"
        return "silent" if isinstance(reason, TimeoutError) else f"unreachable {{reason}}"
    except Exception as error:
        return f"stranger {{type(error).__name__}}"
with open("/dev/termination-log", "w") as answer:
    answer.write(call(sys.argv[1]))
"""

Verdict = Literal["waiting", "ok", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    """refused: nothing listens there"""
    text: str


def pod(url: str, *, image: str, image_pull_secrets: Sequence[str]) -> dict[str, Any]:
    """Fits into the strictest namespace: Pod Security "restricted", and a quota that wants requests and limits."""
    container = {
        "name": "call",
        "image": image,
        "command": ["python3", "-c", _CALL, url],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65534,
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"flyte-manager-doctor-{secrets.token_hex(4)}",
            "labels": {"app.kubernetes.io/name": "flyte-manager-doctor"},
        },
        "spec": {
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "automountServiceAccountToken": False,
            "containers": [container],
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": name} for name in image_pull_secrets],
            "restartPolicy": "Never",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 0,
        },
    }


def judge(pod: Mapping[str, Any], endpoint: str) -> Judgement:
    """What the pod tells: its answer, else why it doesn't run."""
    status = pod.get("status") or {}
    container: Mapping[str, Any] = next(iter(status.get("containerStatuses") or ()), {})
    state = container.get("state") or {}
    if "terminated" in state:
        return _answer(state["terminated"], endpoint)
    if status.get("phase") == "Failed":
        return Judgement("failed", _words(status, "its pod failed"))
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _STUCK:
        return Judgement("failed", f"its pod can't start: {_words(waiting)}: {_STUCK[waiting['reason']]}")
    return Judgement("waiting", _words(waiting) if waiting else _unscheduled(status))


_IMAGE = "let manager.kubernetes.helperImage name an image that the nodes can pull, and imagePullSecrets the key to it"
_STUCK = {
    "ErrImagePull": _IMAGE,
    "ImagePullBackOff": _IMAGE,
    "ErrImageNeverPull": _IMAGE,
    "InvalidImageName": _IMAGE,
    "CreateContainerConfigError": "mend what it names",
    "CreateContainerError": "let manager.kubernetes.helperImage name this manager's image, which has a python3",
    "RunContainerError": "let manager.kubernetes.helperImage name this manager's image, which has a python3",
}

_ADVICE = "set manager.kubernetes.taskEndpoint to an address at which pods reach this manager"


def _answer(ended: Mapping[str, Any], endpoint: str) -> Judgement:
    word, _, detail = str(ended.get("message") or "").strip().partition(" ")
    if word == "healthy":
        return Judgement("ok", f"a pod called {endpoint}/healthz and was answered")
    said = {
        "unhealthy": f"{endpoint} answers that it isn't well: look at the manager's log",
        "stranger": f"something else than a manager answers at {endpoint} ({detail}): {_ADVICE}",
        "unresolved": f"pods can't resolve the name in {endpoint}: {_ADVICE}",
        "silent": f"{endpoint} doesn't answer pods within {ANSWER_SECONDS} s (a firewall, another network): {_ADVICE}",
        "unreachable": f"pods can't reach {endpoint} ({detail}): {_ADVICE}",
    }
    if word == "refused":
        return Judgement("refused", f"nothing listens at {endpoint}, as pods see it")
    return Judgement("failed", said.get(word) or f"its pod ended without an answer: {_words(ended)}")


def _unscheduled(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _words(condition)
    return str(status.get("phase") or "Pending")


def _words(told: Mapping[str, Any], otherwise: str = "no reason is given") -> str:
    return ": ".join(str(told[name]) for name in ("reason", "message") if told.get(name)) or otherwise
