"""LiteralType → JSON schema."""

from typing import Any

from flyteidl2.core import types_pb2
from google.protobuf import struct_pb2

from flyte_manager.wire.forms.errors import BadSchema, NoForm
from flyte_manager.wire.forms.values import plain

Schema = dict[str, Any]

_SIMPLE = types_pb2.SimpleType
_SCHEMAS: dict[int, Schema] = {
    _SIMPLE.NONE: {"type": "null"},
    _SIMPLE.INTEGER: {"type": "integer"},
    _SIMPLE.FLOAT: {"type": "number", "format": "float"},
    _SIMPLE.STRING: {"type": "string"},
    _SIMPLE.BOOLEAN: {"type": "boolean"},
    _SIMPLE.DATETIME: {"type": "string", "format": "datetime"},
    _SIMPLE.DURATION: {"type": "string", "format": "duration"},
    _SIMPLE.BINARY: {"type": "string", "format": "binary"},
    _SIMPLE.ERROR: {"type": "string", "format": "error"},
}
_TITLES = {_SIMPLE.FLOAT: "number"}


def schema_of(kind: types_pb2.LiteralType, where: str) -> Schema:
    """Raises NoForm, BadSchema."""
    match kind.WhichOneof("type"):
        case "simple":
            return _simple(kind, where)
        case "blob":
            return _blob(kind.blob)
        case "structured_dataset_type":
            properties = {"uri": {"type": "string"}, "format": {"type": "string"}}
            return {"type": "object", "format": "structured-dataset", "properties": properties}
        case "collection_type":
            return {"type": "array", "items": schema_of(kind.collection_type, where)}
        case "map_value_type":
            return {"type": "object", "additionalProperties": schema_of(kind.map_value_type, where)}
        case "enum_type":
            return {"type": "string", "enum": list(kind.enum_type.values)}
        case "union_type":
            variants = kind.union_type.variants
            return {"oneOf": [_variant(each, where) for each in variants], "format": "union"}
        case "schema":
            raise NoForm(where=where, what="the old type Schema")
        case None:
            return {"type": "null"}
        case field:
            raise BadSchema(where=where, problem=f"{field} is not a type of inputs.")


def is_optional(schema: Schema) -> bool:
    """Whether the input may be None."""
    return schema.get("type") == "null" or any(
        isinstance(variant, dict) and variant.get("type") == "null" for variant in schema.get("oneOf") or ()
    )


def _simple(kind: types_pb2.LiteralType, where: str) -> Schema:
    if kind.simple == _SIMPLE.STRUCT:
        return _struct(kind)
    if kind.simple not in _SCHEMAS:
        raise BadSchema(where=where, problem=f"simple type {kind.simple} is not known.")
    return dict(_SCHEMAS[kind.simple])


def _struct(kind: types_pb2.LiteralType) -> Schema:
    """The SDK's own schema of the class: `additionalProperties` would make it a map, and `title` is the form's."""
    if not kind.HasField("metadata"):
        return {"type": "object", "additionalProperties": True}
    schema: Schema = plain(struct_pb2.Value(struct_value=kind.metadata))
    schema.pop("additionalProperties", None)
    title = schema.pop("title", None)
    named = {"dataclass": title} if title else {}
    return {"type": "object", **schema, **named}


def _blob(kind: types_pb2.BlobType) -> Schema:
    sizes = types_pb2.BlobType.BlobDimensionality
    size = sizes.MULTIPART if kind.dimensionality else sizes.SINGLE
    properties = {
        "uri": {"type": "string", "default": ""},
        "format": {"type": "string", "default": kind.format},
        "dimensionality": {"type": "string", "enum": list(sizes.keys()), "default": sizes.Name(size)},
    }
    return {"type": "object", "format": "blob", "properties": properties}


def _variant(kind: types_pb2.LiteralType, where: str) -> Schema:
    return {**schema_of(kind, where), "title": _title(kind), "structure": kind.structure.tag}


def _title(kind: types_pb2.LiteralType) -> str:
    match kind.WhichOneof("type"):
        case "simple" if kind.simple == _SIMPLE.STRUCT:
            return kind.metadata.fields["title"].string_value or "object"
        case "simple":
            return _TITLES.get(kind.simple) or _SIMPLE.Name(kind.simple).lower()
        case "collection_type":
            return "array"
        case "map_value_type":
            return "object"
        case field:
            return (field or "unknown").removesuffix("_type")
