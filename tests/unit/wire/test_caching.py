"""Keys of calls: the ones that the SDK makes."""

from collections.abc import Sequence

import pytest
from flyte._internal.runtime import convert
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from flyte_manager.wire.caching import call_key
from tests.fakes.orders import task_spec

Literal = literals_pb2.Literal


def integer(value: int, *, hashed: str = "") -> Literal:
    primitive = literals_pb2.Primitive(integer=value)
    return Literal(scalar=literals_pb2.Scalar(primitive=primitive), hash=hashed)


def inputs_of(*literals: Literal, context: str = "") -> common_pb2.Inputs:
    named = [common_pb2.NamedLiteral(name=f"x{number}", value=each) for number, each in enumerate(literals)]
    inputs = common_pb2.Inputs(literals=named)
    if context:
        inputs.context.add(key="who", value=context)
    return inputs


def cached(
    *, version: str = "1", ignored: Sequence[str] = (), names: Sequence[str] = ()
) -> task_definition_pb2.TaskSpec:
    spec = task_spec("hello.cached", outputs=True)
    spec.task_template.metadata.discoverable = True
    spec.task_template.metadata.discovery_version = version
    spec.task_template.metadata.cache_ignore_input_vars.extend(ignored)
    for name in names:
        variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.INTEGER))
        spec.task_template.interface.inputs.variables.add(key=name, value=variable)
    return spec


def of_sdk(spec: task_definition_pb2.TaskSpec, inputs: common_pb2.Inputs) -> str:
    """As its controller makes it for a call from a task."""
    template = spec.task_template
    return convert.generate_cache_key_hash(
        template.id.name,
        convert.generate_inputs_hash_from_proto(inputs),
        template.interface,
        template.metadata.discovery_version,
        list(template.metadata.cache_ignore_input_vars),
        inputs,
    )


def key(spec: task_definition_pb2.TaskSpec, inputs: common_pb2.Inputs) -> str:
    return call_key(spec, inputs.SerializeToString())


ONE, TWO = integer(1), integer(2)
LIST = Literal(collection=literals_pb2.LiteralCollection(literals=[ONE, integer(3, hashed="h")]))
MAP = Literal(map=literals_pb2.LiteralMap(literals={"b": ONE, "a": LIST, "c": integer(4, hashed="h")}))


@pytest.mark.parametrize(
    "inputs",
    [
        inputs_of(),
        inputs_of(ONE),
        inputs_of(ONE, TWO),
        inputs_of(integer(1, hashed="content")),
        inputs_of(LIST, MAP),
        inputs_of(Literal(collection=literals_pb2.LiteralCollection()), Literal()),
    ],
)
@pytest.mark.parametrize("spec", [cached(), cached(names=["x1", "x0"]), cached(ignored=["x0"]), cached(version="")])
def test_a_key_is_the_one_of_the_sdk(spec: task_definition_pb2.TaskSpec, inputs: common_pb2.Inputs) -> None:
    assert key(spec, inputs) == of_sdk(spec, inputs)


def test_what_makes_a_call_another_call_makes_another_key() -> None:
    other = cached()
    other.task_template.id.name = "hello.other"
    keys = [
        key(cached(), inputs_of(ONE, TWO)),
        key(cached(), inputs_of(TWO, ONE)),
        key(cached(), inputs_of(ONE)),
        key(cached(version="2"), inputs_of(ONE, TWO)),
        key(cached(names=["x0"]), inputs_of(ONE, TWO)),
        key(other, inputs_of(ONE, TWO)),
    ]
    assert len(set(keys)) == len(keys)


def test_what_makes_no_difference_is_left_out() -> None:
    assert key(cached(), inputs_of(ONE, context="ada")) == key(cached(), inputs_of(ONE, context="bob"))
    ignoring = cached(ignored=["x1"])
    assert key(ignoring, inputs_of(ONE, TWO)) == key(ignoring, inputs_of(ONE, ONE))
    assert key(cached(), inputs_of(integer(1, hashed="h"))) == key(cached(), inputs_of(integer(2, hashed="h")))
    assert key(cached(names=["x0", "x1"]), inputs_of(ONE)) == key(cached(names=["x1", "x0"]), inputs_of(ONE))


def test_a_task_that_is_not_cached_and_inputs_that_can_not_be_read_have_no_key() -> None:
    assert call_key(task_spec(), inputs_of(ONE).SerializeToString()) == ""
    assert call_key(cached(), inputs_of(ONE).SerializeToString()[:-1]) == ""
