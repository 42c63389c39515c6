"""Conditions and the signals that answer them."""

from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_manager.domain.errors import Invalid
from flyte_manager.wire.times import seconds

_TYPES = {
    types_pb2.BOOLEAN: ("bool", "boolean"),
    types_pb2.INTEGER: ("int", "integer"),
    types_pb2.FLOAT: ("float", "float_value"),
    types_pb2.STRING: ("str", "string_value"),
}
_PAYLOADS = {
    "bool_value": "boolean",
    "int_value": "integer",
    "float_value": "float_value",
    "string_value": "string_value",
}


class BadConditionType(Invalid):
    """condition {name!r} has a type that can't be signalled: use bool, int, float or str."""


class WrongSignal(Invalid):
    """condition {name!r} takes a value of type {wanted}; {given}."""


def check_condition(condition: run_definition_pb2.ConditionAction) -> None:
    """Raises BadConditionType."""
    if condition.type.WhichOneof("type") != "simple" or condition.type.simple not in _TYPES:
        raise BadConditionType(name=condition.name)


def timeout_seconds(spec: bytes) -> float:
    """How long the condition waits for its signal; 0 = for ever, as below it (run_definition.proto: negative values are
    ignored)."""
    return max(0.0, seconds(run_definition_pb2.ConditionAction.FromString(spec).timeout))


def answer(condition: run_definition_pb2.ConditionAction, payload: run_service_pb2.EventPayload) -> bytes:
    """The payload as a Literal of the condition's type. An int is taken for a float. Raises WrongSignal."""
    given = payload.WhichOneof("value")
    if given is None:
        raise WrongSignal(name=condition.name, wanted=_TYPES[condition.type.simple][0], given="none was given")
    wanted, field = _TYPES[condition.type.simple]
    value = getattr(payload, given)
    if field == "float_value" and given == "int_value":
        given, value = "float_value", float(value)
    if _PAYLOADS[given] != field:
        raise WrongSignal(name=condition.name, wanted=wanted, given=f"{given} was given")
    primitive = literals_pb2.Primitive(**{field: value})
    return _bytes(literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive)))


def check_literal(condition: run_definition_pb2.ConditionAction, value: literals_pb2.Literal) -> bytes:
    """The literal, if it has the condition's type. Raises WrongSignal."""
    wanted, field = _TYPES[condition.type.simple]
    given = value.scalar.primitive.WhichOneof("value")
    if given != field:
        raise WrongSignal(name=condition.name, wanted=wanted, given=f"{given or 'no primitive value'} was given")
    return _bytes(value)


def _bytes(literal: literals_pb2.Literal) -> bytes:
    return literal.SerializeToString(deterministic=True)
