"""Literal → JSON value."""

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgpack
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import struct_pb2

from flyte_manager.wire.forms import durations
from flyte_manager.wire.forms.errors import BadValue, NoForm

EXACT = 1 << 53
"""integers up to here are the same as doubles"""
DEEPEST = 60
NONE: Mapping[str, str] = {"type": "null"}
"""how a form shows that an input is None"""
MSGPACK = "msgpack"


def value_of(literal: literals_pb2.Literal, where: str) -> Any:
    """Raises BadValue, NoForm."""
    match literal.WhichOneof("value"):
        case "scalar":
            return _scalar(literal.scalar, where)
        case "collection":
            items = enumerate(literal.collection.literals)
            return [value_of(item, f"{where}[{number}]") for number, item in items]
        case "map":
            return {key: value_of(item, f"{where}.{key}") for key, item in sorted(literal.map.literals.items())}
        case "offloaded_metadata":
            raise NoForm(where=where, what="a literal that lies in a file of its own")
        case _:
            raise BadValue(where=where, problem="the literal has no value.")


def _scalar(scalar: literals_pb2.Scalar, where: str) -> Any:
    match scalar.WhichOneof("value"):
        case "primitive":
            return _primitive(scalar.primitive, where)
        case "blob":
            kind = scalar.blob.metadata.type
            size = types_pb2.BlobType.MULTIPART if kind.dimensionality else types_pb2.BlobType.SINGLE
            name = types_pb2.BlobType.BlobDimensionality.Name(size)
            return {"uri": scalar.blob.uri, "format": kind.format, "dimensionality": name}
        case "structured_dataset":
            data = scalar.structured_dataset
            return {"uri": data.uri, "format": data.metadata.structured_dataset_type.format}
        case "binary":
            return _binary(scalar.binary, where)
        case "generic":
            return plain(struct_pb2.Value(struct_value=scalar.generic))
        case "union":
            return value_of(scalar.union.value, where)
        case "none_type":
            return dict(NONE)
        case "error":
            return scalar.error.message
        case "schema":
            raise NoForm(where=where, what="the old type Schema")
        case _:
            raise BadValue(where=where, problem="the literal has no value.")


def _primitive(primitive: literals_pb2.Primitive, where: str) -> Any:
    match primitive.WhichOneof("value"):
        case "datetime":
            try:
                return primitive.datetime.ToJsonString()
            except ValueError:
                raise BadValue(where=where, problem="the time is not one of the years 1 to 9999.") from None
        case "duration":
            return durations.text_of(primitive.duration)
        case None:
            raise BadValue(where=where, problem="the literal has no value.")
        case field:
            return exact(getattr(primitive, field))


def _binary(binary: literals_pb2.Binary, where: str) -> Any:
    """What is not msgpack is told as base64, as any other bytes."""
    if binary.tag == MSGPACK:
        try:
            found = msgpack.unpackb(binary.value, strict_map_key=False, timestamp=3)
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):  # lists as keys, times beyond all years
            return _base64(binary.value)
        return _decoded(found, where, DEEPEST)
    return _base64(binary.value)


def _decoded(value: Any, where: str, deeper: int) -> Any:
    """What msgpack decoded, as JSON: keys are texts, bytes are base64."""
    if not deeper:
        raise BadValue(where=where, problem=f"the value is nested deeper than {DEEPEST} levels.")
    match value:
        case dict():
            return {_key(key): _decoded(each, where, deeper - 1) for key, each in value.items()}
        case list():
            return [_decoded(each, where, deeper - 1) for each in value]
        case bytes():
            return _base64(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case msgpack.ExtType():
            return _base64(value.data)
        case _:
            return exact(value)


def _key(key: object) -> str:
    if isinstance(key, bytes):
        return _base64(key)
    return str(key).lower() if isinstance(key, bool) else str(key)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def exact(value: Any) -> Any:
    """A number that JSON would change or can't write, as its text; anything else as it is."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    return value


def plain(value: struct_pb2.Value) -> Any:
    """A protobuf Value as Python has it; whole numbers as int."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return {key: plain(each) for key, each in value.struct_value.fields.items()}
        case "list_value":
            items: Sequence[struct_pb2.Value] = value.list_value.values
            return [plain(each) for each in items]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= EXACT else exact(number)
        case "string_value" | "bool_value" as field:
            return getattr(value, field)
        case _:
            return None
