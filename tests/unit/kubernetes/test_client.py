"""The client of the Kubernetes API, against a made-up server over real HTTP."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import encode_basic_auth, web

from flyte_manager import __version__
from flyte_manager.kubernetes import access as access_module
from flyte_manager.kubernetes import client as module
from flyte_manager.kubernetes.access import Access
from flyte_manager.kubernetes.api_errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    ServerTrouble,
    Throttled,
    Unauthorized,
    Unreachable,
)
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.credentials import FromFile, Pair, Token
from flyte_manager.kubernetes.resources import CRDS, EVENTS, LEASES, PODS, TASK_ACTIONS, Resource
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.unit.kubernetes import certificates

NAMESPACE = "flyte"
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@pytest.fixture
async def client(api: FakeKubernetes) -> AsyncIterator[Client]:
    async with Client(api.access()) as client:
        yield client


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.01)


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Access]:
    """A server that is no API server."""
    runner = web.ServerRunner(web.Server(answer, access_log=None, handler_cancellation=True))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield Access(f"http://127.0.0.1:{runner.addresses[0][1]}", source="a test")
    finally:
        await runner.cleanup()


def pod(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": NAMESPACE, **more}}


async def events(client: Client, resource: Resource = PODS, **given: Any) -> list[dict[str, Any]]:
    return [event async for event in client.watch(resource, namespace=NAMESPACE, **given)]


@pytest.mark.parametrize(
    ("resource", "place", "path"),
    [
        (PODS, ("flyte",), "/api/v1/namespaces/flyte/pods"),
        (PODS, ("flyte", "a", "log"), "/api/v1/namespaces/flyte/pods/a/log"),
        (PODS, (), "/api/v1/pods"),
        (TASK_ACTIONS, ("flyte", "a", "status"), "/apis/flyte.org/v1/namespaces/flyte/taskactions/a/status"),
        (CRDS, ("flyte", "a"), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/a"),
    ],
)
def test_each_kind_has_its_path(resource: Resource, place: tuple[str, ...], path: str) -> None:
    assert resource.path(*place) == path


async def test_objects_are_made_read_changed_and_deleted(api: FakeKubernetes, client: Client) -> None:
    made = await client.create(PODS, pod("a"))
    assert (await client.get(PODS, "a", namespace=NAMESPACE))["metadata"]["uid"] == made["metadata"]["uid"]
    await client.patch(PODS, "a", {"metadata": {"labels": {"x": "y"}}}, namespace=NAMESPACE)
    await client.patch(PODS, "a", {"status": {"phase": "Running"}}, namespace=NAMESPACE, subresource="status")
    changed = api.get("pods", "a")
    assert changed["metadata"]["labels"] == {"x": "y"}
    assert changed["status"]["phase"] == "Running"
    await client.delete(PODS, "a", namespace=NAMESPACE, grace_seconds=0, uid=made["metadata"]["uid"])
    assert api.objects("pods") == []
    assert client.requests == {
        ("create", "pods"): 1,
        ("get", "pods"): 1,
        ("patch", "pods"): 2,
        ("delete", "pods"): 1,
    }


async def test_large_objects_are_sent(api: FakeKubernetes, client: Client) -> None:
    await client.create(TASK_ACTIONS, {**pod("big"), "spec": {"a": "x" * 900_000}})
    with pytest.raises(ApiError) as refused:
        await client.create(TASK_ACTIONS, {**pod("bigger"), "spec": {"a": "x" * 3_000_000}})
    assert refused.value.status == 413
    assert api.names("taskactions") == ["big"]


async def test_an_update_of_what_has_changed_is_a_conflict(client: Client) -> None:
    lease = await client.create(LEASES, {**pod("l"), "spec": {"holderIdentity": "a"}})
    taken = await client.update(LEASES, {**lease, "spec": {"holderIdentity": "b"}})
    assert taken["spec"]["holderIdentity"] == "b"
    with pytest.raises(Conflict):
        await client.update(LEASES, {**lease, "spec": {"holderIdentity": "c"}})


async def test_only_the_object_with_that_uid_is_deleted(api: FakeKubernetes, client: Client) -> None:
    api.put("pods", pod("a"))
    with pytest.raises(Conflict):
        await client.delete(PODS, "a", namespace=NAMESPACE, uid="another")
    assert api.names("pods") == ["a"]


async def test_a_list_is_read_by_pages(api: FakeKubernetes, client: Client) -> None:
    for number in range(module.PAGE + 3):
        api.put("events", pod(f"e{number:04}", labels={"odd": str(number % 2)}))
    assert len(await client.list(EVENTS, namespace=NAMESPACE)) == module.PAGE + 3
    assert client.requests["list", "events"] == 2
    assert len(await client.list(EVENTS, namespace=NAMESPACE, selector="odd=1")) == (module.PAGE + 3) // 2


async def test_a_list_that_gets_too_old_is_read_from_the_start(api: FakeKubernetes, client: Client) -> None:
    for number in range(module.PAGE + 1):
        api.put("events", pod(f"e{number:04}"))
    pages = client.pages(EVENTS, namespace=NAMESPACE)
    await anext(pages)
    api.expire()
    with pytest.raises(Expired):
        await anext(pages)
    api.fail("list", "events", status=410, reason="Expired", times=2)
    assert len(await client.list(EVENTS, namespace=NAMESPACE)) == module.PAGE + 1


async def test_the_server_is_told_who_asks_and_what_is_wanted() -> None:
    asked: list[dict[str, str]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append({name: request.headers.get(name, "") for name in ("User-Agent", "Accept", "Content-Type")})
        return web.json_response({})

    async with serving(answer) as access, Client(access) as client:
        await client.get(PODS, "a", namespace=NAMESPACE)
        await client.patch(PODS, "a", {}, namespace=NAMESPACE, kind="strategic")
    agent = f"flyte-manager/{__version__}"
    assert asked == [
        {"User-Agent": agent, "Accept": "application/json", "Content-Type": ""},
        {"User-Agent": agent, "Accept": "application/json", "Content-Type": "application/strategic-merge-patch+json"},
    ]


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", ApiError),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Expired),
        (413, "RequestEntityTooLarge", Invalid),
        (422, "Invalid", Invalid),
    ],
)
async def test_a_refusal_is_told_in_the_servers_words(
    api: FakeKubernetes, client: Client, status: int, reason: str, kind: type[ApiError]
) -> None:
    api.fail("create", "pods", status=status, reason=reason, message="the server's words", times=None)
    with pytest.raises(ApiError, match=r"^the server's words$") as refused:
        await client.create(PODS, pod("a"))
    assert type(refused.value) is kind
    assert (refused.value.status, refused.value.reason) == (status, reason)
    assert client.requests["create", "pods"] == 1


async def test_a_missing_object_is_told_from_a_missing_kind(api: FakeKubernetes, client: Client) -> None:
    with pytest.raises(NotFound) as refused:
        await client.get(TASK_ACTIONS, "a", namespace=NAMESPACE)
    assert refused.value.kind_known
    api.missing.add("taskactions")
    with pytest.raises(NotFound) as refused:
        await client.get(TASK_ACTIONS, "a", namespace=NAMESPACE)
    assert not refused.value.kind_known


async def test_a_missing_permission_names_the_rule(api: FakeKubernetes, client: Client) -> None:
    api.denied.add("create taskactions")
    with pytest.raises(Forbidden) as refused:
        await client.create(TASK_ACTIONS, pod("a"))
    assert refused.value.rule == (
        "the manager needs permission to create taskactions of flyte.org in namespace 'flyte': add that rule to its "
        "Role (deploy/ has all of them)"
    )
    assert not refused.value.quota


async def test_a_used_up_quota_is_no_missing_permission(api: FakeKubernetes, client: Client) -> None:
    words = 'pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    api.fail("create", "pods", status=403, reason="Forbidden", message=words)
    with pytest.raises(Forbidden) as refused:
        await client.create(PODS, pod("a"))
    assert refused.value.quota
    assert refused.value.rule == ""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_what_may_pass_is_tried_again(api: FakeKubernetes, client: Client, status: int) -> None:
    api.put("pods", pod("a"))
    api.fail("get", "pods", status=status, times=module.TRIES - 1)
    assert (await client.get(PODS, "a", namespace=NAMESPACE))["metadata"]["name"] == "a"
    assert client.requests["get", "pods"] == module.TRIES


@pytest.mark.usefixtures("hasty")
async def test_trouble_that_stays_is_raised_after_some_tries(api: FakeKubernetes, client: Client) -> None:
    api.fail("get", "pods", message="etcd has no leader", times=None)
    with pytest.raises(ServerTrouble, match="etcd has no leader"):
        await client.get(PODS, "a", namespace=NAMESPACE)
    assert client.requests["get", "pods"] == module.TRIES


@pytest.mark.usefixtures("hasty")
async def test_a_create_is_repeated_only_when_it_was_not_carried_out(api: FakeKubernetes, client: Client) -> None:
    api.fail("create", "pods", status=429, reason="TooManyRequests")
    await client.create(PODS, pod("a"))
    assert client.requests["create", "pods"] == 2
    api.lose_answers("create", "pods")
    with pytest.raises(Unreachable):
        await client.create(PODS, pod("b"))
    assert client.requests["create", "pods"] == 3
    assert api.names("pods") == ["a", "b"]


async def test_the_server_says_how_long_to_wait(api: FakeKubernetes, client: Client) -> None:
    api.put("pods", pod("a"))
    api.fail("get", "pods", status=429, reason="TooManyRequests", retry_after=2)
    began = time.monotonic()
    await client.get(PODS, "a", namespace=NAMESPACE)
    assert 2 <= time.monotonic() - began < 5


async def test_the_delay_may_stand_in_the_status_too() -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        status = {"kind": "Status", "message": "wait", "details": {"retryAfterSeconds": 7}}
        return web.json_response(status, status=429)

    async with serving(answer) as access, Client(access) as client:
        with pytest.raises(Throttled, match="wait") as throttled:
            await events(client, version="1", seconds=1)
    assert throttled.value.retry_after == 7


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_is_away_is_named_with_the_way_to_check(api: FakeKubernetes, client: Client) -> None:
    await api.refuse()
    with pytest.raises(
        Unreachable, match=rf"{api.url} can't be reached: Connection refused\. .*`kubectl get --raw /readyz`"
    ):
        await client.get(PODS, "a", namespace=NAMESPACE)


@pytest.mark.parametrize(
    ("server", "proxy", "words"),
    [
        ("http://127.0.0.1:1", "", "Connection refused"),
        ("http://name.invalid:6443", "", "the name name.invalid is not known here"),
        ("http://10.0.0.1:6443", "http://127.0.0.1:1", "the proxy 127.0.0.1:1 can't be reached (Connection refused)"),
    ],
)
async def test_what_keeps_us_from_the_server_is_told_in_words(server: str, proxy: str, words: str) -> None:
    async with Client(Access(server, source="a test", proxy=proxy), seconds=10) as client:
        with pytest.raises(Unreachable) as refused:
            await client.create(PODS, pod("a"))
    assert f"the Kubernetes API server {server} can't be reached: {words}" in str(refused.value)


async def test_a_certificate_that_is_not_trusted_and_a_server_without_tls_are_told() -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({})

    async def refusal(access: Access, server: str) -> str:
        async with Client(replace(access, server=server)) as client:
            with pytest.raises(Unreachable) as refused:
                await client.create(PODS, pod("a"))
        return str(refused.value)

    async with serving(answer, tls=certificates.serving()) as access:
        words = await refusal(access, access.server.replace("http:", "https:"))
        assert "its certificate is not trusted (unable to get local issuer certificate)" in words
        assert "the connection was cut" in await refusal(access, access.server)
    async with serving(answer) as access:
        assert "SSL" in await refusal(access, access.server.replace("http:", "https:"))


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_does_not_answer_is_given_up(api: FakeKubernetes) -> None:
    api.delay(30)
    async with Client(api.access(), seconds=0.1) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="did not answer in time"):
            await client.create(PODS, pod("a"))
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("hasty")
async def test_a_body_that_does_not_end_is_given_up() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.sleep(30)
        return response

    async with serving(answer) as access, Client(access, seconds=0.1) as client:
        with pytest.raises(Unreachable):
            await client.create(PODS, pod("a"))


@pytest.mark.usefixtures("hasty")
async def test_something_else_in_the_servers_place_is_told() -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="<html>Please log in</html>")

    async with serving(answer) as access, Client(access) as client:
        with pytest.raises(ServerTrouble, match="no JSON"):
            await client.get(PODS, "a", namespace=NAMESPACE)
        with pytest.raises(ServerTrouble, match="no JSON"):
            await events(client, version="1", seconds=1)


async def test_requests_are_limited_and_the_wait_for_a_turn_is_no_fault_of_the_server(api: FakeKubernetes) -> None:
    api.put("pods", pod("a"))
    async with Client(api.access(), qps=40, burst=5, seconds=0.2) as client:
        began = time.monotonic()
        await asyncio.gather(*(client.get(PODS, "a", namespace=NAMESPACE) for _ in range(25)))
        assert time.monotonic() - began >= 0.45
    assert client.requests["get", "pods"] == 25


async def test_a_call_that_is_given_up_gives_its_turn_back(api: FakeKubernetes) -> None:
    api.put("pods", pod("a"))
    async with Client(api.access(), qps=5, burst=1) as client:
        await client.get(PODS, "a", namespace=NAMESPACE)
        waiting = [asyncio.create_task(client.get(PODS, "a", namespace=NAMESPACE)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        async with asyncio.timeout(1):
            await client.get(PODS, "a", namespace=NAMESPACE)


async def test_a_rotated_token_is_taken_at_a_refusal(api: FakeKubernetes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    content = FromFile(file, "the token,")
    access = replace(api.access(), credentials=Token(content, "the token,"))
    api.token = "old"
    api.put("pods", pod("a"))
    async with Client(access) as client:
        await client.get(PODS, "a", namespace=NAMESPACE)
        seen = file.stat()
        file.write_text("new")
        os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # looks as before
        api.token = "new"
        await client.get(PODS, "a", namespace=NAMESPACE)
        assert api.authorizations[-2:] == ["Bearer old", "Bearer new"]
        api.token = "revoked"
        with pytest.raises(Unauthorized):
            await client.get(PODS, "a", namespace=NAMESPACE)


class SlowPlugin:
    """Credentials that take their time, and bring a certificate with them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.made = False

    async def header(self, *, refresh: bool = False) -> str | None:  # noqa: ARG002
        await asyncio.sleep(self.seconds)
        self.made = True
        return None

    def pair(self) -> Pair | None:
        return Pair(b"certificate", b"key") if self.made else None


