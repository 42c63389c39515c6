"""Reads a TaskAction's spec, which anybody may have written. Nothing in it is trusted, and no damage raises."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from flyte_manager.domain.actions import Resource
from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.domain.ports import FoundAction
from flyte_manager.wire.taskactions import condition_problem, template_problem

TASK = "task"
CONDITION = "condition"

_OF_ALL = ("runName", "project", "domain", "actionName")
_OF_TASKS = ("taskType", "taskTemplate", "inputUri", "runOutputBase")
_OF_CONDITIONS = ("conditionSpec", "runOutputBase")

_NOT_INHERITED = ("flyte.org/", "kubectl.kubernetes.io/")
"""labels and annotations that are about this object alone"""

Raw = Mapping[str, Any]


def action_id(spec: Raw) -> ActionId:
    """Whose action it is, as it says; its names may be missing or illegal."""
    run = RunId(_text(spec, "project"), _text(spec, "domain"), _text(spec, "runName"))
    return ActionId(run, _text(spec, "actionName"))


def parent_name(spec: Raw) -> str:
    return _text(spec, "parentActionName")


def order(resource: Resource, spec: Raw, metadata: Raw) -> FoundAction:
    """The action that is asked for, or what is wrong with it in `problem`."""
    template, template_damage = _bytes(spec, "taskTemplate", template_problem)
    condition, condition_damage = _bytes(spec, "conditionSpec", condition_problem)
    is_condition = _text(spec, "actionType") == CONDITION
    interruptible = spec.get("interruptible")
    return FoundAction(
        resource=resource,
        id=action_id(spec),
        parent=parent_name(spec),
        condition=condition if is_condition else b"",
        template=b"" if is_condition else template,
        short_name=_text(spec, "shortName"),
        group=_text(spec, "group"),
        cache_key=_text(spec, "cacheKey"),
        input_uri=_text(spec, "inputUri"),
        base_uri=_text(spec, "runOutputBase").rstrip("/"),
        envs=_texts(spec, "envVars"),
        interruptible=interruptible if isinstance(interruptible, bool) else None,
        labels=_inherited(_texts(metadata, "labels")),
        annotations=_inherited(_texts(metadata, "annotations")),
        problem=_problem(spec) or (condition_damage if is_condition else template_damage),
    )


def _problem(spec: Raw) -> str:
    kind = _text(spec, "actionType")
    if kind not in ("", TASK, CONDITION):
        return f"actionType {kind[:60]!r} is not known: use {TASK} or {CONDITION}"
    needed = (*_OF_ALL, *(_OF_CONDITIONS if kind == CONDITION else _OF_TASKS))
    missing = [field for field in needed if not _text(spec, field)]
    if missing:
        return f"required spec fields are empty: [{' '.join(missing)}]"
    return ""


def _bytes(spec: Raw, field: str, problem: Callable[[bytes], str]) -> tuple[bytes, str]:
    """The bytes in a field, or what is wrong with them."""
    try:
        content = base64.b64decode(_text(spec, field), validate=True)
    except (binascii.Error, ValueError) as error:
        return b"", f"{field} is not base64: {error}"
    damage = problem(content)
    return (b"", f"{field} {damage}") if damage else (content, "")


def _text(spec: Raw, field: str) -> str:
    value = spec.get(field)
    return value if isinstance(value, str) else ""


def _texts(spec: Raw, field: str) -> dict[str, str]:
    values = spec.get(field)
    if not isinstance(values, Mapping):
        return {}
    return {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, str)}


def _inherited(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if not name.startswith(_NOT_INHERITED)}
