"""Whole forms: an object whose `properties` are the inputs of a task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flyteidl2.core import interface_pb2, literals_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf import struct_pb2

from flyte_manager.wire.forms.errors import BadSchema, BadValue
from flyte_manager.wire.forms.literals import Literals, takes_none
from flyte_manager.wire.forms.schemas import Schema, is_optional, schema_of
from flyte_manager.wire.forms.types import type_of
from flyte_manager.wire.forms.values import plain, value_of

Named = common_pb2.NamedLiteral


def form_of_task(spec: task_definition_pb2.TaskSpec) -> struct_pb2.Struct:
    """All inputs, with the task's own defaults; an input with one need not be given. Raises NoForm, BadSchema,
    BadValue."""
    defaults = {each.name: each.parameter for each in spec.default_inputs if each.parameter.HasField("default")}
    fields, required = {}, []
    for entry in spec.task_template.interface.inputs.variables:
        default = defaults[entry.key].default if entry.key in defaults else None
        fields[entry.key] = _field(entry.key, entry.value, default)
        if default is None and not is_optional(fields[entry.key]):
            required.append(entry.key)
    return _form(fields, required)


def form_of_literals(literals: Iterable[Named], variables: interface_pb2.VariableMap) -> struct_pb2.Struct:
    """The literals as defaults. Those that are no input of the task are left out: they may come from another version
    of it. Raises NoForm, BadSchema, BadValue."""
    known = {entry.key: entry.value for entry in variables.variables}
    fields = {each.name: _field(each.name, known[each.name], each.value) for each in literals if each.name in known}
    return _form(fields, [name for name, field in fields.items() if not is_optional(field)])


def literals_of_form(form: struct_pb2.Struct) -> Sequence[Named]:
    """The values of a form, by name. An input without one is left out, or None where it may be. Raises BadSchema,
    BadValue, NoForm."""
    fields = plain(struct_pb2.Value(struct_value=form)).get("properties")
    if not isinstance(fields, dict):
        raise BadSchema(where="the form", problem="properties, the object of its inputs, is missing.")
    made = Literals()
    return list(_literals_of_fields(fields, made))


def literals_of_values(variables: interface_pb2.VariableMap, values: struct_pb2.Struct) -> Sequence[Named]:
    """Plain values, by the names of the inputs. Others are ignored. Raises BadValue, NoForm, BadSchema."""
    given = plain(struct_pb2.Value(struct_value=values))
    found, made = [], Literals()
    for entry in variables.variables:
        kind = entry.value.type
        if entry.key not in given and not takes_none(kind):
            raise BadValue(where=entry.key, problem="it needs a value, and none was given.")
        found.append(Named(name=entry.key, value=made.literal(given.get(entry.key), kind, entry.key)))
    return found


def _literals_of_fields(fields: Mapping[str, Any], made: Literals) -> Iterator[Named]:
    for name, schema in sorted(fields.items()):
        if not isinstance(schema, dict):
            raise BadSchema(where=name, problem="it needs an object.")
        kind = type_of(schema, name)
        value = schema["default"] if "default" in schema else _inner_defaults(schema)
        if value is not None or "default" in schema or takes_none(kind):
            yield Named(name=name, value=made.literal(value, kind, name))


def _field(name: str, variable: interface_pb2.Variable, value: literals_pb2.Literal | None) -> Schema:
    schema = schema_of(variable.type, name)
    if variable.description not in ("", name):
        schema["description"] = variable.description
    if value is None:
        return schema
    found = value_of(value, name)
    if schema.get("format") == "blob" and isinstance(found, dict) and "uri" in found:
        for part, text in found.items():
            schema["properties"][part]["default"] = text
    else:
        schema["default"] = found
    return schema


def _form(fields: Mapping[str, Schema], required: Sequence[str]) -> struct_pb2.Struct:
    form = struct_pb2.Struct()
    form.update({"type": "object", "title": "Launch Form", "properties": dict(fields), "required": list(required)})
    return form


def _inner_defaults(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The value that the fields of an object make together; None unless all that it needs is there."""
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict):
        return None
    found = {}
    for name, inner in properties.items():
        value = inner.get("default", _inner_defaults(inner)) if isinstance(inner, dict) else None
        if value is not None or (isinstance(inner, dict) and "default" in inner):
            found[name] = value
    if schema.get("format") in ("blob", "structured-dataset"):
        return found if found.get("uri") else None
    required = schema.get("required")
    missing = set(map(str, required)) - found.keys() if isinstance(required, list) else set()
    return None if missing else found or None