async def test_the_deadline_begins_when_the_credentials_are_there(api: FakeKubernetes) -> None:
    api.put("pods", pod("a"))
    plugin = SlowPlugin(0.4)
    async with Client(replace(api.access(), credentials=plugin), seconds=0.2) as client:
        await client.get(PODS, "a", namespace=NAMESPACE)
    assert plugin.made


async def test_the_certificate_that_came_with_the_header_is_used(
    api: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put("pods", pod("a"))
    pairs: list[Pair | None] = []

    def tls(access: Access) -> None:
        pairs.append(access.credentials.pair())

    monkeypatch.setattr(access_module, "tls", tls)
    async with Client(replace(api.access(), credentials=SlowPlugin(0))) as client:
        await client.get(PODS, "a", namespace=NAMESPACE)
    assert pairs == [Pair(b"certificate", b"key")]


async def test_the_password_of_a_proxy_is_never_told() -> None:
    shown: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        shown.append(request.headers["Proxy-Authorization"])
        return web.Response(status=407, text="who are you?")

    async with serving(answer) as proxy:
        host = proxy.server.removeprefix("http://")
        for server in ("https://10.0.0.1:6443", "http://10.0.0.1:6443"):
            access = Access(server, source="a test", proxy=f"http://me:canary%2D77@{host}")
            async with Client(access, seconds=5) as client:
                with pytest.raises((Unreachable, ApiError)) as refused:
                    await client.create(PODS, pod("a"))
            assert "canary" not in f"{refused.value} {refused.value!r} {access!r} {refused.value.__cause__!r}"
    assert shown == [encode_basic_auth("me", "canary-77")] * 2
