"""What a container asks for: CPU, memory, GPUs, disk, as requests and limits.

A task's own request and limit stand for each other where only one is given. Kinds that neither the task nor a template
mentions get the platform's request and no limit.
"""

from collections.abc import Mapping
from typing import Any

from flyteidl2.core import tasks_pb2

from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.domain.tasks import quantity
from flyte_manager.kubernetes.merging import Json

_Name = tasks_pb2.Resources.ResourceName
_NAMES = {
    _Name.CPU: "cpu",
    _Name.MEMORY: "memory",
    _Name.GPU: "gpu",
    _Name.EPHEMERAL_STORAGE: "ephemeral-storage",
    _Name.STORAGE: "ephemeral-storage",
}


class BadAmount(LaunchRefused):
    """{kind} of container {container!r}: {problem}."""


class LimitTooLow(LaunchRefused):
    """container {container!r} requests {request} of {kind}, but its limit is {limit}: raise the limit, or request
    less."""


class UnevenDevices(LaunchRefused):
    """container {container!r} requests {request} of {kind} and limits it to {limit}: of devices, both must be the
    same."""


def asked(resources: tasks_pb2.Resources) -> Json:
    """As a task's template says it."""
    return {
        "requests": {_NAMES[entry.name]: entry.value for entry in resources.requests if entry.name in _NAMES},
        "limits": {_NAMES[entry.name]: entry.value for entry in resources.limits if entry.name in _NAMES},
    }


def evened(resources: Mapping[str, Any], *, device: str) -> Json:
    """Request and limit stand for each other; `gpu`, as the SDK writes it into a pod, becomes the device's name."""
    requests = _named(resources.get("requests"), device)
    limits = _named(resources.get("limits"), device)
    return {**resources, "requests": {**limits, **requests}, "limits": {**requests, **limits}}


def named(resources: Mapping[str, Any], *, device: str) -> Json:
    """The same with the device's name for `gpu`."""
    given = {kind: _named(resources[kind], device) for kind in ("requests", "limits") if resources.get(kind)}
    return {**resources, **given}


def with_defaults(resources: Mapping[str, Any], defaults: Mapping[str, str]) -> Json:
    """With the platform's requests for what nobody mentioned; empty ones are none."""
    requests, limits = dict(resources.get("requests") or {}), dict(resources.get("limits") or {})
    missing = {kind: value for kind, value in defaults.items() if value and kind not in requests and kind not in limits}
    full = {**resources, "requests": {**missing, **requests}, "limits": limits}
    return {kind: value for kind, value in full.items() if value}


def check(resources: Mapping[str, Any], container: str) -> None:
    """Raises BadAmount, LimitTooLow, UnevenDevices."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    least = {kind: _amount(value, kind, container) for kind, value in requests.items()}
    most = {kind: _amount(value, kind, container) for kind, value in limits.items()}
    for kind in sorted(least.keys() & most.keys()):
        request, limit = least[kind], most[kind]
        if "/" in kind and request != limit:
            raise UnevenDevices(container=container, kind=kind, request=requests[kind], limit=limits[kind])
        if limit < request:
            raise LimitTooLow(container=container, kind=kind, request=requests[kind], limit=limits[kind])


def check_amount(value: str, kind: str, container: str) -> None:
    """Raises BadAmount."""
    _amount(value, kind, container)


def _amount(value: Any, kind: str, container: str) -> float:
    try:
        return quantity(str(value))
    except ValueError as error:
        raise BadAmount(kind=kind, container=container, problem=str(error)) from None


def _named(amounts: Any, device: str) -> Json:
    return {device if str(kind).lower() == "gpu" else str(kind): str(value) for kind, value in (amounts or {}).items()}
