"""Which keys of the object store pods are given, and from which Secret."""

import logging
from collections.abc import AsyncIterator

import pytest

from flyte_manager.cluster import storage_keys
from flyte_manager.config import StorageSettings, load
from flyte_manager.domain.ports import SecretReference
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import SECRETS
from tests.fakes.kubernetes_api import FakeKubernetes


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with FakeKubernetes() as api, Client(api.access(), qps=0) as client:
        yield client


async def make_secret(client: Client, *keys: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store", "namespace": "flyte"}}
    await client.create(SECRETS, {**body, "data": dict.fromkeys(keys, "eA==")})


def storage(url: str = "s3://flyte", **flags: str) -> StorageSettings:
    return load(
        {"storage.url": url, **{name.replace("_", "."): text for name, text in flags.items()}}, {}, None
    ).storage


async def test_the_named_secrets_keys_are_given_by_reference(client: Client) -> None:
    await make_secret(client, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OTHER")
    assert await storage_keys(storage(storage_podSecret="store"), client, "flyte") == {
        "FLYTE_AWS_ACCESS_KEY_ID": SecretReference("store", "AWS_ACCESS_KEY_ID"),
        "FLYTE_AWS_SECRET_ACCESS_KEY": SecretReference("store", "AWS_SECRET_ACCESS_KEY"),
    }


async def test_without_that_secret_pods_start_and_have_a_role_or_none(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert await storage_keys(storage(storage_podSecret="store"), client, "flyte") == {}
    (record,) = caplog.records
    assert "no Secret flyte/store" in record.getMessage()


async def test_a_key_that_the_secret_lacks_is_told(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    await make_secret(client, "aws_access_key_id")
    with caplog.at_level(logging.WARNING):
        assert await storage_keys(storage("gs://flyte", storage_podSecret="store"), client, "flyte") == {}
    (record,) = caplog.records
    assert "Secret flyte/store has no GOOGLE_SERVICE_ACCOUNT_KEY" in record.getMessage()


async def test_keys_of_the_settings_make_a_secret(client: Client) -> None:
    given = storage(storage_s3_accessKeyId="AK", storage_s3_secretAccessKey="sk")
    assert await storage_keys(given, client, "flyte") == {
        "FLYTE_AWS_ACCESS_KEY_ID": SecretReference("flyte-manager-storage", "AWS_ACCESS_KEY_ID"),
        "FLYTE_AWS_SECRET_ACCESS_KEY": SecretReference("flyte-manager-storage", "AWS_SECRET_ACCESS_KEY"),
    }
    made = await client.get(SECRETS, "flyte-manager-storage", namespace="flyte")
    assert made["data"] == {"AWS_ACCESS_KEY_ID": "QUs=", "AWS_SECRET_ACCESS_KEY": "c2s="}


async def test_without_any_there_are_none(client: Client) -> None:
    assert await storage_keys(storage(), client, "flyte") == {}
    assert await client.list(SECRETS, namespace="flyte") == []
