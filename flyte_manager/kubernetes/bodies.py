"""Builds the TaskAction of an action from its rows. Pure.

What is only shown (short name, group) is cut to what the schema takes; what can't be told truly in it is refused.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyte_manager.domain.actions import Action, Resource, Run
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes import crd, labels, orders
from flyte_manager.wire.plan import RunSettings, run_settings
from flyte_manager.wire.taskactions import task_parts

ACTION_TYPE = "flyte.org/action-type"
IS_ROOT = "flyte.org/is-root"
RECORDED_BY = "flyte.org/recorded-by"
"""annotation of the TaskActions that this manager made"""

LARGEST = 1_000_000
"""bytes of JSON; etcd takes 1.5 MiB, and the status must fit too"""

Body = dict[str, Any]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(
    r"(?=.{1,317}$)([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class NameTooLong(LaunchRefused):
    """a TaskAction takes {kind} names of at most {longest} characters; {name!r} has {length}: use a shorter one."""


class IllegalObjectName(LaunchRefused):
    """action {action!r} can't be a TaskAction: Kubernetes takes names of a-z, 0-9, - and . only, a letter or digit at
    the ends, and {name!r} is none."""


class IllegalLabel(LaunchRefused):
    """{kind} {key!r} of the run is not legal in Kubernetes: {rule}."""


class ObjectTooLarge(LaunchRefused):
    """the TaskAction would have {size} bytes, {largest} fit: most of it is its {part}, {part_size} bytes; {advice}."""


@dataclass(frozen=True, slots=True)
class Making:
    """All that a TaskAction is made from."""

    action: Action
    run: Run
    spec: bytes
    """flyteidl2.task.TaskSpec of a task, ConditionAction of a condition"""
    parent: Resource | None


def object_name(action: ActionId) -> str:
    return f"{action.run.name}-{action.name}"


def other_name(action: ActionId) -> str:
    """For an action whose name was taken by another's: of another project, or of a run a-b beside an action b-c."""
    return f"{object_name(action)}-{hashlib.sha256(str(action).encode()).hexdigest()[:8]}"


def body(making: Making, name: str) -> Body:
    """Raises LaunchRefused when there can't be such a TaskAction."""
    action = making.action
    _check_names(action, name)
    settings = run_settings(making.run.run_spec)
    built: Body = {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "metadata": {
            "name": name,
            "labels": {**_legal_labels(settings.labels), **own_labels(action)},
            "annotations": {**_legal_annotations(settings.annotations), RECORDED_BY: "flyte-manager"},
        },
        "spec": _spec(making, settings),
    }
    if making.parent:
        built["metadata"]["ownerReferences"] = [_owned_by(making.parent)]
    _check_size(built)
    return built


def own_labels(action: Action) -> dict[str, str]:
    """By which a TaskAction is found, which nobody overrides."""
    return {
        **labels.of_action(action.id),
        ACTION_TYPE: _type(action),
        IS_ROOT: str(action.is_root).lower(),
    }


def _type(action: Action) -> str:
    return orders.CONDITION if action.kind is Kind.CONDITION else orders.TASK


def _owned_by(parent: Resource) -> Body:
    return {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "name": parent.name,
        "uid": parent.uid,
        "blockOwnerDeletion": True,
    }


def _spec(making: Making, settings: RunSettings) -> Body:
    action = making.action
    fields = {
        "runName": action.id.run.name,
        "project": action.id.run.project,
        "domain": action.id.run.domain,
        "actionName": action.id.name,
        "parentActionName": action.parent,
        "actionType": _type(action),
        "shortName": action.task.short_name[: crd.LONGEST_SHORT_NAME],
        "group": action.group[: crd.LONGEST_GROUP],
        "inputUri": action.input_uri,
        "runOutputBase": action.base_uri,
        # a part of a key would be another key
        "cacheKey": action.cache_key if len(action.cache_key) <= crd.LONGEST_CACHE_KEY else "",
        "envVars": dict(settings.envs),
        **_order(making),
    }
    given = {name: value for name, value in fields.items() if value}
    return given if settings.interruptible is None else {**given, "interruptible": settings.interruptible}


def _order(making: Making) -> Body:
    if making.action.kind is Kind.CONDITION:
        return {"conditionSpec": _base64(making.spec)}
    task = task_parts(making.spec)
    return {"taskTemplate": _base64(task.template), "taskType": task.type[: crd.LONGEST_SHORT_NAME]}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _check_names(action: Action, name: str) -> None:
    names = {"run": action.id.run.name, "action": action.id.name, "parent action": action.parent}
    for kind, each in names.items():
        if len(each) > crd.LONGEST_NAME:
            raise NameTooLong(kind=kind, name=each, length=len(each), longest=crd.LONGEST_NAME)
    if not _NAME.fullmatch(name):
        raise IllegalObjectName(action=action.id.name, name=name)


def _legal_labels(given: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in given.items():
        _check_key("label", key)
        if not _VALUE.fullmatch(value):
            rule = f"its value {value[:80]!r} must be at most 63 letters, digits, -, _ and ., alphanumeric at the ends"
            raise IllegalLabel(kind="label", key=key, rule=rule)
    return given


def _legal_annotations(given: Mapping[str, str]) -> Mapping[str, str]:
    for key in given:
        _check_key("annotation", key)
    return given


def _check_key(kind: str, key: str) -> None:
    if not _KEY.fullmatch(key):
        rule = "a key is at most 63 letters, digits, -, _ and ., maybe behind a domain and a slash"
        raise IllegalLabel(kind=kind, key=key[:80], rule=rule)


def _check_size(built: Body) -> None:
    size = len(json.dumps(built))
    if size <= LARGEST:
        return
    parts = {
        "taskTemplate": "make the task's definition smaller: data belongs into inputs, code into the bundle",
        "conditionSpec": "make the condition's description smaller",
        "envVars": "give the run fewer or shorter environment variables",
        "annotations": "give the run fewer or shorter annotations",
        "labels": "give the run fewer labels",
        "inputUri": "use a shorter URI",
    }
    sizes = {name: len(json.dumps(value)) for name, value in {**built["metadata"], **built["spec"]}.items()}
    part = max(parts, key=lambda name: sizes.get(name, 0))
    raise ObjectTooLarge(size=size, largest=LARGEST, part=part, part_size=sizes[part], advice=parts[part])
