"""Watches and logs by the client of the Kubernetes API, against a made-up server over real HTTP."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from flyte_manager.kubernetes.access import Trust
from flyte_manager.kubernetes.api_errors import Expired, Unreachable
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.connections import Sockets
from flyte_manager.kubernetes.resources import PODS, TASK_ACTIONS
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.unit.kubernetes import certificates
from tests.unit.kubernetes.test_client import NAMESPACE, events, pod, serving


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@pytest.fixture
async def client(api: FakeKubernetes) -> AsyncIterator[Client]:
    async with Client(api.access()) as client:
        yield client


async def test_many_open_streams_keep_no_call_waiting(api: FakeKubernetes) -> None:
    api.put("pods", pod("a"))
    api.logs["a"] = [b"line\n"]
    async with Client(api.access(), qps=0) as client, asyncio.TaskGroup() as group:
        opened = asyncio.Queue[None]()

        async def follow() -> None:
            async with client.open_log("a", "main", namespace=NAMESPACE, follow=True) as stream:
                await anext(stream)
                opened.put_nowait(None)
                await asyncio.Event().wait()

        tasks = [group.create_task(follow()) for _ in range(120)]
        for _ in tasks:
            await opened.get()
        async with asyncio.timeout(2):
            await client.get(PODS, "a", namespace=NAMESPACE)
        for task in tasks:
            task.cancel()


async def test_a_watch_tells_what_happens_and_ends_when_the_server_ends_it(api: FakeKubernetes, client: Client) -> None:
    version = api.put("pods", pod("a"))["metadata"]["resourceVersion"]
    api.put("pods", pod("b", labels={"x": "y"}))
    api.end_watches_after(1)
    opened: list[bool] = []
    found = await events(client, version=version, seconds=5, selector="x=y", opened=lambda: opened.append(True))
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in found] == [("ADDED", "b")]
    assert opened == [True]


async def test_a_watch_asks_for_bookmarks(api: FakeKubernetes, client: Client) -> None:
    found = await events(client, version="1000", seconds=1)
    assert [event["type"] for event in found] == ["BOOKMARK"]
    assert [request.query["timeoutSeconds"] for request in api.requests] == ["1"]


async def test_a_watch_from_too_old_a_version_is_expired(api: FakeKubernetes, client: Client) -> None:
    api.expire()
    with pytest.raises(Expired):
        await events(client, version="1000", seconds=1)


async def test_a_watch_that_is_cut_is_no_clean_end(api: FakeKubernetes, client: Client) -> None:
    watching = asyncio.create_task(events(client, version="1000", seconds=30))
    await api.until(lambda: api.watching["pods"])
    api.cut_watches()
    with pytest.raises(Unreachable):
        await watching


async def test_a_watch_that_does_not_end_in_time_is_given_up() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(30)
        return response

    async with serving(answer) as access, Client(access, seconds=0.1) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await events(client, version="1", seconds=1)
    assert 1 <= time.monotonic() - began < 5


async def test_a_client_that_closes_leaves_no_connection_of_a_call_that_was_cancelled_before_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, made = Sockets.make, list[socket.socket]()

    def noted(sockets: Sockets, address: Any) -> socket.socket:
        made.append(make(sockets, address))
        return made[-1]

    monkeypatch.setattr(Sockets, "make", noted)
    asked = asyncio.Event()

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        return await asyncio.Future[web.StreamResponse]()

    async with serving(answer, tls=certificates.serving()) as access:
        server = access.server.replace("http:", "https:")
        async with Client(replace(access, server=server, trust=Trust(insecure=True))) as client:
            watching = asyncio.create_task(events(client, version="1", seconds=30))
            await asyncio.wait_for(asked.wait(), 5)
            watching.cancel()
            await asyncio.wait([watching])
        assert [each.fileno() for each in made] == [-1]


async def test_events_of_any_size_are_read(api: FakeKubernetes, client: Client) -> None:
    api.put("taskactions", {**pod("big"), "spec": {"a": "x" * 3_000_000}})
    api.put("taskactions", pod("small"))
    api.end_watches_after(2)
    found = await events(client, TASK_ACTIONS, version="1000", seconds=5)
    assert [len(event["object"].get("spec", {}).get("a", "")) for event in found] == [3_000_000, 0]


async def test_a_log_is_read_and_followed(api: FakeKubernetes, client: Client) -> None:
    api.put("pods", pod("a"))
    api.logs["a"] = [b"one\n"]
    async with client.open_log("a", "main", namespace=NAMESPACE) as stream:
        assert b"".join([piece async for piece in stream]) == b"one\n"
    async with client.open_log("a", "main", namespace=NAMESPACE, follow=True) as stream:
        assert await anext(stream) == b"one\n"
        api.logs["a"] += [b"two\n", None]  # type: ignore[operator]
        assert b"".join([piece async for piece in stream]) == b"two\n"


async def test_a_log_that_is_cut_is_no_clean_end(api: FakeKubernetes, client: Client) -> None:
    api.put("pods", pod("a"))
    api.logs["a"] = [b"one\n"]
    async with client.open_log("a", "main", namespace=NAMESPACE, follow=True) as stream:
        await anext(stream)
        api.cut_watches()
        with pytest.raises(Unreachable):
            await anext(stream)


async def test_an_error_of_the_logs_reader_is_its_own(api: FakeKubernetes, client: Client) -> None:
    api.put("pods", pod("a"))
    api.logs["a"] = [b"one\n"]
    with pytest.raises(OSError, match="no space left"):
        async with client.open_log("a", "main", namespace=NAMESPACE, follow=True):
            raise OSError("no space left")
