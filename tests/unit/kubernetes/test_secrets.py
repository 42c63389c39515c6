"""Secrets as Kubernetes Secrets: what only this keeper does. tests/conformance/test_secrets.py has what both do."""

import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from flyte_manager.domain.catalog import SecretName
from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import SecretReference
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.secrets import (
    KubernetesSecrets,
    NameTooLong,
    SecretsRefused,
    encoded,
    known_secret,
    object_name,
)
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes_api import FakeKubernetes

CANARY = b"canary-2f7c41e09d"
FORMS = (CANARY.decode(), base64.b64encode(CANARY).decode())
SCOPE = ProjectId("flytesnacks", "development")
RULE = '{apiGroups: [""], resources: [secrets], verbs: [get, list, create, patch, delete]}'
SECRET = SecretName("API_KEY", "flytesnacks", "development")


class Listening(Client):
    """Keeps all answers."""

    answers: list[str]

    async def _ask(self, *args: Any, **options: Any) -> dict[str, Any]:
        answer = await super()._ask(*args, **options)
        self.answers.append(json.dumps(answer))
        return answer


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@pytest.fixture
async def client(api: FakeKubernetes) -> AsyncIterator[Listening]:
    async with Listening(api.access(), qps=0) as client:
        client.answers = []
        yield client


@pytest.fixture
def keeper(client: Listening) -> KubernetesSecrets:
    return KubernetesSecrets(client, namespace="flyte", clock=FakeClock())


def leaks(text: str) -> bool:
    return any(form in text for form in FORMS)


