"""Launch forms: each type as a schema, each value there and back, and what is refused."""

import json
from typing import Any

import msgpack
import pytest
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_manager.domain.errors import Refusal
from flyte_manager.wire.forms import durations, literals
from flyte_manager.wire.forms.errors import BadSchema, BadValue, NoForm
from flyte_manager.wire.forms.form import form_of_literals, form_of_task, literals_of_form, literals_of_values

Json = dict[str, Any]

POINT: Json = {
    "simple": "STRUCT",
    "metadata": {
        "title": "Point",
        "type": "object",
        "required": ["x"],
        "properties": {"x": {"type": "integer"}, "name": {"type": "string", "default": "p"}},
        "additionalProperties": False,
    },
    "structure": {"tag": "Object-Dataclass-Transformer"},
}
CIRCLE: Json = {
    **POINT,
    "metadata": {**POINT["metadata"], "title": "Circle", "required": ["r"], "properties": {"r": {"type": "number"}}},
}
NONE: Json = {"simple": "NONE", "structure": {"tag": "none"}}
INT: Json = {"simple": "INTEGER", "structure": {"tag": "int"}}
TEXT: Json = {"simple": "STRING", "structure": {"tag": "str"}}
FILE: Json = {"blob": {"format": "csv"}, "structure": {"tag": "File"}}
FRAME: Json = {"structuredDatasetType": {"format": "parquet"}, "structure": {"tag": "frame"}}


def union(*variants: Json) -> Json:
    return {"unionType": {"variants": list(variants)}}


def variables(*kinds: Json, description: str = "") -> interface_pb2.VariableMap:
    """One input of each type: i0, i1, …"""
    entries = [{"key": f"i{n}", "value": {"type": kind, "description": description}} for n, kind in enumerate(kinds)]
    return json_format.ParseDict({"variables": entries}, interface_pb2.VariableMap())


def struct(value: Json) -> struct_pb2.Struct:
    result = struct_pb2.Struct()
    result.update(value)
    return result


def literal(value: Json) -> literals_pb2.Literal:
    return json_format.ParseDict(value, literals_pb2.Literal())


def primitive(**value: Any) -> Json:
    return {"scalar": {"primitive": value}}


def made(kind: Json, value: Any) -> literals_pb2.Literal:
    (found,) = literals_of_values(variables(kind), struct({"i0": value}))
    return found.value


def field(kind: Json, value: literals_pb2.Literal | None = None, **more: Any) -> Json:
    """The input in a form of this literal; as JSON, because that is how clients see it."""
    named = [common_pb2.NamedLiteral(name="i0", value=value)] if value else []
    if value:
        form = form_of_literals(named, variables(kind, **more))
    else:
        spec = task_definition_pb2.TaskSpec()
        spec.task_template.interface.inputs.CopyFrom(variables(kind, **more))
        form = form_of_task(spec)
    properties: Json = json.loads(json_format.MessageToJson(form))["properties"]
    return dict(properties["i0"])


def shown(kind: Json, value: literals_pb2.Literal) -> Any:
    return field(kind, value)["default"]


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (INT, {"type": "integer"}),
        ({"simple": "FLOAT"}, {"type": "number", "format": "float"}),
        (TEXT, {"type": "string"}),
        ({"simple": "BOOLEAN"}, {"type": "boolean"}),
        ({"simple": "DATETIME"}, {"type": "string", "format": "datetime"}),
        ({"simple": "DURATION"}, {"type": "string", "format": "duration"}),
        ({"simple": "BINARY"}, {"type": "string", "format": "binary"}),
        ({"simple": "ERROR"}, {"type": "string", "format": "error"}),
        (NONE, {"type": "null"}),
        ({"simple": "STRUCT"}, {"type": "object", "additionalProperties": True}),
        ({"collectionType": INT}, {"type": "array", "items": {"type": "integer"}}),
        ({"mapValueType": INT}, {"type": "object", "additionalProperties": {"type": "integer"}}),
        ({"enumType": {"values": ["a", "b"]}}, {"type": "string", "enum": ["a", "b"]}),
        (
            union(INT, NONE),
            {
                "format": "union",
                "oneOf": [
                    {"type": "integer", "title": "integer", "structure": "int"},
                    {"type": "null", "title": "none", "structure": "none"},
                ],
            },
        ),
    ],
)
def test_a_type_has_its_schema(kind: Json, schema: Json) -> None:
    assert field(kind) == schema
    assert field(kind, description="what it is") == {**schema, "description": "what it is"}
    assert field(kind, description="i0") == schema


def test_a_class_is_shown_by_its_own_schema() -> None:
    found = field(POINT)
    assert (found["dataclass"], found["required"], "title" in found, "additionalProperties" in found) == (
        "Point",
        ["x"],
        False,
        False,
    )
    first, second = field(union(POINT, CIRCLE))["oneOf"]
    assert (first["title"], second["title"]) == ("Point", "Circle")


