import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from flyteidl2.workflow.state_service_pb2 import GetRequest, GetResponse, WatchRequest
from h2.errors import ErrorCodes

from flyte_manager.rpc import first_bytes, http2
from flyte_manager.rpc.asgi import Receive, Scope, Send, answer
from flyte_manager.rpc.routes import Route
from tests.unit.rpc.raw_http2 import connected
from tests.unit.rpc.serving import GET, WATCH, Served, eventually, serve

JSON = {"content_type": "application/json"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers what it saw, and reads nothing when told so."""
    if scope["path"].endswith("/early"):
        await answer(send, 404, b"early")
        return
    if scope["path"].endswith("/nothing"):
        return
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    seen = {key: scope[key] for key in ("method", "path", "http_version", "scheme")}
    headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    told = {**seen, "query": scope["query_string"].decode(), "headers": headers, "size": size}
    await answer(send, 200, json.dumps(told).encode())


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    methods = frozenset({"GET", "HEAD", "POST", "PUT"})
    async with serve(extra=[Route(methods, "/echo", echo)]) as running:
        yield running


async def test_http_1_and_2_are_served_on_one_port(served: Served) -> None:
    for http1 in (True, False):
        async with httpx.AsyncClient(http1=http1, http2=not http1, base_url=served.url) as client:
            reply = await client.post(
                GET, content=b'{"actionId": {"name": "a"}}', headers={"content-type": "application/json"}
            )
            assert (reply.http_version, reply.json()["state"]) == ("HTTP/1.1" if http1 else "HTTP/2", "a")
            assert "date" in reply.headers


async def test_a_request_is_told_to_the_app_as_it_was_sent(served: Served) -> None:
    async with connected(served.port) as client:
        head = client.open("/echo/a%20b?x=1&y=%2F", method="PUT", authority="localhost:81", headers=[("x-note", "n")])
        client.send(head, b"12345", end=False)
        client.send(head, b"678")
        told = json.loads((await client.until_over(head)).body)
    assert told == {
        "method": "PUT",
        "path": "/echo/a b",
        "http_version": "2",
        "scheme": "http",
        "query": "x=1&y=%2F",
        "headers": [["x-note", "n"], ["host", "localhost:81"]],
        "size": 8,
    }


async def test_a_preface_that_comes_byte_by_byte_is_one(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for byte in first_bytes.PREFACE + b"\0\0\0\4\0\0\0\0\0":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.001)
    async with asyncio.timeout(2):
        frame = await reader.readexactly(9)
    assert frame[3] == 4  # SETTINGS
    writer.close()


@pytest.mark.parametrize("start", [b"PRI", b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"])
async def test_what_begins_like_the_preface_and_goes_on_otherwise_is_http_1(served: Served, start: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(start)
    await asyncio.sleep(0.02)
    writer.write(b"OST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(2):
        line = await reader.readline()
    assert line.startswith(b"HTTP/1.1 404" if start == b"P" else b"HTTP/1.1 400")
    writer.close()


async def test_a_client_that_says_nothing_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_bytes, "PATIENCE", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_is_closed_with_a_goodbye_and_a_busy_one_is_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "KEEP_ALIVE", 0.1)
    async with connected(served.port) as idle, connected(served.port) as busy:
        await idle.until_over(idle.request(GET, b"{}", **JSON))
        watch = busy.grpc(WATCH, WatchRequest(parent_action_id={"name": "quiet"}).SerializeToString())
        await idle.until_closed()
        assert idle.goaway == 0
        await asyncio.sleep(0.2)
        assert not busy.answers[watch].over
        assert not busy.closed


async def test_an_answer_before_the_body_leaves_the_connection_as_it_was(served: Served) -> None:
    async with connected(served.port) as client:
        for _ in range(50):
            early = client.open("/echo/early")
            client.send(early, b"x" * 100, end=False)
            reply = await client.until_over(early)
            assert (reply.headers[":status"], bytes(reply.body)) == ("404", b"early")
            if client.answers[early].reset is None:
                client.send(early, b"y" * 1000, end=False)
        reply = await client.until_over(client.request(GET, b"{}", **JSON))
        assert reply.headers[":status"] == "200"


async def test_a_large_body_that_is_not_read_takes_no_room_from_other_streams(served: Served) -> None:
    async with connected(served.port) as client:
        for _ in range(80):
            stream = client.open("/echo/early")
            for _ in range(4):
                if client.answers[stream].over:
                    break
                client.send(stream, b"x" * 10_000, end=False)
                await asyncio.sleep(0)
            await client.until_over(stream)
        assert client.h2.outbound_flow_control_window > 1 << 20


async def test_a_handler_that_answers_nothing_is_a_broken_stream(served: Served) -> None:
    async with connected(served.port) as client:
        reply = await client.until_over(client.request("/echo/nothing"))
        assert (reply.ended, reply.reset) == (False, ErrorCodes.INTERNAL_ERROR)


async def test_head_is_answered_without_a_body(served: Served) -> None:
    async with connected(served.port) as client:
        reply = await client.until_over(client.request("/echo", method="HEAD"))
        assert (reply.headers[":status"], bytes(reply.body), reply.ended) == ("200", b"", True)


async def test_large_bodies_pass_both_ways(served: Served) -> None:
    async with httpx.AsyncClient(http1=False, http2=True, base_url=served.url) as client:
        body = GetRequest(action_id={"name": "n" * 5_000_000}).SerializeToString()
        for _ in range(3):
            reply = await client.post(GET, content=body, headers={"content-type": "application/proto"})
            assert len(GetResponse.FromString(reply.content).state) == 5_000_000


async def test_a_window_that_the_client_makes_smaller_is_kept(served: Served) -> None:
    async with connected(served.port, reading=False) as client:
        stream = client.request(GET, b'{"actionId": {"name": "300000"}}', **JSON)
        await eventually(lambda: len(client.answers[stream].body) == 65535)
        client.h2.update_settings({4: 10})
        client.h2.increment_flow_control_window(1 << 20)
        client.h2.increment_flow_control_window(30_000, stream)
        client.flush()
        await asyncio.sleep(0.1)
        assert len(client.answers[stream].body) == 65535
        client.h2.increment_flow_control_window(1 << 20, stream)
        client.flush()
        assert len((await client.until_over(stream)).body) > 300_000


async def test_streams_that_are_given_up_while_they_wait_for_the_window_leave_nothing_behind(served: Served) -> None:
    flood = WatchRequest(parent_action_id={"name": "flood-later"}).SerializeToString()
    async with connected(served.port, reading=False) as client:
        streams = [client.grpc(WATCH, flood) for _ in range(3)]
        await eventually(lambda: served.service.open == 3)
        connections: set[Any] = served.servers._state.connections
        (server,) = connections
        await eventually(lambda: len(server._blocked) == 3)
        for stream in streams:
            client.reset(stream)
        await eventually(lambda: served.service.open == 0 and server._handlers == 0)
        assert not server._blocked


async def test_thousands_of_requests_pass_on_one_connection(served: Served) -> None:
    async with connected(served.port) as client:
        for _ in range(60):
            streams = [client.request(GET, b"{}", **JSON) for _ in range(100)]
            await client.until_over(*streams)
            assert all(client.answers.pop(stream).headers[":status"] == "200" for stream in streams)


async def test_many_requests_at_once_are_answered_each_with_its_own(served: Served) -> None:
    async with connected(served.port) as client:
        streams = {client.request(GET, f'{{"actionId": {{"name": "{n}"}}}}'.encode(), **JSON): n for n in range(300)}
        await client.until_over(*streams)
        assert all(len(json.loads(client.answers[stream].body).get("state", "")) == n for stream, n in streams.items())


async def test_a_connection_upgrade_is_not_taken_and_loses_nothing(served: Served) -> None:
    body = b'{"actionId": {"name": "a"}}'
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUPGRADE: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    head = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{upgrade}"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    async with asyncio.timeout(2):
        for _ in range(2):
            writer.write(request)
            answered = await reader.readuntil(b"\n}")
            assert answered.startswith(b"HTTP/1.1 200")
            assert b'"state": "a"' in answered
    writer.close()


async def test_an_upgrade_that_can_not_be_left_out_is_refused(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUp")
    await asyncio.sleep(0.02)
    writer.write(b"grade: h2c\r\n\r\n")
    async with asyncio.timeout(2):
        answered = await reader.read()
    assert answered.startswith(b"HTTP/1.1 400")
    assert b"does not upgrade" in answered
    writer.close()


async def test_stopping_says_goodbye_and_lets_a_call_in_flight_finish(served: Served) -> None:
    async with connected(served.port) as client:
        call = client.request(GET, b'{"actionId": {"name": "wait"}}', **JSON)
        await asyncio.sleep(0.05)
        stop = asyncio.create_task(served.servers.stop(grace=2))
        await eventually(lambda: client.goaway == 0)
        served.service.release.set()
        assert json.loads((await client.until_over(call)).body)["state"] == "wait"
        await client.until_closed(1)
        await stop


async def test_a_stream_that_comes_after_the_goodbye_may_be_sent_again(served: Served) -> None:
    async with connected(served.port) as client:
        call = client.request(GET, b'{"actionId": {"name": "wait"}}', **JSON)
        await asyncio.sleep(0.05)
        stop = asyncio.create_task(served.servers.stop(grace=2))
        await asyncio.sleep(0.01)
        late = client.request(GET, b"{}", **JSON)
        assert (await client.until_over(late)).reset == ErrorCodes.REFUSED_STREAM
        served.service.release.set()
        await client.until_over(call)
        await stop
