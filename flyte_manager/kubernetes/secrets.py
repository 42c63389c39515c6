"""Flyte's secrets as Kubernetes Secrets of the manager's namespace, named as the original manager names them.

    encoded   u__org__flyte__domain__<domain>__project__<project>__key__<name>  also the key of the one entry in `data`
    Secret    md5(encoded), because a Kubernetes name can't be long and has no capitals

A value goes to the API server by `create` and `update`, and never comes back: all answers are asked for as
PartialObjectMetadata, without `data`. Pods get it from the kubelet by the reference that `give` returns.

What a Secret stands for is read from its annotations, and for one that the original manager made (it sets none) from
the names of data keys that `managedFields` lists. Either is believed only when its digest is the Secret's name.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from flyte_manager.domain import errors
from flyte_manager.domain.catalog import KnownSecret, SecretName, secret_scopes
from flyte_manager.domain.errors import SecretExists, UnknownSecret, Unready
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import Clock, SecretReference
from flyte_manager.kubernetes import permissions
from flyte_manager.kubernetes.api_errors import AlreadyExists, ApiError, Expired, Forbidden, NotFound
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import SECRETS

MANAGED = "app.flyte.org/managed"
PROJECT = "app.flyte.org/project"
DOMAIN = "app.flyte.org/domain"
NAME = "app.flyte.org/name"
"""annotation"""
ORG = "app.flyte.org/org"
TYPE = "app.flyte.org/type"
UPDATED_AT = "app.flyte.org/updated-at"
LONGEST_KEY = 253
"""characters of a key in `data`"""

_ENCODED = re.compile(r"u__org__flyte__domain__(?P<domain>.*?)__project__(?P<project>.*?)__key__(?P<name>.+)")


class NameTooLong(errors.Invalid):
    """secret name {name!r} has {found} characters, and in {scope} a cluster can keep at most {limit}: choose a shorter
    one."""


class SecretsRefused(Unready):
    """the cluster refuses to {verb} secrets: {words}: {cure}."""


class KubernetesSecrets:
    """Implements ports.SecretKeeper."""

    def __init__(self, client: Client, namespace: str, clock: Clock) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock

    async def create(self, name: SecretName, value: bytes, *, kind: int = 0) -> None:
        """Raises SecretExists, NameTooLong, SecretsRefused."""
        document = self._document(name, value, kind)
        with self._in_words("create", value):
            try:
                await self._client.create(SECRETS, document, namespace=self._namespace, metadata_only=True)
            except AlreadyExists:
                raise SecretExists(name=name.name, scope=name.scope) from None

    async def update(self, name: SecretName, value: bytes, *, kind: int = 0) -> None:
        """Replaces value and type. Raises UnknownSecret, SecretsRefused."""
        document = self._document(name, value, kind)
        with self._in_words("patch", value):
            try:
                await self._client.patch(
                    SECRETS, object_name(name), document, namespace=self._namespace, metadata_only=True
                )
            except NotFound:
                raise UnknownSecret(name=name.name, scope=name.scope) from None

    async def delete(self, name: SecretName) -> None:
        """Raises UnknownSecret, SecretsRefused."""
        with self._in_words("delete"):
            try:
                await self._client.delete(SECRETS, object_name(name), namespace=self._namespace)
            except NotFound:
                raise UnknownSecret(name=name.name, scope=name.scope) from None

    async def get(self, name: SecretName) -> KnownSecret:
        """What is known of the secret but its value. Raises UnknownSecret, SecretsRefused."""
        metadata = await self._metadata(name)
        found = None if metadata is None else known_secret(metadata)
        if found is None:
            raise UnknownSecret(name=name.name, scope=name.scope)
        return found

    async def page(self, scope: SecretName, *, limit: int, offset: int) -> Sequence[KnownSecret]:
        """One more than `limit`, by name, of all that tasks in the scope can see (an empty part of it means any).
        Raises SecretsRefused."""
        with self._in_words("list"):
            found = [known_secret(each["metadata"]) for each in await self._all()]
        seen = [each for each in found if each is not None and _sees(scope, each.id)]
        seen.sort(key=lambda each: (each.id.name, each.id.domain, each.id.project))
        return seen[offset : offset + limit + 1]

    async def give(self, scope: ProjectId, key: str) -> SecretReference | None:
        """See ports.Secrets. Raises SecretsRefused."""
        for name in secret_scopes(scope, key):
            if await self._metadata(name) is not None:
                return SecretReference(object_name(name), encoded(name))
        return None

    async def _metadata(self, name: SecretName) -> Mapping[str, Any] | None:
        with self._in_words("get"):
            try:
                found = await self._client.get(
                    SECRETS, object_name(name), namespace=self._namespace, metadata_only=True
                )
            except NotFound:
                return None
        metadata: Mapping[str, Any] = found["metadata"]
        return metadata

    async def _all(self) -> Sequence[Mapping[str, Any]]:
        selector = f"{MANAGED}=true"
        try:
            return await self._client.list(SECRETS, namespace=self._namespace, selector=selector, metadata_only=True)
        except Expired:  # between two pages; a second time in a row would be a broken server
            return await self._client.list(SECRETS, namespace=self._namespace, selector=selector, metadata_only=True)

    def _document(self, name: SecretName, value: bytes, kind: int) -> dict[str, Any]:
        key = encoded(name)
        if len(key) > LONGEST_KEY:
            limit = LONGEST_KEY - len(key) + len(name.name)
            raise NameTooLong(name=f"{name.name[:40]}…", found=len(name.name), scope=name.scope, limit=limit)
        labels = {MANAGED: "true", PROJECT: name.project, DOMAIN: name.domain}
        annotations = {NAME: name.name, ORG: name.org, TYPE: str(kind), UPDATED_AT: self._clock().isoformat()}
        return {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {
                "name": object_name(name),
                "labels": {label: text for label, text in labels.items() if text},
                "annotations": {annotation: text for annotation, text in annotations.items() if text},
            },
            "data": {key: base64.b64encode(value).decode()},
        }

    @contextmanager
    def _in_words(self, verb: str, value: bytes = b"") -> Iterator[None]:
        """Turns what the API server refuses into a refusal that says what to do, and never holds the value."""
        try:
            yield
        except ApiError as error:
            words = _without(error.words, value) if verb in ("create", "patch") else error.words
            raise SecretsRefused(verb=verb, words=words, cure=self._cure(error)) from None

    def _cure(self, error: ApiError) -> str:
        if isinstance(error, Forbidden) and error.rule:
            rule = permissions.rule_text(SECRETS.group, SECRETS.plural)
            return f"let the manager's Role in namespace {self._namespace} have the rule {rule}"
        if isinstance(error, Forbidden):
            return f"raise the quota, or change the policy, of namespace {self._namespace}"
        if isinstance(error, NotFound):
            return f"`kubectl create namespace {self._namespace}`"
        return "change what it names, then try again"


def encoded(name: SecretName) -> str:
    """The key of the value within its Secret."""
    return f"u__org__flyte__domain__{name.domain}__project__{name.project}__key__{name.name}"


def object_name(name: SecretName) -> str:
    """The name of its Secret."""
    return _digest(encoded(name))


def known_secret(metadata: Mapping[str, Any]) -> KnownSecret | None:
    """What the metadata of a Secret tell; None when it isn't one of Flyte's."""
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    name = SecretName(
        annotations.get(NAME, ""), labels.get(PROJECT, ""), labels.get(DOMAIN, ""), annotations.get(ORG, "")
    )
    candidates = [name, *filter(None, map(_decoded, _data_keys(metadata)))]
    found = next((each for each in candidates if object_name(each) == metadata["name"]), None)
    if found is None:
        return None
    created_at = datetime.fromisoformat(metadata["creationTimestamp"])
    kind = annotations.get(TYPE, "")
    return KnownSecret(
        found,
        type=int(kind) if kind.isascii() and kind.isdigit() else 0,
        created_at=created_at,
        updated_at=_moment(annotations.get(UPDATED_AT)) or created_at,
    )


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _data_keys(metadata: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the entries in `data`: whoever wrote them, the API server remembers their names apart."""
    for each in metadata.get("managedFields") or ():
        yield from (field[2:] for field in (each.get("fieldsV1") or {}).get("f:data") or () if field.startswith("f:"))


def _decoded(key: str) -> SecretName | None:
    found = _ENCODED.fullmatch(key)
    return SecretName(found["name"], found["project"], found["domain"]) if found else None


def _sees(scope: SecretName, name: SecretName) -> bool:
    """Whether tasks in the scope can see it."""
    return (not scope.domain or name.domain in ("", scope.domain)) and (
        not scope.project or name.project in ("", scope.project)
    )


def _moment(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:  # somebody changed the annotation
        return None
    return found if found.tzinfo else None


def _without(words: str, value: bytes) -> str:
    """The words; but none, should an admission webhook have put the value into them."""
    forms = (value.decode(errors="replace"), base64.b64encode(value).decode())
    return "(its words are left out: they hold the value)" if any(form and form in words for form in forms) else words
