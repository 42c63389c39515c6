"""Keys of calls, as the SDK makes them, and what CacheService says of entries and reservations."""

import base64
import hashlib
from collections.abc import Iterable
from typing import cast

from flyteidl2.cacheservice import cacheservice_pb2 as pb
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as v2
from flyteidl2.core import catalog_pb2, identifier_pb2, interface_pb2, literals_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from flyte_manager.domain.actions import Action
from flyte_manager.domain.caching import CacheEntry, CacheKey, CacheStatus, Reservation
from flyte_manager.domain.errors import IllegalName, Invalid, NotGiven
from flyte_manager.domain.ids import ProjectId, check_scope
from flyte_manager.wire.times import timestamp

LONGEST = 512
"""characters of a key or an owner's id, as upstream"""


def call_key(spec: task_definition_pb2.TaskSpec, inputs: bytes) -> str:
    """The key of a call of the task with that `inputs.pb`: the one that the SDK sends when it makes the same call from
    a task. Empty when the task is not cached, or the inputs can't be read."""
    template = spec.task_template
    if not template.metadata.discoverable:
        return ""
    try:
        literals = common_pb2.Inputs.FromString(inputs).literals
    except DecodeError:
        return ""
    ignored = set(template.metadata.cache_ignore_input_vars)
    counted = b"".join(
        b"%s:%s;" % (each.name.encode(), _said(each.value)) for each in literals if each.name not in ignored
    )
    parts = (
        _hashed(counted) if counted else "",
        template.id.name,
        _hashed(_sorted(template.interface).SerializeToString(deterministic=True)),
        template.metadata.discovery_version,
    )
    return _hashed("".join(parts).encode())


def _said(literal: literals_pb2.Literal) -> bytes:
    """What a literal adds to a key: the hash of its content where it carries one, so that the same content counts as
    the same wherever it lies."""
    if literal.hash:
        return literal.hash.encode()
    match literal.WhichOneof("value"):
        case "collection":
            return b"".join(_said(each) for each in literal.collection.literals)
        case "map":
            return b"".join(name.encode() + _said(each) for name, each in sorted(literal.map.literals.items()))
        case _:
            return literal.SerializeToString(deterministic=True)


def _sorted(interface: interface_pb2.TypedInterface) -> interface_pb2.TypedInterface:
    def in_order(variables: Iterable[interface_pb2.VariableEntry]) -> list[interface_pb2.VariableEntry]:
        return sorted(variables, key=lambda entry: entry.key)

    copy = interface_pb2.TypedInterface()
    copy.CopyFrom(interface)
    for side, variables in ((copy.inputs, interface.inputs.variables), (copy.outputs, interface.outputs.variables)):
        if variables:
            del side.variables[:]
            side.variables.extend(in_order(variables))
    return copy


def _hashed(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def check_text(field: str, text: str) -> str:
    """A key or an owner's id. Raises NotGiven, IllegalName."""
    if not text:
        raise NotGiven(field=field)
    if len(text) > LONGEST or not text.isprintable():
        raise IllegalName(kind=field, name=text[:80], rule=f"1 to {LONGEST} printable characters")
    return text


def scope_of(identifier: v2.Identifier) -> ProjectId:
    """Raises what check_scope raises."""
    check_scope(identifier.project, identifier.domain)
    return ProjectId(identifier.project, identifier.domain, identifier.org)


def scoped(key: str, scope: ProjectId | None) -> CacheKey:
    checked = check_text("key", key)
    return CacheKey(checked, scope.project, scope.domain) if scope else CacheKey(checked)


def metadata_of(action: Action) -> bytes:
    """flyteidl2.cacheservice.Metadata of the action's outputs, with upstream's words."""
    task, run = action.task.name, action.id.run
    values = {
        "task-version": task.version,
        "execution-name": run.name,
        "exec-domain": run.domain,
        "exec-project": run.project,
        "exec-node": action.id.name,
        "exec-attempt": str(action.attempt),
        "exec-org": run.org,
    }
    source = identifier_pb2.Identifier(
        resource_type=identifier_pb2.TASK,
        project=task.project,
        domain=task.domain,
        name=task.name,
        version=task.version,
        org=task.org,
    )
    metadata = pb.Metadata(source_identifier=source, key_map=pb.KeyMapMetadata(values=values))
    return metadata.SerializeToString(deterministic=True)


def cached_output(entry: CacheEntry) -> pb.CachedOutput:
    output = pb.CachedOutput(metadata=pb.Metadata.FromString(entry.metadata))
    output.metadata.created_at.CopyFrom(timestamp(entry.created_at))
    output.metadata.last_updated_at.CopyFrom(timestamp(entry.updated_at))
    if entry.output_uri:
        output.output_uri = entry.output_uri
    else:
        output.output_literals.CopyFrom(literals_pb2.LiteralMap.FromString(entry.literals))
    return output


def outputs_of(literals: bytes) -> bytes:
    """`outputs.pb` with what the LiteralMap says."""
    found = literals_pb2.LiteralMap.FromString(literals).literals
    named = [common_pb2.NamedLiteral(name=name, value=value) for name, value in sorted(found.items())]
    return common_pb2.Outputs(literals=named).SerializeToString(deterministic=True)


class UnknownCacheStatus(Invalid):
    """cache status {number} is not known: use one of flyteidl2.core.CatalogCacheStatus."""


def status_of(number: int) -> CacheStatus:
    """Raises UnknownCacheStatus."""
    try:
        return CacheStatus(number)
    except ValueError:
        raise UnknownCacheStatus(number=number) from None


def status_proto(status: CacheStatus) -> catalog_pb2.CatalogCacheStatus:
    return cast(catalog_pb2.CatalogCacheStatus, status.value)


def reservation_proto(found: Reservation) -> pb.Reservation:
    interval = Duration()
    interval.FromNanoseconds(round(found.heartbeat * 1e9))
    return pb.Reservation(
        key=found.key.key,
        owner_id=found.owner,
        heartbeat_interval=interval,
        expires_at=timestamp(found.expires_at),
    )
