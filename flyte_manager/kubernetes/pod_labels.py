"""A pod's labels and annotations: the platform's, the task's, the run's, and over them all our own."""

import hashlib
import re
from collections.abc import Mapping

from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes import labels as own

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"

_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST = 63


class IllegalLabel(LaunchRefused):
    """label {name!r} = {value!r} is not one that Kubernetes takes: {rule}. Change it in the run or in the pod
    template."""


class IllegalAnnotation(LaunchRefused):
    """annotation {name!r} is not one that Kubernetes takes: {rule}. Change it in the run or in the pod template."""


def pod_labels(attempt: AttemptId, task: str, given: Mapping[str, str]) -> dict[str, str]:
    """Ours over those that were given. Raises IllegalLabel."""
    check_given(given, {})
    action = attempt.action
    plain = {
        "organization": "flyte",
        "project": action.run.project,
        "domain": action.run.domain,
        "run": action.run.name,
        "action": action.name,
        "attempt": str(attempt.number),
        "task-name": task,
    }
    made = {name: as_value(value) for name, value in {**plain, **own.of_attempt(attempt)}.items() if value}
    return {**given, **made}


def pod_annotations(primary: str, given: Mapping[str, str]) -> dict[str, str]:
    """Raises IllegalAnnotation."""
    check_given({}, given)
    return {SAFE_TO_EVICT: "false", **given, own.PRIMARY_CONTAINER: primary}


def check_given(labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    """Raises IllegalLabel, IllegalAnnotation."""
    for name, value in labels.items():
        if not _legal_name(name):
            raise IllegalLabel(name=name[:80], value=value[:80], rule=_NAME_RULE)
        if not legal_value(value):
            raise IllegalLabel(name=name[:80], value=value[:80], rule=_VALUE_RULE)
    for name in annotations:
        if not _legal_name(name):
            raise IllegalAnnotation(name=name[:80], rule=_NAME_RULE)


def legal_value(value: str) -> bool:
    return _VALUE.fullmatch(value) is not None


def as_value(text: str) -> str:
    """The text, or what is left of it in a label; two texts never become the same one."""
    if legal_value(text):
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    left = re.sub(r"[^-A-Za-z0-9_.]+", "-", text)[: _LONGEST - len(digest) - 1].strip("-_.")
    return f"{left}-{digest}" if left else digest


_NAME_RULE = "its name must be 1 to 63 letters, digits, -, _ and ., after an optional DNS name and a slash"
_VALUE_RULE = "its value must be at most 63 letters, digits, -, _ and ., a letter or digit at both ends"


def _legal_name(name: str) -> bool:
    prefix, slash, rest = name.rpartition("/")
    return _NAME.fullmatch(rest) is not None and (not slash or _PREFIX.fullmatch(prefix) is not None)
