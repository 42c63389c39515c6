"""JSON value + LiteralType → Literal.

A union takes the first of its variants that the value can be. Classes whose fields are not those of the value come
last: all of them are objects. The number of tries is bounded, because each value may be tried with each variant.
"""

import base64
import binascii
import json
import math
import re
from typing import Any

import msgpack
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_manager.wire.forms import durations
from flyte_manager.wire.forms.errors import BadValue, NoForm
from flyte_manager.wire.forms.types import dimensionality
from flyte_manager.wire.forms.values import EXACT, MSGPACK, NONE

TRIES = 200_000
PICKLE = "FlytePickle"
"""the SDK's tag of pickled values: a union of bytes and a file as a type, but none as a value"""

_SIMPLE = types_pb2.SimpleType
_LONG = re.compile(r"-?[0-9]{16,19}")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
PROTOBUF = "pb_type"
"""the SDK's mark of a class that is a protobuf message"""

Literal = literals_pb2.Literal


def takes_none(kind: types_pb2.LiteralType) -> bool:
    return _none_variant(kind) is not None or (kind.WhichOneof("type") in (None, "simple") and not kind.simple)


def _none_variant(kind: types_pb2.LiteralType) -> types_pb2.LiteralType | None:
    """The variant of a union that stands for None."""
    variants = kind.union_type.variants
    return next((each for each in variants if each.WhichOneof("type") == "simple" and not each.simple), None)


class Literals:
    """Makes the literals of one request."""

    def __init__(self) -> None:
        self._tries = TRIES

    def literal(self, value: Any, kind: types_pb2.LiteralType, where: str) -> Literal:
        """Raises BadValue, NoForm, BadSchema."""
        field = kind.WhichOneof("type")
        if value is None or value == NONE:
            return _none(kind, where)
        match field:
            case "simple":
                return Literal(scalar=_simple(value, kind, where))
            case "collection_type":
                items = enumerate(_checked(value, list, "a list", where))
                found = [self.literal(each, kind.collection_type, f"{where}[{number}]") for number, each in items]
                return Literal(collection=literals_pb2.LiteralCollection(literals=found))
            case "map_value_type":
                entries = _checked(value, dict, "an object", where).items()
                named = {key: self.literal(each, kind.map_value_type, f"{where}.{key}") for key, each in entries}
                return Literal(map=literals_pb2.LiteralMap(literals=named))
            case "union_type":
                return self._union(value, kind, where)
            case "enum_type":
                return Literal(scalar=_enum(value, kind.enum_type, where))
            case "blob":
                return Literal(scalar=_blob(value, kind.blob, where))
            case "structured_dataset_type":
                return Literal(scalar=_dataset(value, kind.structured_dataset_type, where))
            case "schema":
                raise NoForm(where=where, what="the old type Schema")
            case _:
                raise BadValue(where=where, problem=f"a value can't be given to an input of type {field or 'none'}.")

    def _union(self, value: Any, kind: types_pb2.LiteralType, where: str) -> Literal:
        refused = []
        for variant in sorted(kind.union_type.variants, key=lambda each: _is_other_class(value, each)):
            self._tries -= 1
            if self._tries < 0:
                raise BadValue(where=where, problem="there are too many variants of unions to try.")
            try:
                return _in_union(self.literal(value, variant, where), variant)
            except BadValue as error:
                if self._tries < 0:
                    raise
                refused.append(str(error).removeprefix(f"{where}: ").rstrip("."))
        problem = "; ".join(refused)[:400] or "the union has no variants"
        raise BadValue(where=where, problem=f"the value is none of the union: {problem}.")


def _none(kind: types_pb2.LiteralType, where: str) -> Literal:
    nothing = Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))
    variant = _none_variant(kind)
    if variant is not None:
        return _in_union(nothing, variant)
    if not takes_none(kind):
        raise BadValue(where=where, problem="it needs a value, and null is none.")
    return nothing


def _in_union(value: Literal, variant: types_pb2.LiteralType) -> Literal:
    if variant.structure.tag == PICKLE:
        return value
    union = literals_pb2.Union(value=value, type=variant)
    union.type.structure.tag = variant.structure.tag
    return Literal(scalar=literals_pb2.Scalar(union=union))


def _is_other_class(value: Any, variant: types_pb2.LiteralType) -> bool:
    """Whether the variant is a class, and the value an object with other fields than its."""
    fields = variant.metadata.fields
    if not isinstance(value, dict) or "properties" not in fields:
        return False
    required = {each.string_value for each in fields["required"].list_value.values} if "required" in fields else set()
    return not required <= value.keys() <= fields["properties"].struct_value.fields.keys()


def _simple(value: Any, kind: types_pb2.LiteralType, where: str) -> literals_pb2.Scalar:
    match kind.simple:
        case _SIMPLE.STRUCT:
            return _struct(_checked(value, dict, "an object", where), kind)
        case _SIMPLE.BINARY:
            return literals_pb2.Scalar(binary=literals_pb2.Binary(value=_bytes(value, where)))
        case _SIMPLE.ERROR:
            return literals_pb2.Scalar(error=types_pb2.Error(message=_checked(value, str, "a text", where)))
        case _SIMPLE.NONE:
            raise BadValue(where=where, problem="it takes null only.")
        case _:
            return literals_pb2.Scalar(primitive=_primitive(value, kind.simple, where))


