import asyncio
import json
import os
import struct
import zlib
from collections.abc import AsyncIterator

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.workflow.state_service_pb2 import WatchRequest

from flyte_manager.rpc.asgi import Message, Receive, Scope, Send
from flyte_manager.rpc.guard import Guard
from tests.unit.rpc.serving import SECRET, WATCH, Served, eventually, serve


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve() as running:
        yield running


def named(name: str) -> WatchRequest:
    return WatchRequest(parent_action_id={"name": name})


class Stream:
    """A stream as the bytes on the wire show it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> dict[str, str]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 200 OK"
        return dict(line.split(": ", 1) for line in lines[1:] if line)

    async def rest(self) -> tuple[list[bytes], bool]:
        """The envelopes that still come, and whether the response was complete."""
        body, complete = b"", False
        while line := await self.reader.readline():
            size = int(line, 16)
            body += (await self.reader.readexactly(size + 2))[:-2]
            if size == 0:
                complete = True
                break
        found = []
        while body:
            flags, size = struct.unpack(">BI", body[:5])
            content, body = body[5 : 5 + size], body[5 + size :]
            found.append(zlib.decompress(content, 31) if flags & 1 else content)
        return found, complete


async def open_stream(served: Served, name: str, *, accept: str = "gzip,identity", extra: str = "") -> Stream:
    message = named(name).SerializeToString()
    body = struct.pack(">BI", 0, len(message)) + message
    head = (
        f"POST {WATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+proto\r\n"
        f"Connect-Accept-Encoding: {accept}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head.encode() + body)
    return Stream(reader, writer)


async def test_a_stream_delivers_its_messages_and_ends(served: Served) -> None:
    messages = [message async for message in served.client().watch(named(""))]
    assert [message.control_message.sentinel for message in messages] == [True] * 3


@pytest.mark.parametrize("accept", ["gzip,identity", "gzip", "identity", "br, gzip", "", "br"])
async def test_the_headers_of_a_quiet_stream_come_at_once_and_equal_those_of_a_busy_one(
    served: Served, accept: str
) -> None:
    quiet = await open_stream(served, "quiet", accept=accept)
    busy = await open_stream(served, "stay", accept=accept)
    async with asyncio.timeout(1):
        first, second = await quiet.head(), await busy.head()
    first.pop("date"), second.pop("date")
    assert first == second
    quiet.writer.close()
    busy.writer.close()


async def test_a_refusal_after_the_headers_arrives_as_the_end_of_the_stream(served: Served) -> None:
    with pytest.raises(ConnectError) as caught:
        _ = [message async for message in served.client().watch(named("missing-later"))]
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("name", ["fault", "cancelled-inside"])
async def test_a_fault_in_a_stream_is_never_a_clean_end_and_shows_nothing(served: Served, name: str) -> None:
    with pytest.raises(ConnectError) as caught:
        _ = [message async for message in served.client().watch(named(name))]
    assert caught.value.code is Code.INTERNAL
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("name", ["quiet", "stay", "flood"])
async def test_a_stream_ends_within_a_second_of_its_clients_disconnect(served: Served, name: str) -> None:
    stream = await open_stream(served, name, accept="")
    await eventually(lambda: served.service.open == 1)
    await stream.head()
    stream.writer.transport.abort()
    await eventually(lambda: served.service.ended == [name], seconds=1)


async def test_a_deadline_ends_a_stream_with_deadline_exceeded(served: Served) -> None:
    stream = await open_stream(served, "stay", accept="", extra="Connect-Timeout-Ms: 150\r\n")
    await stream.head()
    envelopes, complete = await stream.rest()
    assert complete
    assert json.loads(envelopes[-1])["error"]["code"] == "deadline_exceeded"
    assert served.service.ended == ["stay"]
    stream.writer.close()


async def test_three_hundred_streams_end_with_unavailable_when_the_manager_stops(served: Served) -> None:
    streams = [await open_stream(served, "quiet" if n % 2 else "stay", accept="") for n in range(300)]
    await eventually(lambda: served.service.open == 300)
    began = asyncio.get_running_loop().time()
    await served.servers.stop()
    assert asyncio.get_running_loop().time() - began < 1.5  # by themselves, not cut at the end of the grace of 2 s
    assert served.service.open == 0
    for stream in streams:
        await stream.head()
        envelopes, complete = await stream.rest()
        assert complete
        assert json.loads(envelopes[-1])["error"]["code"] == "unavailable"
        stream.writer.close()


async def test_a_stream_that_is_opened_while_the_manager_stops_is_unavailable(served: Served) -> None:
    served.stopping.set()
    with pytest.raises(ConnectError) as caught:
        _ = [message async for message in served.client().watch(named("stay"))]
    assert caught.value.code is Code.UNAVAILABLE
    assert "reconnect" in caught.value.message


async def test_a_reader_that_does_not_read_is_cut_and_never_sees_a_clean_end(served: Served) -> None:
    idle, listening = len(os.listdir("/dev/fd")), 4
    stream = await open_stream(served, "flood", accept="")
    await eventually(lambda: served.service.open == 1)
    await asyncio.sleep(0.3)
    began = asyncio.get_running_loop().time()
    await served.servers.stop(grace=0.3)
    assert asyncio.get_running_loop().time() - began < 1.5
    assert len(os.listdir("/dev/fd")) <= idle - listening + 1
    await stream.head()
    try:
        _, complete = await stream.rest()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        complete = False
    assert not complete
    stream.writer.close()


async def test_a_cancelled_call_whose_cancel_nobody_took_back_sends_no_end() -> None:
    sent: list[Message] = []
    never = asyncio.Event()

    async def like_connectrpc(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await never.wait()
        finally:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    call = asyncio.create_task(Guard(like_connectrpc, limit=1)({"headers": []}, receive, send))
    await eventually(lambda: bool(sent))
    call.cancel()
    await call
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_unary_call_in_flight_gets_to_finish_within_the_grace(served: Served) -> None:
    body = b'{"actionId": {"name": "wait"}}'
    call = asyncio.create_task(served.post("/flyteidl2.workflow.StateService/Get", body))
    await eventually(lambda: served.service.begun == ["wait"])
    stop = asyncio.create_task(served.servers.stop(grace=2))
    await asyncio.sleep(0.1)
    served.service.release.set()
    assert (await call).json()["state"] == "wait"
    await stop


async def test_a_unary_call_that_outlasts_the_grace_is_unavailable(served: Served) -> None:
    body = b'{"actionId": {"name": "hang"}}'
    call = asyncio.create_task(served.post("/flyteidl2.workflow.StateService/Get", body))
    await eventually(lambda: served.service.begun == ["hang"])
    await served.servers.stop(grace=0.2)
    reply = await call
    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
