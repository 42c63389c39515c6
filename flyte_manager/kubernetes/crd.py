"""The custom resource definition of TaskAction: the one place where its schema is written.

    definition() ─▶ manifest() ─▶ `flyte-manager crd` ─▶ executor/config/crd/bases/flyte.org_taskactions.yaml

The schema takes every object that the Go executor's takes, and the same printer columns come in the same order; ours
adds the column Phase and four fields of `status`. Fields that it doesn't name are dropped by the API server.
"""

from collections.abc import Sequence
from typing import Any

import yaml

GROUP = "flyte.org"
VERSION = "v1"
KIND = "TaskAction"
PLURAL = "taskactions"
API_VERSION = f"{GROUP}/{VERSION}"
NAME = f"{PLURAL}.{GROUP}"
FILE = "executor/config/crd/bases/flyte.org_taskactions.yaml"
INSTALL = "flyte-manager crd | kubectl apply -f -"
"""What a user types when it is missing; in a source tree `kubectl apply -f` of FILE does the same."""

LONGEST_NAME = 30
"""of a run or an action in `spec`"""
LONGEST_SHORT_NAME = 63
LONGEST_GROUP = 256
LONGEST_CACHE_KEY = 256
LONGEST_MESSAGE = 32768
"""of a condition"""

_CONDITION_TYPE = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)
_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
_HEADER = f"""\
# Generated from flyte_manager/kubernetes/crd.py; a test compares them. Made anew by:
#   flyte-manager crd > {FILE}
"""

Schema = dict[str, Any]


def definition() -> Schema:
    """The CustomResourceDefinition as an object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "names": {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower()},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def manifest() -> str:
    """The definition as YAML."""
    return _HEADER + yaml.safe_dump(definition(), sort_keys=False, width=120)


def _columns() -> list[Schema]:
    condition = ".status.conditions[?(@.type=='{}')].{}".format
    return [
        _column("Phase", ".status.phase"),
        _column("Run", ".spec.runName"),
        _column("Action", ".spec.actionName"),
        _column("TaskType", ".spec.taskType"),
        _column("Status", condition("Progressing", "reason")),
        {**_column("Age", ".metadata.creationTimestamp"), "type": "date"},
        *(
            {**_column(each, condition(each, "status")), "priority": 1}
            for each in ("Progressing", "Succeeded", "Failed")
        ),
    ]


def _column(name: str, path: str) -> Schema:
    return {"name": name, "type": "string", "jsonPath": path}


def _schema() -> Schema:
    return _object(
        "TaskAction asks for one action of a run: a task to be run, or a condition to be answered.",
        {
            "apiVersion": _text("Version of this object's schema."),
            "kind": _text("TaskAction."),
            "metadata": {"type": "object"},
            "spec": _spec(),
            "status": _status(),
        },
        required=["spec"],
    )


def _spec() -> Schema:
    return _object(
        "What is asked for.",
        {
            "runName": _name("The run, unique within project and domain."),
            "project": _name("Project of the run.", longest=63),
            "domain": _name("Domain of the run: development, staging or production.", longest=63),
            "actionName": _name("The action, unique within its run; a0 is the run's first."),
            "parentActionName": _name("The action that called this one; none for the run's first."),
            "actionType": {**_text("What it is; a task where nothing is said."), "enum": ["task", "condition"]},
            "taskTemplate": _bytes("flyteidl2.core.TaskTemplate of a task."),
            "conditionSpec": _bytes("flyteidl2.workflow.ConditionAction of a condition."),
            "taskType": _text("Type of the task's template.", longest=63),
            "shortName": _text("The task's name for people.", longest=LONGEST_SHORT_NAME),
            "group": _text("Group of calls within the parent.", longest=LONGEST_GROUP),
            "cacheKey": _text("The user's part of the key under which outputs are cached.", longest=LONGEST_CACHE_KEY),
            "inputUri": _text("Where the inputs lie."),
            "runOutputBase": _text("The folder below which all actions of the run write."),
            "envVars": {
                "type": "object",
                "description": "Environment variables of the run.",
                "additionalProperties": {"type": "string"},
            },
            "interruptible": {
                "type": "boolean",
                "description": "Whether it may run where machines are taken away; else the task says so.",
            },
        },
        required=["actionName", "domain", "project", "runName"],
    )


def _status() -> Schema:
    return _object(
        "What has become of it, as the manager's record tells.",
        {
            "phase": _text(
                "Queued, WaitingForResources, Initializing, Running or Paused; Succeeded, Failed, TimedOut or Aborted."
            ),
            "message": _text("Why it waits, or why it ended so."),
            "podName": _text("The pod of the present attempt."),
            "recordDigest": _text("Tells the manager whether this status is the one that it wrote last."),
            "attempts": _int32("Number of the present attempt, from 1."),
            "systemFailures": _int32("How many attempts failed through no fault of the task."),
            "cacheStatus": _int32("flyteidl2.core.CatalogCacheStatus."),
            "conditions": _conditions(),
            "phaseHistory": _phase_history(),
            "errorState": _object(
                "Why it failed.",
                {
                    "code": _text("Class of the error."),
                    "kind": _text("USER or SYSTEM."),
                    "message": _text("The error's own words."),
                },
            ),
            "stateJson": _text("The state that StateService tells."),
            "pluginState": _bytes("Kept for objects of the Go executor."),
            "pluginStateVersion": {"type": "integer", "description": "Kept for objects of the Go executor."},
            "pluginPhase": _text("Kept for objects of the Go executor."),
            "pluginPhaseVersion": _int32("Kept for objects of the Go executor."),
            "signalValue": _bytes("flyteidl2.core.Literal: a condition's answer."),
            "signalledBy": _text("Who answered."),
            "signalledAt": _time("When it was answered."),
        },
    )


def _conditions() -> Schema:
    condition = _object(
        "One side of its state.",
        {
            "type": {**_text("Progressing, Succeeded or Failed.", longest=316), "pattern": _CONDITION_TYPE},
            "status": {**_text("Whether it holds."), "enum": ["True", "False", "Unknown"]},
            "reason": {**_name("Why, in a word.", longest=1024), "pattern": _REASON},
            "message": _text("Why, in a sentence.", longest=LONGEST_MESSAGE),
            "lastTransitionTime": _time("When status changed last."),
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "minimum": 0,
                "description": "The generation of spec that was looked at.",
            },
        },
        required=["lastTransitionTime", "message", "reason", "status", "type"],
    )
    return {
        "type": "array",
        "description": "Progressing, Succeeded and Failed.",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }


def _phase_history() -> Schema:
    entry = _object(
        "One phase of one attempt.",
        {
            "phase": _text("The phase."),
            "occurredAt": _time("When it began."),
            "message": _text("What there is to say of it."),
        },
        required=["occurredAt", "phase"],
    )
    return {"type": "array", "description": "All phases of all attempts, in order.", "items": entry}


def _object(description: str, properties: Schema, *, required: Sequence[str] = ()) -> Schema:
    schema: Schema = {"type": "object", "description": description, "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _text(description: str, *, longest: int = 0) -> Schema:
    schema: Schema = {"type": "string", "description": description}
    return {**schema, "maxLength": longest} if longest else schema


def _name(description: str, *, longest: int = LONGEST_NAME) -> Schema:
    return {**_text(description, longest=longest), "minLength": 1}


def _bytes(description: str) -> Schema:
    return {**_text(description), "format": "byte"}


def _time(description: str) -> Schema:
    return {**_text(description), "format": "date-time"}


def _int32(description: str) -> Schema:
    return {"type": "integer", "format": "int32", "description": description}