def _struct(value: dict[str, Any], kind: types_pb2.LiteralType) -> literals_pb2.Scalar:
    """As msgpack, in which 1 is no 1.0; only what is a protobuf message in Python must be a Struct."""
    if PROTOBUF in kind.metadata.fields:
        struct = struct_pb2.Struct()
        struct.update(value)
        return literals_pb2.Scalar(generic=struct)
    return literals_pb2.Scalar(binary=literals_pb2.Binary(value=msgpack.packb(value), tag=MSGPACK))


def _primitive(value: Any, kind: int, where: str) -> literals_pb2.Primitive:
    match kind:
        case _SIMPLE.STRING:
            return literals_pb2.Primitive(string_value=_checked(value, str, "a text", where))
        case _SIMPLE.BOOLEAN:
            return literals_pb2.Primitive(boolean=_checked(value, bool, "true or false", where))
        case _SIMPLE.INTEGER:
            return literals_pb2.Primitive(integer=_integer(value, where))
        case _SIMPLE.FLOAT:
            return literals_pb2.Primitive(float_value=_float(value, where))
        case _SIMPLE.DATETIME:
            return literals_pb2.Primitive(datetime=_moment(value, where))
        case _SIMPLE.DURATION:
            return literals_pb2.Primitive(duration=_duration(value, where))
        case _:
            raise BadValue(where=where, problem=f"a value can't be given to an input of simple type {kind}.")


def _integer(value: Any, where: str) -> int:
    if isinstance(value, str) and _LONG.fullmatch(value) and abs(int(value)) > EXACT:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        raise BadValue(where=where, problem=f"it takes a whole number of 64 bits, not {_shown(value)}.")
    return value


def _float(value: Any, where: str) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return math.nan if value == "NaN" else math.copysign(math.inf, -1 if value.startswith("-") else 1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue(where=where, problem=f"it takes a number, not {_shown(value)}.")
    return float(value)


def _moment(value: Any, where: str) -> Timestamp:
    moment = Timestamp()
    try:
        moment.FromJsonString(_checked(value, str, "a time", where))
    except (ValueError, OverflowError):
        rule = "it takes a time with its zone, such as 2026-11-23T09:00:00Z"
        raise BadValue(where=where, problem=f"{rule}, not {_shown(value)}.") from None
    return moment


def _duration(value: Any, where: str) -> Duration:
    text = f"{value:.9f}" if isinstance(value, int | float) and not isinstance(value, bool) else value
    try:
        return durations.duration_of(_checked(text, str, "a duration", where))
    except ValueError:
        rule = "it takes a duration such as 1h30m, 1.5s or a number of seconds"
        raise BadValue(where=where, problem=f"{rule}, not {_shown(value)}.") from None


def _bytes(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(_checked(value, str, "bytes as base64", where), validate=True)
    except (binascii.Error, ValueError):
        raise BadValue(where=where, problem=f"it takes bytes as base64, not {_shown(value)}.") from None


def _enum(value: Any, kind: types_pb2.EnumType, where: str) -> literals_pb2.Scalar:
    if value not in kind.values:
        known = json.dumps(list(kind.values))[:300]
        raise BadValue(where=where, problem=f"it takes one of {known}, not {_shown(value)}.")
    return literals_pb2.Scalar(primitive=literals_pb2.Primitive(string_value=value))


def _blob(value: Any, kind: types_pb2.BlobType, where: str) -> literals_pb2.Scalar:
    uri, form = _place(value, where, others={"dimensionality"})
    size = dimensionality(value["dimensionality"], where) if "dimensionality" in value else kind.dimensionality
    found = types_pb2.BlobType(format=kind.format if form is None else form, dimensionality=size)
    return literals_pb2.Scalar(blob=literals_pb2.Blob(uri=uri, metadata=literals_pb2.BlobMetadata(type=found)))


def _dataset(value: Any, kind: types_pb2.StructuredDatasetType, where: str) -> literals_pb2.Scalar:
    uri, form = _place(value, where, others=set())
    metadata = literals_pb2.StructuredDatasetMetadata(structured_dataset_type=kind)
    metadata.structured_dataset_type.format = kind.format if form is None else form
    return literals_pb2.Scalar(structured_dataset=literals_pb2.StructuredDataset(uri=uri, metadata=metadata))


def _place(value: Any, where: str, *, others: set[str]) -> tuple[str, str | None]:
    """uri and format of an object that has these fields and no more than the others."""
    fields = _checked(value, dict, "an object with uri and format", where)
    uri, form = fields.get("uri"), fields.get("format")
    if (
        not isinstance(uri, str)
        or not uri
        or not isinstance(form, str | None)
        or fields.keys() - {"uri", "format"} > others
    ):
        raise BadValue(where=where, problem=f"it takes an object with uri and format, not {_shown(value)}.")
    return uri, form


def _checked(value: Any, kind: type, what: str, where: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise BadValue(where=where, problem=f"it takes {what}, not {_shown(value)}.")
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:60]
