"""The made-up API server does what a real one does, as far as the manager's tests lean on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from tests.fakes.kubernetes_answers import LogPiece
from tests.fakes.kubernetes_api import FakeKubernetes

PODS = "/api/v1/namespaces/flyte/pods"
TASK_ACTIONS = "/apis/flyte.org/v1/namespaces/flyte/taskactions"
MERGE = {"Content-Type": "application/merge-patch+json"}

Session = aiohttp.ClientSession


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@pytest.fixture
async def session(api: FakeKubernetes) -> AsyncIterator[Session]:
    async with aiohttp.ClientSession(api.url, timeout=aiohttp.ClientTimeout(total=5)) as session:
        yield session


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **more}}


async def ask(session: Session, method: str, path: str, **given: Any) -> tuple[int, dict[str, Any]]:
    async with session.request(method, path, **given) as response:
        return response.status, await response.json()


class Watch:
    """Reads events of one watch."""

    def __init__(self, session: Session, path: str, version: object, **query: str) -> None:
        query |= {"watch": "1", "resourceVersion": str(version)}
        self._opening = session.get(path, params=query)

    async def __aenter__(self) -> "Watch":
        self._response = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._response.close()

    async def next(self) -> tuple[str, str]:
        kind, document = await self.event()
        return kind, document["metadata"]["name"]

    async def event(self) -> tuple[str, Mapping[str, Any]]:
        line = await asyncio.wait_for(self._response.content.readline(), 5)
        if not line:
            return "END", {"metadata": {"name": ""}}
        event = json.loads(line)
        return event["type"], event["object"]


async def test_what_is_created_can_be_read_and_a_second_one_of_its_name_is_refused(
    api: FakeKubernetes, session: Session
) -> None:
    status, pod = await ask(session, "POST", PODS, json=named("p", labels={"a": "b"}))
    assert (status, pod["status"]["phase"], pod["metadata"]["namespace"]) == (201, "Pending", "flyte")
    assert await ask(session, "GET", f"{PODS}/p") == (200, pod)
    assert api.get("pods", "p") == pod
    status, refusal = await ask(session, "POST", PODS, json=named("p"))
    assert (status, refusal["kind"], refusal["reason"]) == (409, "Status", "AlreadyExists")
    assert refusal["message"] == 'pods "p" already exists'
    status, refusal = await ask(session, "GET", f"{TASK_ACTIONS}/x")
    assert (status, refusal["message"]) == (404, 'taskactions.flyte.org "x" not found')
    assert api.counts["create", "pods"] == 2


async def test_the_status_and_the_rest_are_patched_apart(api: FakeKubernetes, session: Session) -> None:
    api.put("taskactions", {**named("t"), "spec": {"a": 1}, "status": {"phase": "Queued"}}, namespace="flyte")
    both = {"spec": {"a": 2}, "status": {"phase": "Running"}}
    await ask(session, "PATCH", f"{TASK_ACTIONS}/t/status", json=both, headers=MERGE)
    found = api.get("taskactions", "t")
    assert (found["spec"], found["status"], found["metadata"]["generation"]) == ({"a": 1}, {"phase": "Running"}, 1)
    await ask(session, "PATCH", f"{TASK_ACTIONS}/t", json={**both, "status": {"phase": "Lost"}}, headers=MERGE)
    found = api.get("taskactions", "t")
    assert (found["spec"], found["status"], found["metadata"]["generation"]) == ({"a": 2}, {"phase": "Running"}, 2)
    _, unchanged = await ask(session, "PATCH", f"{TASK_ACTIONS}/t", json={"spec": {"a": 2}}, headers=MERGE)
    assert unchanged["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


async def test_a_stale_version_or_another_uid_is_a_conflict(api: FakeKubernetes, session: Session) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/flyte/leases"
    _, lease = await ask(session, "POST", leases, json={**named("l"), "spec": {"holderIdentity": "a"}})
    lease["spec"]["holderIdentity"] = "b"
    assert (await ask(session, "PUT", f"{leases}/l", json=lease))[0] == 200
    status, refusal = await ask(session, "PUT", f"{leases}/l", json=lease)
    assert (status, refusal["reason"]) == (409, "Conflict")
    options = {"preconditions": {"uid": "other"}}
    assert (await ask(session, "DELETE", f"{leases}/l", json=options))[0] == 409
    assert (await ask(session, "DELETE", f"{leases}/l"))[1]["status"] == "Success"
    assert api.names("leases") == []


async def test_lists_come_in_pages_of_one_moment(api: FakeKubernetes, session: Session) -> None:
    for number in range(5):
        api.put("pods", named(f"p{number}"), namespace="flyte")
    _, first = await ask(session, "GET", PODS, params={"limit": "2"})
    api.delete("pods", "p4")
    more = first["metadata"]["continue"]
    _, second = await ask(session, "GET", PODS, params={"limit": "3", "continue": more})
    assert [each["metadata"]["name"] for each in first["items"] + second["items"]] == ["p0", "p1", "p2", "p3", "p4"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    api.expire()
    status, refusal = await ask(session, "GET", PODS, params={"limit": "2", "continue": more})
    assert (status, refusal["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"labelSelector": "a=1"}, ["p1"]),
        ({"labelSelector": "a!=1"}, ["p2", "p3"]),
        ({"labelSelector": "a in (1, 2),a"}, ["p1", "p2"]),
        ({"labelSelector": "a notin (1)"}, ["p2", "p3"]),
        ({"labelSelector": "!a"}, ["p3"]),
        ({"fieldSelector": "metadata.name=p2"}, ["p2"]),
        ({"fieldSelector": "status.phase!=Running,spec.nodeName="}, ["p2", "p3"]),
    ],
)
async def test_selectors_choose(api: FakeKubernetes, session: Session, query: dict[str, str], names: list[str]) -> None:
    api.put("pods", {**named("p1", labels={"a": "1"}), "status": {"phase": "Running"}}, namespace="flyte")
    api.put("pods", named("p2", labels={"a": "2"}), namespace="flyte")
    api.put("pods", named("p3"), namespace="flyte")
    _, found = await ask(session, "GET", PODS, params=query)
    assert [each["metadata"]["name"] for each in found["items"]] == names


async def test_a_watch_tells_what_changes_after_its_version(api: FakeKubernetes, session: Session) -> None:
    before = api.put("pods", named("p1", labels={"a": "1"}), namespace="flyte")["metadata"]["resourceVersion"]
    api.put("pods", named("p2", labels={"a": "1"}), namespace="flyte")
    async with Watch(session, PODS, before, labelSelector="a=1") as watch:
        assert await watch.next() == ("ADDED", "p2")
        api.set_pod_status("p1", {"phase": "Running"})
        assert await watch.next() == ("MODIFIED", "p1")
        api.put("pods", named("p1", labels={}), namespace="flyte")
        assert await watch.next() == ("DELETED", "p1")
        api.put("pods", named("p3", labels={"a": "1"}), namespace="elsewhere")
        api.delete("pods", "p2")
        assert await watch.next() == ("DELETED", "p2")
    await api.until(lambda: api.watching["pods"] == 0)


async def test_watches_end_cleanly_are_cut_and_expire(api: FakeKubernetes, session: Session) -> None:
    version = api.put("pods", named("p"), namespace="flyte")["metadata"]["resourceVersion"]
    async with Watch(session, PODS, version, timeoutSeconds="0", allowWatchBookmarks="1") as watch:
        kind, bookmark = await watch.event()
        assert (kind, bookmark["metadata"]["resourceVersion"]) == ("BOOKMARK", version)
        assert (await watch.event())[0] == "END"
    api.end_watches_after(1)
    async with Watch(session, PODS, version) as watch:
        api.set_pod_status("p", {"phase": "Running"})
        api.set_pod_status("p", {"phase": "Failed"})
        assert [(await watch.event())[0] for _ in range(2)] == ["MODIFIED", "END"]
    api.end_watches_after(None)
    async with Watch(session, PODS, version) as watch:
        await watch.event()
        await watch.event()
        api.cut_watches()
        with pytest.raises(aiohttp.ClientError):
            await watch.event()
    api.expire()
    async with Watch(session, PODS, version) as watch:
        kind, status = await watch.event()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert await watch._response.content.readline() == b""


async def test_a_server_that_refuses_connections_comes_back_at_its_port(api: FakeKubernetes, session: Session) -> None:
    async with Watch(session, PODS, 0) as watch:
        await api.refuse()
        with pytest.raises(aiohttp.ClientError):
            await watch.event()
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(session, "GET", PODS)
    await api.listen()
    assert (await ask(session, "GET", PODS))[0] == 200


async def test_a_deleted_pod_stays_until_it_has_ended(api: FakeKubernetes, session: Session) -> None:
    api.put("pods", named("p"), namespace="flyte")
    _, left = await ask(session, "DELETE", f"{PODS}/p", json={"gracePeriodSeconds": 7})
    assert left["metadata"]["deletionGracePeriodSeconds"] == 7
    assert "deletionTimestamp" in api.get("pods", "p")["metadata"]
    api.finish_deletion("p")
    assert api.names("pods") == []
    api.put("pods", {**named("done"), "status": {"phase": "Succeeded"}}, namespace="flyte")
    await ask(session, "DELETE", f"{PODS}/done")
    assert api.names("pods") == []


async def test_what_an_owner_leaves_behind_is_collected(api: FakeKubernetes, session: Session) -> None:
    api.graceful = False
    root = api.put("taskactions", named("root"), namespace="flyte")["metadata"]["uid"]
    child = api.put("taskactions", named("child", ownerReferences=[{"uid": root}]), namespace="flyte")
    api.put("pods", named("p", ownerReferences=[{"uid": child["metadata"]["uid"]}]), namespace="flyte")
    await ask(session, "DELETE", f"{TASK_ACTIONS}/root")
    assert api.names("taskactions") == ["child"]
    await api.until(lambda: not api.names("taskactions") and not api.names("pods"))
    root = api.put("taskactions", named("root"), namespace="flyte")["metadata"]["uid"]
    api.put("pods", named("p", ownerReferences=[{"uid": root}]), namespace="flyte")
    await ask(session, "DELETE", f"{TASK_ACTIONS}/root", json={"propagationPolicy": "Background"})
    assert api.names("pods") == []


async def test_logs_are_followed_with_times(api: FakeKubernetes, session: Session) -> None:
    pod = {**named("p"), "spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    api.put("pods", pod, namespace="flyte")
    lines: list[LogPiece] = [(datetime(2026, 1, 2, tzinfo=UTC), b"one\n"), (datetime(2026, 1, 3, tzinfo=UTC), b"two\n")]
    api.logs["p/a"] = lines
    query = {"container": "a", "follow": "true", "timestamps": "true", "sinceTime": "2026-01-03T00:00:00Z"}
    async with session.get(f"{PODS}/p/log", params=query) as response:
        assert await response.content.readline() == b"2026-01-03T00:00:00.000000000Z two\n"
        lines += [b"three\n", None]
        assert (await response.content.read()).endswith(b"Z three\n")
    async with session.get(f"{PODS}/p/log", params={"container": "a", "limitBytes": "5"}) as response:
        assert await response.read() == b"one\nt"
    status, refusal = await ask(session, "GET", f"{PODS}/p/log")
    assert (status, refusal["message"]) == (
        400,
        "a container name must be specified for pod p, choose one of: ['a', 'b']",
    )


async def test_metadata_alone_is_given_to_those_that_ask_for_it(api: FakeKubernetes, session: Session) -> None:
    api.put("pods", {**named("p"), "spec": {"secret": 1}}, namespace="flyte")
    one = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"}
    many = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    _, found = await ask(session, "GET", f"{PODS}/p", headers=one)
    _, listed = await ask(session, "GET", PODS, headers=many)
    assert (set(found), found["kind"]) == ({"apiVersion", "kind", "metadata"}, "PartialObjectMetadata")
    assert listed["items"] == [found]


async def test_failures_and_lost_answers_come_as_often_as_ordered(api: FakeKubernetes, session: Session) -> None:
    api.fail("create", "pods", status=403, reason="Forbidden", message="exceeded quota: q", times=1)
    status, refusal = await ask(session, "POST", PODS, json=named("p"))
    assert (status, refusal["message"], api.names("pods")) == (403, "exceeded quota: q", [])
    api.lose_answers("create", "pods")
    with pytest.raises(aiohttp.ClientError):
        await ask(session, "POST", PODS, json=named("p"))
    assert api.names("pods") == ["p"]
    assert (await ask(session, "GET", PODS))[0] == 200


async def test_permissions_tokens_and_missing_definitions(api: FakeKubernetes, session: Session) -> None:
    api.denied.add("create pods")
    status, refusal = await ask(session, "POST", PODS, json=named("p"))
    assert status == 403
    assert refusal["message"].endswith('cannot create resource "pods" in API group "" in the namespace "flyte"')
    for resource, allowed in (("pods", False), ("secrets", True)):
        review = {"spec": {"resourceAttributes": {"verb": "create", "resource": resource}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert (await ask(session, "POST", path, json=review))[1]["status"] == {"allowed": allowed}
    api.missing.add("taskactions")
    async with session.get(TASK_ACTIONS) as response:
        assert (response.status, await response.text()) == (404, "404 page not found\n")
    api.token = "good"
    assert (await ask(session, "GET", PODS))[0] == 401
    assert (await ask(session, "GET", PODS, headers={"Authorization": "Bearer good"}))[0] == 200