ROUND = [
    (INT, primitive(integer="7"), 7),
    (INT, primitive(integer=str(-(2**63))), str(-(2**63))),
    ({"simple": "FLOAT"}, primitive(floatValue=0.1), 0.1),
    ({"simple": "FLOAT"}, primitive(floatValue="Infinity"), "Infinity"),
    ({"simple": "FLOAT"}, primitive(floatValue=1e300), 1e300),
    (TEXT, primitive(stringValue="ä 5"), "ä 5"),
    ({"simple": "BOOLEAN"}, primitive(boolean=False), False),
    ({"simple": "DATETIME"}, primitive(datetime="2026-11-23T09:00:00.000001Z"), "2026-11-23T09:00:00.000001Z"),
    ({"simple": "DURATION"}, primitive(duration="5400.500s"), "1h30m0.5s"),
    ({"simple": "BINARY"}, {"scalar": {"binary": {"value": "AP8="}}}, "AP8="),
    ({"simple": "ERROR"}, {"scalar": {"error": {"message": "no"}}}, "no"),
    (NONE, {"scalar": {"noneType": {}}}, {"type": "null"}),
    ({"enumType": {"values": ["a"]}}, primitive(stringValue="a"), "a"),
    ({"collectionType": INT}, {"collection": {"literals": [primitive(integer="1")]}}, [1]),
    ({"collectionType": INT}, {"collection": {}}, []),
    ({"mapValueType": TEXT}, {"map": {"literals": {"k": primitive(stringValue="v")}}}, {"k": "v"}),
    ({"mapValueType": TEXT}, {"map": {}}, {}),
    (
        {"simple": "STRUCT", "metadata": {"pb_type": "a.B"}},
        {"scalar": {"generic": {"a": [1.5, None]}}},
        {"a": [1.5, None]},
    ),
    (
        FRAME,
        {"scalar": {"structuredDataset": {"uri": "/d", "metadata": {"structuredDatasetType": {"format": "parquet"}}}}},
        {"uri": "/d", "format": "parquet"},
    ),
    (
        union(TEXT, INT),
        {"scalar": {"union": {"value": primitive(integer="7"), "type": INT}}},
        7,
    ),
    (union(INT, NONE), {"scalar": {"union": {"value": {"scalar": {"noneType": {}}}, "type": NONE}}}, {"type": "null"}),
]


@pytest.mark.parametrize(("kind", "value", "expected"), ROUND)
def test_a_value_is_shown_and_comes_back_as_it_was(kind: Json, value: Json, expected: Any) -> None:
    given = literal(value)
    assert shown(kind, given) == expected
    assert made(kind, expected) == given
    form = form_of_literals([common_pb2.NamedLiteral(name="i0", value=given)], variables(kind))
    (back,) = literals_of_form(form)
    assert shown(kind, back.value) == expected


def test_classes_and_dicts_come_as_msgpack() -> None:
    content = {"x": 1, "y": 1.0, "when": msgpack.Timestamp(0), 3: b"\xff", "big": 2**60, "l": [None, float("nan")]}
    packed = literals_pb2.Literal()
    packed.scalar.binary.CopyFrom(literals_pb2.Binary(value=msgpack.packb(content), tag="msgpack"))
    told = shown({"simple": "STRUCT"}, packed)
    assert told == {
        "x": 1,
        "y": 1,
        "when": "1970-01-01T00:00:00Z",
        "3": "/w==",
        "big": str(2**60),
        "l": [None, "NaN"],
    }
    back = made(POINT, {"x": 1, "name": "n"}).scalar.binary
    assert (back.tag, msgpack.unpackb(back.value)) == ("msgpack", {"x": 1, "name": "n"})


def test_what_is_no_msgpack_is_told_as_base64() -> None:
    for binary in (
        literals_pb2.Binary(value=b"\xc1", tag="msgpack"),
        literals_pb2.Binary(value=b"\x93\x01", tag="msgpack"),
        literals_pb2.Binary(value=msgpack.packb({(1,): 2}), tag="msgpack"),
        literals_pb2.Binary(value=msgpack.packb(msgpack.Timestamp(2**60)), tag="msgpack"),
        literals_pb2.Binary(value=b"\x80\x04pickle"),
    ):
        given = literals_pb2.Literal(scalar=literals_pb2.Scalar(binary=binary))
        assert isinstance(shown({"simple": "STRUCT"}, given), str)


