"""Task type `core-sleep`: a task without a workload, by which upstream's control plane is measured. Its one input says
how long it takes."""

from flyteidl2.core import tasks_pb2, types_pb2
from flyteidl2.task import common_pb2

from flyte_manager.domain.errors import Invalid
from flyte_manager.wire.times import seconds

SLEEP = "core-sleep"


class BadSleep(Invalid):
    """task type core-sleep {problem}"""


def sleep_input(template: tasks_pb2.TaskTemplate) -> str:
    """The input that says how long; "" of another type of task. Raises BadSleep."""
    if template.type != SLEEP:
        return ""
    inputs = template.interface.inputs.variables
    if len(inputs) != 1:
        raise BadSleep(problem=f"needs exactly one input, a duration: the task has {len(inputs)}")
    if inputs[0].value.type.simple != types_pb2.DURATION:
        raise BadSleep(problem=f"needs a duration: input {inputs[0].key!r} has another type")
    if template.interface.outputs.variables:
        raise BadSleep(problem="gives nothing back: remove the outputs of the task")
    return inputs[0].key


def sleep_seconds(inputs: common_pb2.Inputs, name: str) -> float:
    """Raises BadSleep."""
    value = next((each.value for each in inputs.literals if each.name == name), None)
    if value is None or value.scalar.primitive.WhichOneof("value") != "duration":
        raise BadSleep(problem=f"needs a duration as input {name!r}")
    asked = seconds(value.scalar.primitive.duration)
    if asked < 0:
        raise BadSleep(problem=f"can't sleep for {asked:g} s: input {name!r} must not be negative")
    return asked
