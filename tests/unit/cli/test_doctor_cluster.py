"""What the doctor finds of a cluster, a made-up one, and of the storage."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from flyte_manager.doctor.cluster import Cluster, check_storage, covers, examine_cluster
from flyte_manager.doctor.findings import Finding
from flyte_manager.doctor.way_back import WayBack
from flyte_manager.domain.errors import Unavailable
from flyte_manager.kubernetes import crd
from flyte_manager.kubernetes.client import Client
from tests.fakes.kubernetes_api import FakeKubernetes

ENDPOINT = "manager.flyte:8090"


class NoBucket(Unavailable):
    """the bucket is not there: make it."""


async def works() -> None:
    """A storage that does."""


async def fails() -> None:
    raise NoBucket


def answered(message: str) -> Mapping[str, Any]:
    return {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"message": message}}}]}


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    """A cluster where all is well but that nobody runs the pods."""
    async with FakeKubernetes() as api:
        api.put("namespaces", {"metadata": {"name": "flyte"}})
        api.put("customresourcedefinitions", crd.definition())
        yield api


@pytest.fixture
async def cluster(api: FakeKubernetes) -> AsyncIterator[Cluster]:
    async with Client(api.access()) as client:
        yield Cluster(
            found="context fake of a test",
            client=client,
            namespace="flyte",
            way_back=WayBack(
                endpoint=ENDPOINT,
                image="flyte-manager",
                image_pull_secrets=["regcred"],
                serving=True,
                tell=lambda _: None,
                sleep=lambda _: asyncio.sleep(0.001),
            ),
            storage="s3://bucket",
            probe=works,
            needed=True,
        )


async def examined(cluster: Cluster, api: FakeKubernetes, status: Mapping[str, Any] | None = None) -> list[Finding]:
    """All findings, with the pods' status as given."""

    async def run_pods() -> None:
        while True:
            for name in api.names("pods"):
                api.set_pod_status(name, status or answered("healthy"))
            await asyncio.sleep(0.001)

    pods = asyncio.create_task(run_pods())
    try:
        return [finding async for finding in examine_cluster(cluster)]
    finally:
        pods.cancel()


def named(findings: list[Finding], name: str) -> Finding:
    [found] = [finding for finding in findings if finding.name == name]
    return found


async def test_a_cluster_where_all_is_well(cluster: Cluster, api: FakeKubernetes) -> None:
    findings = await examined(cluster, api)
    assert [(finding.name, finding.state) for finding in findings] == [
        (name, "ok") for name in ("cluster", "namespace", "TaskAction", "permissions", "way back", "storage")
    ]
    assert "context fake of a test, Kubernetes v1" in named(findings, "cluster").text
    assert api.names("pods") == []


async def test_a_cluster_that_does_not_answer_ends_its_checks(cluster: Cluster, api: FakeKubernetes) -> None:
    await api.refuse()
    findings = await examined(cluster, api)
    assert [(finding.name, finding.state) for finding in findings] == [("cluster", "bad"), ("storage", "ok")]
    assert "manager.kubernetes.kubeconfig" in findings[0].text


async def test_a_cluster_that_is_not_needed_is_only_told_about(cluster: Cluster, api: FakeKubernetes) -> None:
    api.delete("namespaces", "flyte")
    findings = await examined(replace(cluster, needed=False, probe=None), api)
    assert {finding.state for finding in findings} == {"ok", "warn"}


async def test_a_missing_namespace_tells_how_to_make_it_and_no_pod_is_tried(
    cluster: Cluster, api: FakeKubernetes
) -> None:
    api.delete("namespaces", "flyte")
    findings = await examined(cluster, api)
    assert named(findings, "namespace").state == "bad"
    assert "`kubectl create namespace flyte`" in named(findings, "namespace").text
    assert ("create", "pods") not in api.counts


async def test_a_namespace_that_may_not_be_looked_at_is_fine(cluster: Cluster, api: FakeKubernetes) -> None:
    api.denied.add("get namespaces")
    assert named(await examined(cluster, api), "namespace").state == "ok"


async def test_a_missing_definition_tells_the_line_that_installs_it(cluster: Cluster, api: FakeKubernetes) -> None:
    api.delete("customresourcedefinitions", crd.NAME)
    finding = named(await examined(cluster, api), "TaskAction")
    assert finding.state == "bad"
    assert crd.INSTALL in finding.text


