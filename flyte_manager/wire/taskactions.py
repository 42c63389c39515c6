"""What a TaskAction's spec carries in the form of bytes."""

from dataclasses import dataclass

from flyteidl2.core import tasks_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.message import DecodeError

from flyte_manager.domain.errors import Invalid
from flyte_manager.wire.conditions import check_condition
from flyte_manager.wire.plan import parse_spec


@dataclass(frozen=True, slots=True)
class TaskParts:
    """What a TaskAction shows of a task's spec."""

    template: bytes
    """flyteidl2.core.TaskTemplate"""
    type: str
    short_name: str


def task_parts(spec: bytes) -> TaskParts:
    """Of a flyteidl2.task.TaskSpec. Raises InvalidSpec."""
    parsed = parse_spec(spec)
    template = parsed.task_template
    return TaskParts(template.SerializeToString(deterministic=True), template.type, parsed.short_name)


def template_problem(template: bytes) -> str:
    """Why these bytes name no task; empty when they do."""
    try:
        parsed = tasks_pb2.TaskTemplate.FromString(template)
    except DecodeError:
        return "is no flyteidl2.core.TaskTemplate"
    return "" if parsed.id.name else "names no task: its id.name is empty"


def condition_problem(spec: bytes) -> str:
    """Why these bytes are no condition that can be answered; empty when they are."""
    try:
        check_condition(run_definition_pb2.ConditionAction.FromString(spec))
    except DecodeError:
        return "is no flyteidl2.workflow.ConditionAction"
    except Invalid as refusal:
        return f"can't be answered: {refusal}"
    return ""