def test_a_file_is_shown_in_its_fields_and_comes_back() -> None:
    given = literal({"scalar": {"blob": {"uri": "/f", "metadata": {"type": {"format": "csv"}}}}})
    properties = field(FILE, given)["properties"]
    assert {name: each["default"] for name, each in properties.items()} == {
        "uri": "/f",
        "format": "csv",
        "dimensionality": "SINGLE",
    }
    (back,) = literals_of_form(form_of_literals([common_pb2.NamedLiteral(name="i0", value=given)], variables(FILE)))
    assert back.value == given
    assert made(FILE, {"uri": "/f"}) == given
    folder = made(FILE, {"uri": "/f", "dimensionality": 1}).scalar.blob.metadata.type
    assert folder.dimensionality == types_pb2.BlobType.MULTIPART


def test_a_union_takes_the_variant_that_the_value_can_be() -> None:
    def tag(kind: Json, value: Any) -> str:
        return made(kind, value).scalar.union.type.structure.tag

    assert tag(union(INT, TEXT), "5") == "str"
    assert tag(union(TEXT, INT), 5) == "int"
    assert tag(union(FRAME, FILE), {"uri": "/f", "format": "", "dimensionality": "SINGLE"}) == "File"
    assert tag(union(FILE, FRAME), {"uri": "/f", "format": "x"}) == "File"
    assert tag(union(POINT, NONE), {"x": 1}) == "Object-Dataclass-Transformer"
    titles = [
        made(union(POINT, CIRCLE), value).scalar.union.type.metadata["title"]
        for value in ({"x": 1}, {"r": 2}, {"z": 3})
    ]
    assert titles == ["Point", "Circle", "Point"]


def test_a_pickle_is_a_union_as_a_type_only() -> None:
    pickle = {"structure": {"tag": "FlytePickle"}}
    kind = union({**FILE, **pickle}, {"simple": "BINARY", **pickle})
    assert made(kind, "AP8=").scalar.binary.value == b"\x00\xff"


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (INT, 1.5, "whole number"),
        (INT, "7", "whole number"),
        (INT, True, "whole number"),
        (INT, 2.0**64, "whole number"),
        (INT, None, "null is none"),
        ({"simple": "FLOAT"}, "0.5", "a number"),
        (TEXT, 5, "a text"),
        ({"simple": "BOOLEAN"}, 1, "true or false"),
        ({"simple": "DATETIME"}, "yesterday", "with its zone"),
        ({"simple": "DATETIME"}, "2026-13-40T09:00:00Z", "with its zone"),
        ({"simple": "DATETIME"}, 5, "a time"),
        ({"simple": "DURATION"}, "soon", "a duration"),
        ({"simple": "DURATION"}, "1e99", "a duration"),
        ({"simple": "DURATION"}, 1e300, "a duration"),
        ({"simple": "BINARY"}, "no base64!", "base64"),
        ({"simple": "STRUCT"}, [1], "an object"),
        (NONE, 1, "null only"),
        ({"enumType": {"values": ["a"]}}, "c", 'one of ["a"]'),
        ({"enumType": {"values": ["a"]}}, {"a": 1}, 'one of ["a"]'),
        ({"collectionType": INT}, {"a": 1}, "a list"),
        ({"collectionType": INT}, [1, "x"], "i0[1]: "),
        ({"mapValueType": INT}, {"k": "x"}, "i0.k: "),
        ({"mapValueType": INT}, {"line\n" * 90: "x"}, "i0.line\\n"),
        (FILE, {"uri": ""}, "uri and format"),
        (FILE, {"uri": "/f", "dimensionality": "HUGE"}, "HUGE"),
        (FRAME, "x", "uri and format"),
        (union(INT, TEXT), [1], "none of the union"),
        ({"unionType": {}}, 1, "no variants"),
        ({}, 1, "type none"),
        ({"schema": {}}, 1, "Schema"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_its_place_is_named(kind: Json, value: Any, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        made(kind, value)
    assert words in str(refused.value)
    assert str(refused.value).lstrip("'").startswith("i0")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 800


def test_values_are_taken_by_name_and_the_missing_are_named() -> None:
    found = literals_of_values(variables(INT, union(INT, NONE)), struct({"i0": 1, "other": "ignored"}))
    assert [(each.name, each.value.scalar.WhichOneof("value")) for each in found] == [
        ("i0", "primitive"),
        ("i1", "union"),
    ]
    with pytest.raises(BadValue, match="i0: it needs a value, and none was given"):
        literals_of_values(variables(INT), struct({}))
    assert literals_of_values(variables(), struct({})) == []


def test_literals_of_another_version_are_left_out() -> None:
    named = [common_pb2.NamedLiteral(name=name, value=literal(primitive(integer="1"))) for name in ("i0", "gone")]
    form = form_of_literals(named, variables(INT, TEXT))
    told = json.loads(json_format.MessageToJson(form))
    assert (set(told["properties"]), told["required"]) == ({"i0"}, ["i0"])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({}, BadValue),
        ({"scalar": {}}, BadValue),
        ({"scalar": {"primitive": {}}}, BadValue),
        ({"scalar": {"union": {}}}, BadValue),
        ({"collection": {"literals": [{}]}}, BadValue),
        ({"scalar": {"schema": {}}}, NoForm),
        ({"offloadedMetadata": {"uri": "/x"}}, NoForm),
    ],
)
def test_a_literal_that_cannot_be_shown_is_refused(value: Json, error: type[Refusal]) -> None:
    with pytest.raises(error, match="i0"):
        form_of_literals([common_pb2.NamedLiteral(name="i0", value=literal(value))], variables(INT))