async def test_another_version_of_the_definition_is_told(cluster: Cluster, api: FakeKubernetes) -> None:
    older = crd.definition()
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["phase"]
    api.put("customresourcedefinitions", older)
    finding = named(await examined(cluster, api), "TaskAction")
    assert finding.state == "bad"
    assert "another version" in finding.text
    assert crd.INSTALL in finding.text


def test_what_the_api_server_fills_in_is_no_difference() -> None:
    ours = crd.definition()["spec"]
    found = crd.definition()["spec"] | {"conversion": {"strategy": "None"}}
    assert covers(found, ours)
    assert not covers(ours, found)


async def test_each_missing_permission_is_told_with_its_rule(cluster: Cluster, api: FakeKubernetes) -> None:
    api.denied |= {"watch pods", "list pods", "patch taskactions/status"}
    findings = [finding for finding in await examined(cluster, api) if finding.name == "permissions"]
    assert [finding.state for finding in findings] == ["bad", "bad"]
    assert "may not patch taskactions/status" in findings[0].text
    assert "may not list, watch pods" in findings[1].text
    assert '{apiGroups: [""], resources: [pods], verbs: [get, list, watch, create, patch, delete]}' in findings[1].text
    assert "Role in namespace flyte" in findings[1].text


async def test_permissions_that_cannot_be_asked_for_are_told(cluster: Cluster, api: FakeKubernetes) -> None:
    api.fail("create", "selfsubjectaccessreviews", status=403, reason="Forbidden", message="no", times=None)
    assert "can't be asked: no" in named(await examined(cluster, api), "permissions").text


@pytest.mark.parametrize(
    ("message", "serving", "state", "said"),
    [
        ("refused", False, "warn", "no manager runs here now; start it"),
        ("refused", True, "bad", "but a manager runs here"),
        ("unresolved", False, "bad", "pods can't resolve the name"),
        ("stranger 404", True, "bad", "something else than a manager"),
        ("", True, "bad", "ended without an answer"),
    ],
)
async def test_the_way_back_is_told_in_words(
    cluster: Cluster, api: FakeKubernetes, message: str, serving: bool, state: str, said: str
) -> None:
    way_back = replace(cluster.way_back, serving=serving)
    finding = named(await examined(replace(cluster, way_back=way_back), api, answered(message)), "way back")
    assert (finding.state, said in finding.text) == (state, True)
    assert api.names("pods") == []


async def test_a_pod_that_never_runs_is_given_up_and_deleted_with_progress_told(
    cluster: Cluster, api: FakeKubernetes
) -> None:
    told: list[str] = []
    way_back = replace(cluster.way_back, tell=told.append)
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pending = {"phase": "Pending", "conditions": [waiting]}
    finding = named(await examined(replace(cluster, way_back=way_back), api, pending), "way back")
    assert finding.state == "bad"
    assert "did not run within 60 s: Unschedulable: 0/3 nodes" in finding.text
    assert len(told) == 12
    assert api.names("pods") == []


async def test_a_pod_that_is_refused_or_stays_is_told_in_the_servers_words(
    cluster: Cluster, api: FakeKubernetes
) -> None:
    api.fail("create", "pods", status=403, reason="Forbidden", message="exceeded quota: tight")
    assert "exceeded quota: tight" in named(await examined(cluster, api), "way back").text
    api.fail("delete", "pods", status=403, reason="Forbidden", message="not you")
    finding = named(await examined(cluster, api), "way back")
    assert "not you" in finding.text
    assert f"`kubectl delete pod -n flyte {api.names('pods')[0]}`" in finding.text


async def test_the_way_back_needs_an_endpoint_and_an_image(cluster: Cluster, api: FakeKubernetes) -> None:
    nowhere = replace(cluster, way_back=replace(cluster.way_back, endpoint=""))
    assert "manager.kubernetes.taskEndpoint" in named(await examined(nowhere, api), "way back").text
    untried = named(await examined(replace(cluster, way_back=replace(cluster.way_back, image="")), api), "way back")
    assert untried.state == "warn"
    assert "manager.kubernetes.helperImage" in untried.text


@pytest.mark.parametrize(
    ("probe", "state", "said"),
    [(works, "ok", "s3://bucket"), (fails, "bad", "make it"), (None, "bad", "set storage.url")],
)
async def test_the_storage_is_tried(probe: Callable[[], Awaitable[None]] | None, state: str, said: str) -> None:
    finding = await check_storage("s3://bucket", probe)
    assert (finding.state, said in finding.text) == (state, True)
