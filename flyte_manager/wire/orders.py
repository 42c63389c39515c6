"""Requests for actions: QueueService and ActionsService send the same fields."""

import hashlib

from flyteidl2.actions import actions_service_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import queue_service_pb2, run_definition_pb2

from flyte_manager.domain.actions import TaskName, TaskSummary
from flyte_manager.domain.errors import Invalid, NotGiven
from flyte_manager.domain.ids import check_action_name
from flyte_manager.domain.orders import NewAction
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.wire.conditions import check_condition
from flyte_manager.wire.ids import action_id, action_name
from flyte_manager.wire.phases import phase_of
from flyte_manager.wire.plan import check_spec, summary
from flyte_manager.wire.times import moment


class TraceUnfinished(Invalid):
    """trace {name!r} is in phase {phase}: a trace is recorded when it is over, as SUCCEEDED or FAILED."""


def spec_digest(spec: task_definition_pb2.TaskSpec) -> tuple[str, bytes]:
    """The name under which a spec is kept, and its bytes."""
    content = spec.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest(), content


def new_action(asked: queue_service_pb2.EnqueueActionRequest | actions_service_pb2.Action) -> NewAction:
    """Raises an Invalid refusal that names what is missing or wrong."""
    if asked.parent_action_name:
        check_action_name(asked.parent_action_name)
    action = action_id(asked.action_id)
    order = NewAction(
        id=action,
        parent=action_name(asked.parent_action_name, action.run),
        kind=Kind.TASK,
        group=asked.group,
        input_uri=asked.input_uri,
        base_uri=asked.run_output_base,
    )
    match asked.WhichOneof("spec"):
        case "task":
            return _task(order, asked.task)
        case "trace":
            return _trace(order, asked.trace)
        case "condition":
            return _condition(order, asked.condition)
        case _:
            raise NotGiven(field="spec (task, trace or condition; conditions need _U_USE_ACTIONS=1 in the task)")


def _task(order: NewAction, task: run_definition_pb2.TaskAction) -> NewAction:
    check_spec(task.spec)
    digest, content = spec_digest(task.spec)
    return NewAction(
        id=order.id,
        parent=order.parent,
        kind=Kind.TASK,
        group=order.group,
        input_uri=order.input_uri,
        base_uri=order.base_uri,
        task=summary(task.spec),
        spec=content,
        spec_digest=digest,
        cache_key=task.cache_key.value,
    )


def _trace(order: NewAction, trace: run_definition_pb2.TraceAction) -> NewAction:
    phase = phase_of(trace.phase)
    if phase not in (Phase.SUCCEEDED, Phase.FAILED):
        raise TraceUnfinished(name=trace.name, phase=trace.phase)
    return NewAction(
        id=order.id,
        parent=order.parent,
        kind=Kind.TRACE,
        group=order.group,
        input_uri=order.input_uri,
        base_uri=order.base_uri,
        task=TaskSummary(TaskName(), short_name=trace.name),
        spec=trace.SerializeToString(deterministic=True),
        phase=phase,
        started_at=moment(trace.start_time) if trace.HasField("start_time") else None,
        ended_at=moment(trace.end_time) if trace.HasField("end_time") else None,
        output_uri=trace.outputs.output_uri,
    )


def _condition(order: NewAction, condition: run_definition_pb2.ConditionAction) -> NewAction:
    check_condition(condition)
    return NewAction(
        id=order.id,
        parent=order.parent,
        kind=Kind.CONDITION,
        group=order.group,
        input_uri=order.input_uri,
        base_uri=order.base_uri,
        task=TaskSummary(TaskName(), short_name=condition.name),
        spec=condition.SerializeToString(deterministic=True),
    )
