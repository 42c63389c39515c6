"""Secrets: their names and what may be told of them. Values come in here and never go out."""

import re
from collections.abc import Sequence
from typing import cast

from flyteidl2.secret import definition_pb2, payload_pb2

from flyte_manager.domain.catalog import KnownSecret, SecretName
from flyte_manager.domain.errors import IllegalName, Invalid, NotGiven, TooLarge
from flyte_manager.domain.ids import check_domain, check_org, check_project
from flyte_manager.wire.times import timestamp

LARGEST = 1 << 20
"""Bytes of a value, as in Kubernetes."""

_NAME = re.compile(r"[A-Za-z0-9_][-._A-Za-z0-9]{0,252}")


class DomainMissing(Invalid):
    """a secret of project {project!r} needs a domain too: give one (`--domain`), or leave out the project."""


class ValueTooLarge(TooLarge):
    """the secret's {found} bytes are more than the {limit} that a secret may hold."""


def secret_name(proto: definition_pb2.SecretIdentifier) -> SecretName:
    """Raises NotGiven, IllegalName, DomainMissing."""
    if not proto.name:
        raise NotGiven(field="secret name")
    if not _NAME.fullmatch(proto.name):
        rule = "1 to 253 letters, digits, -, _ and ., a letter, digit or _ first"
        raise IllegalName(kind="secret name", name=proto.name[:80], rule=rule)
    check_org(proto.organization)
    scope = secret_scope(proto.project, proto.domain)
    return SecretName(proto.name, scope.project, scope.domain, proto.organization)


def secret_scope(project: str, domain: str) -> SecretName:
    """The scope alone, under an empty name. Raises IllegalName, DomainMissing."""
    if project:
        check_project(project)
        if not domain:
            raise DomainMissing(project=project)
    if domain:
        check_domain(domain)
    return SecretName("", project, domain)


def secret_value(spec: definition_pb2.SecretSpec) -> bytes:
    """Raises NotGiven, ValueTooLarge."""
    field = spec.WhichOneof("value")
    if field is None:
        raise NotGiven(field="secret_spec.string_value or secret_spec.binary_value")
    value = spec.binary_value if field == "binary_value" else spec.string_value.encode()
    if len(value) > LARGEST:
        raise ValueTooLarge(found=len(value), limit=LARGEST)
    return value


def secret_proto(record: KnownSecret) -> definition_pb2.Secret:
    name = record.id
    return definition_pb2.Secret(
        id=definition_pb2.SecretIdentifier(
            name=name.name, organization=name.org, domain=name.domain, project=name.project
        ),
        secret_metadata=definition_pb2.SecretMetadata(
            created_time=timestamp(record.created_at),
            secret_status=definition_pb2.SecretStatus(overall_status=definition_pb2.FULLY_PRESENT),
            type=cast(definition_pb2.SecretType, record.type),  # as it was given, known or not
        ),
    )


def secrets_proto(found: Sequence[KnownSecret], *, limit: int, offset: int) -> payload_pb2.ListSecretsResponse:
    """A page of a list, which was asked for one more than it holds."""
    token = str(offset + limit) if len(found) > limit else ""
    return payload_pb2.ListSecretsResponse(secrets=[secret_proto(each) for each in found[:limit]], token=token)