def test_moments_and_msgpack_beyond_all_bounds_are_refused() -> None:
    late = literals_pb2.Literal()
    late.scalar.primitive.datetime.seconds = 1 << 60
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    packed = literals_pb2.Literal()
    packed.scalar.binary.CopyFrom(literals_pb2.Binary(value=msgpack.packb(deep), tag="msgpack"))
    for value in (late, packed):
        with pytest.raises(BadValue):
            shown(INT, value)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "properties"),
        ({"properties": []}, "properties"),
        ({"properties": {"a": 1}}, "a: "),
        ({"properties": {"a": {}}}, "type 'None'"),
        ({"properties": {"a": {"type": "tensor"}}}, "type 'tensor'"),
        ({"properties": {"a": {"oneOf": 1}}}, "oneOf"),
        ({"properties": {"a": {"oneOf": [1]}}}, "oneOf"),
        ({"properties": {"a": {"type": "array", "items": 1}}}, "items"),
        ({"properties": {"a": {"type": "string", "enum": "x"}}}, "enum"),
        (
            {
                "properties": {
                    "a": {"type": "object", "format": "blob", "properties": {"dimensionality": {"default": 7}}}
                }
            },
            "7",
        ),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(form: Json, words: str) -> None:
    with pytest.raises(BadSchema) as refused:
        literals_of_form(struct(form))
    assert words in str(refused.value)


def test_a_form_gives_what_was_filled_in() -> None:
    inner = {"type": "object", "properties": {"y": {"default": None}}}
    fields: Json = {
        "text": {"type": "string", "default": "x"},
        "empty": {"type": "string"},
        "maybe": field(union(INT, NONE)),
        "file": field(FILE),
        "whole": {"type": "object", "required": ["x"], "properties": {"x": {"default": 1}, "in": inner}},
        "part": {"type": "object", "required": ["x"], "properties": {"x": {}, "name": {"default": "p"}}},
        "old": {"type": "integer", "format": "duration", "default": 90},
    }
    found = {each.name: each.value for each in literals_of_form(struct({"properties": fields}))}
    assert set(found) == {"text", "maybe", "whole", "old"}
    assert found["maybe"].scalar.union.value.scalar.HasField("none_type")
    assert msgpack.unpackb(found["whole"].scalar.binary.value) == {"x": 1, "in": {"y": None}}
    assert found["old"].scalar.primitive.duration.seconds == 90


def test_a_form_of_a_task_has_its_defaults_which_need_not_be_given() -> None:
    spec = task_definition_pb2.TaskSpec()
    spec.task_template.interface.inputs.CopyFrom(variables(INT, INT, union(INT, NONE), NONE))
    parameter = interface_pb2.Parameter(default=literal(primitive(integer="4")))
    spec.default_inputs.add(name="i1", parameter=parameter)
    form = form_of_task(spec)
    told = json.loads(json_format.MessageToJson(form))
    assert (told["required"], told["properties"]["i1"]["default"]) == (["i0"], 4)
    assert {each.name for each in literals_of_form(form)} == {"i1", "i2", "i3"}


def test_the_number_of_tries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(literals, "TRIES", 1000)
    kind = {"collectionType": union(*[TEXT] * 20, INT)}
    assert len(made(kind, [1] * 40).collection.literals) == 40
    with pytest.raises(BadValue, match="too many variants"):
        made(kind, [1] * 50)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (250 * 10**6, "250ms"),
        (90 * 10**9, "1m30s"),
        (3600 * 10**9, "1h0m0s"),
        (-5400 * 10**9 - 5 * 10**8, "-1h30m0.5s"),
    ],
)
def test_durations_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    duration = Duration()
    duration.FromNanoseconds(nanoseconds)
    assert durations.text_of(duration) == text
    assert durations.duration_of(text) == duration


def test_durations_are_read_in_other_forms_too() -> None:
    assert durations.duration_of("90") == Duration(seconds=90)
    assert durations.duration_of("1.5") == Duration(seconds=1, nanos=500_000_000)
    assert durations.duration_of("1m1m") == Duration(seconds=120)
