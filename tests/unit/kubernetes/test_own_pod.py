"""What a manager finds out about the pod that it runs in."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from flyte_manager.cluster import helper_image
from flyte_manager.config import KubernetesSettings, load
from flyte_manager.kubernetes import own_pod
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import PODS
from tests.fakes.kubernetes_api import FakeKubernetes

ENVIRON = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", own_pod.POD_NAME: "flyte-manager-1"}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with FakeKubernetes() as api:
        access = replace(api.access(), context="", namespace="flyte")
        async with Client(access, qps=0) as client:
            yield client


async def make_pod(client: Client, *containers: tuple[str, str]) -> None:
    spec = {"containers": [{"name": name, "image": image} for name, image in containers]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "flyte-manager-1", "namespace": "flyte"}}
    await client.create(PODS, {**body, "spec": spec})


def settings(**flags: str) -> KubernetesSettings:
    return load({f"manager.kubernetes.{name}": text for name, text in flags.items()}, {}, None).manager.kubernetes


async def test_helpers_run_the_managers_own_image(client: Client) -> None:
    await make_pod(client, ("proxy", "proxy:1"), ("manager", "registry/flyte-manager:7"))
    assert await helper_image(settings(), client, ENVIRON) == "registry/flyte-manager:7"


async def test_a_container_of_another_name_does_as_well(client: Client) -> None:
    await make_pod(client, ("flyte", "registry/mine:1"))
    assert await helper_image(settings(), client, ENVIRON) == "registry/mine:1"


async def test_a_setting_counts_more(client: Client) -> None:
    await make_pod(client, ("manager", "registry/flyte-manager:7"))
    assert await helper_image(settings(helperImage="other:1"), client, ENVIRON) == "other:1"


async def test_outside_of_pods_there_is_none(client: Client) -> None:
    await make_pod(client, ("manager", "registry/flyte-manager:7"))
    assert await helper_image(settings(), client, {own_pod.POD_NAME: "flyte-manager-1"}) == ""


async def test_an_image_that_is_not_found_is_told_with_the_cure(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await helper_image(settings(), client, ENVIRON) == ""
    (record,) = caplog.records
    assert "pod flyte/flyte-manager-1 can't be found out" in record.getMessage()
    assert record.getMessage().endswith("set manager.kubernetes.helperImage")


def test_on_the_nodes_network_the_host_name_is_not_the_pods() -> None:
    assert own_pod.name({own_pod.POD_NAME: "flyte-manager-1", "HOSTNAME": "node-1"}) == "flyte-manager-1"
    assert own_pod.name({}) != ""
