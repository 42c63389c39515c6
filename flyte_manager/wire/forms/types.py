"""JSON schema → LiteralType."""

from collections.abc import Mapping
from typing import Any, cast

from flyteidl2.core import types_pb2

from flyte_manager.wire.forms.errors import BadSchema

_SIMPLE = types_pb2.SimpleType
_STRINGS = {
    "datetime": _SIMPLE.DATETIME,
    "duration": _SIMPLE.DURATION,
    "binary": _SIMPLE.BINARY,
    "error": _SIMPLE.ERROR,
}
_PLAIN = {"number": _SIMPLE.FLOAT, "boolean": _SIMPLE.BOOLEAN, "null": _SIMPLE.NONE}
_SIZES = {"SINGLE": types_pb2.BlobType.SINGLE, "MULTIPART": types_pb2.BlobType.MULTIPART}


def type_of(schema: Mapping[str, Any], where: str) -> types_pb2.LiteralType:
    """Raises BadSchema."""
    kind = _union(schema["oneOf"], where) if "oneOf" in schema else _single(schema, where)
    if isinstance(schema.get("structure"), str):
        kind.structure.tag = schema["structure"]
    return kind


def _union(variants: object, where: str) -> types_pb2.LiteralType:
    if not isinstance(variants, list) or not all(isinstance(each, dict) for each in variants):
        raise BadSchema(where=where, problem="oneOf needs a list of schemas.")
    kinds = [type_of(each, f"{where}, variant {number}") for number, each in enumerate(variants, 1)]
    return types_pb2.LiteralType(union_type=types_pb2.UnionType(variants=kinds))


def _single(schema: Mapping[str, Any], where: str) -> types_pb2.LiteralType:
    match schema.get("type"):
        case "string" if "enum" in schema:
            return types_pb2.LiteralType(enum_type=types_pb2.EnumType(values=_texts(schema["enum"], where)))
        case "string":
            return _simple(_STRINGS.get(str(schema.get("format")), _SIMPLE.STRING))
        case "integer":
            times = {name: _STRINGS[name] for name in ("datetime", "duration")}
            return _simple(times.get(str(schema.get("format")), _SIMPLE.INTEGER))
        case "array":
            items = schema.get("items", {"type": "string"})
            if not isinstance(items, dict):
                raise BadSchema(where=where, problem="items needs a schema.")
            return types_pb2.LiteralType(collection_type=type_of(items, f"{where}[]"))
        case "object":
            return _object(schema, where)
        case str(name) if name in _PLAIN:
            return _simple(_PLAIN[name])
        case other:
            known = "string, integer, number, boolean, null, array or object"
            raise BadSchema(where=where, problem=f"type {str(other)[:40]!r} is none of {known}.")


def _object(schema: Mapping[str, Any], where: str) -> types_pb2.LiteralType:
    match schema.get("format"):
        case "blob":
            return types_pb2.LiteralType(blob=_blob(schema, where))
        case "structured-dataset":
            return types_pb2.LiteralType(structured_dataset_type=types_pb2.StructuredDatasetType())
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return types_pb2.LiteralType(map_value_type=type_of(values, f"{where}{{}}"))
    kind = _simple(_SIMPLE.STRUCT)
    own = {key: value for key, value in schema.items() if key not in ("default", "dataclass", "title", "structure")}
    if "dataclass" in schema:
        own["title"] = schema["dataclass"]
    kind.metadata.update(own)
    return kind


def _blob(schema: Mapping[str, Any], where: str) -> types_pb2.BlobType:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not all(isinstance(each, dict) for each in properties.values()):
        return types_pb2.BlobType()
    given = properties.get("dimensionality", {}).get("default", "SINGLE")
    form = properties.get("format", {}).get("default", "")
    return types_pb2.BlobType(format=str(form), dimensionality=dimensionality(given, where))


def dimensionality(given: object, where: str) -> types_pb2.BlobType.BlobDimensionality:
    """Also by number, as older forms have it. Raises BadSchema."""
    size = _SIZES.get(str(given)) if isinstance(given, str) else None
    if size is None and str(given) in ("0", "1", "0.0", "1.0"):
        size = cast(types_pb2.BlobType.BlobDimensionality, int(float(str(given))))
    if size is None:
        raise BadSchema(where=where, problem=f"dimensionality {str(given)[:40]!r} is neither SINGLE nor MULTIPART.")
    return size


def _simple(number: types_pb2.SimpleType) -> types_pb2.LiteralType:
    return types_pb2.LiteralType(simple=number)


def _texts(values: object, where: str) -> list[str]:
    if not isinstance(values, list):
        raise BadSchema(where=where, problem="enum needs a list.")
    return [str(each) for each in values]