async def test_a_value_goes_into_the_secrets_data_and_nowhere_else(
    keeper: KubernetesSecrets, client: Listening, api: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []
    with caplog.at_level(logging.DEBUG):
        await keeper.create(SECRET, CANARY)
        await keeper.update(SECRET, CANARY, kind=1)
        told += [await keeper.get(SECRET), await keeper.give(SCOPE, "API_KEY")]
        told += await keeper.page(SecretName(""), limit=9, offset=0)
        for words in ("no", f"a webhook saw {FORMS[0]}", f"a webhook saw {FORMS[1]}"):
            for verb in ("create", "patch"):
                api.fail(verb, "secrets", status=403, reason="Forbidden", message=words)
            for refused in (keeper.create(SecretName("B"), CANARY), keeper.update(SECRET, CANARY)):
                with pytest.raises(Refusal) as caught:
                    await refused
                told.append(str(caught.value))
        with pytest.raises(Refusal, match="exists already") as again:
            await keeper.create(SECRET, CANARY)
        told.append(str(again.value))
    [stored] = api.objects("secrets", namespace="flyte")
    assert stored.pop("data") == {encoded(SECRET): FORMS[1]}
    assert not any(leaks(str(each)) for each in (*told, *client.answers, caplog.text, json.dumps(stored)))
    assert len(told) == 10
    assert not leaks(json.dumps([request._asdict() for request in api.requests]))


async def test_names_labels_and_key_are_those_of_the_original(keeper: KubernetesSecrets, api: FakeKubernetes) -> None:
    await keeper.create(SECRET, b"x")
    await keeper.create(SecretName("API_KEY"), b"y")
    key = "u__org__flyte__domain__development__project__flytesnacks__key__API_KEY"
    found = api.get("secrets", hashlib.md5(key.encode()).hexdigest(), namespace="flyte")
    assert found["data"] == {key: base64.b64encode(b"x").decode()}
    assert found["metadata"]["labels"] == {
        "app.flyte.org/managed": "true",
        "app.flyte.org/project": "flytesnacks",
        "app.flyte.org/domain": "development",
    }
    everywhere = "u__org__flyte__domain____project____key__API_KEY"
    found = api.get("secrets", hashlib.md5(everywhere.encode()).hexdigest(), namespace="flyte")
    assert found["metadata"]["labels"] == {"app.flyte.org/managed": "true"}


async def test_a_task_gets_a_reference_and_no_list_is_asked_for_it(
    keeper: KubernetesSecrets, api: FakeKubernetes
) -> None:
    await keeper.create(SecretName("API_KEY", domain="development"), b"x")
    name = SecretName("API_KEY", domain="development")
    assert await keeper.give(SCOPE, "API_KEY") == SecretReference(object_name(name), encoded(name))
    assert api.counts == {("create", "secrets"): 1, ("get", "secrets"): 2}


def made_by_the_original(name: SecretName, key: str) -> dict[str, Any]:
    """The metadata of a Secret without annotations, as the API server shows it."""
    return {
        "name": object_name(name),
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app.flyte.org/managed": "true", "app.flyte.org/domain": name.domain},
        "managedFields": [
            {"manager": "manager", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
            {"manager": "manager", "fieldsV1": {"f:data": {".": {}, f"f:{key}": {}}, "f:type": {}}},
        ],
    }


@pytest.mark.parametrize("name", [SECRET, SecretName("A__key__B", domain="staging"), SecretName("x")], ids=str)
def test_a_secret_that_the_original_made_is_known_by_its_key(name: SecretName) -> None:
    known = known_secret(made_by_the_original(name, encoded(name)))
    assert known is not None
    assert known.id == name
    assert known.updated_at == known.created_at


def test_a_secret_that_says_it_is_another_is_not_believed() -> None:
    other = SecretName("OTHER", domain="development")
    forged = made_by_the_original(SECRET, encoded(other))
    forged["annotations"] = {"app.flyte.org/name": "OTHER"}
    assert known_secret(forged) is None


@pytest.mark.parametrize(
    ("annotation", "text"), [("type", "many"), ("type", "-1"), ("updated-at", "today"), ("updated-at", "2026-01-01")]
)
def test_annotations_that_somebody_broke_break_nothing(annotation: str, text: str) -> None:
    metadata = made_by_the_original(SECRET, encoded(SECRET))
    known = known_secret(metadata | {"annotations": {f"app.flyte.org/{annotation}": text}})
    assert known == known_secret(metadata)


async def test_secrets_of_others_are_not_listed(keeper: KubernetesSecrets, api: FakeKubernetes) -> None:
    await keeper.create(SECRET, b"x")
    api.put("secrets", {"metadata": {"name": "regcred"}}, namespace="flyte")
    label = {"app.flyte.org/managed": "true"}
    api.put("secrets", {"metadata": {"name": "labelled", "labels": label}}, namespace="flyte")
    api.put("secrets", {"metadata": {"name": object_name(SECRET), "labels": label}}, namespace="elsewhere")
    assert [known.id for known in await keeper.page(SecretName(""), limit=9, offset=0)] == [SECRET]


async def test_a_name_that_is_too_long_for_the_cluster_says_how_long_it_may_be(keeper: KubernetesSecrets) -> None:
    longest = 253 - len(encoded(SecretName("", "flytesnacks", "development")))
    await keeper.create(SecretName("n" * longest, "flytesnacks", "development"), b"x")
    with pytest.raises(NameTooLong, match=f"at most {longest}: choose a shorter one"):
        await keeper.create(SecretName("n" * (longest + 1), "flytesnacks", "development"), b"x")


@pytest.mark.parametrize(
    ("verb", "status", "words", "cure"),
    [
        ("create", 403, 'cannot create resource "secrets" in API group "" in the namespace "flyte"', RULE),
        ("get", 403, 'cannot get resource "secrets" in API group "" in the namespace "flyte"', RULE),
        ("list", 403, 'cannot list resource "secrets" in API group "" in the namespace "flyte"', RULE),
        ("create", 403, "exceeded quota: tight", "raise the quota, or change the policy, of namespace flyte"),
        ("create", 404, 'namespaces "flyte" not found', "`kubectl create namespace flyte`"),
        ("patch", 422, "field is immutable when `immutable` is set", "change what it names"),
        ("delete", 401, "Unauthorized", "Unauthorized"),
    ],
)
async def test_what_the_cluster_refuses_is_told_with_the_cure(
    keeper: KubernetesSecrets, api: FakeKubernetes, verb: str, status: int, words: str, cure: str
) -> None:
    reasons = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 422: "Invalid"}
    api.fail(verb, "secrets", status=status, reason=reasons[status], message=words, times=None)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: keeper.create(SECRET, CANARY),
        "get": lambda: keeper.give(SCOPE, "API_KEY"),
        "list": lambda: keeper.page(SecretName(""), limit=1, offset=0),
        "patch": lambda: keeper.update(SECRET, CANARY),
        "delete": lambda: keeper.delete(SECRET),
    }
    with pytest.raises(SecretsRefused) as caught:
        await calls[verb]()
    assert words in str(caught.value)
    assert cure in str(caught.value)
