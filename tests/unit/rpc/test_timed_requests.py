"""Clients that begin a request and never end it, under a short clock."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from flyte_manager.rpc import server, timed_requests
from flyte_manager.rpc.timed_requests import TimedRequests
from flyte_manager.rpc.tls import load_identity
from tests.certificates import issue
from tests.unit.rpc.serving import GET, WATCH, Served, eventually, raw, serve

LATE = 0.2
HEAD = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
STREAM = f"POST {WATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+proto\r\n".encode()
BODY = b'{"actionId": {"name": "a"}}'


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(timed_requests, "LATE", LATE)
    async with serve() as running:
        yield running


@pytest.fixture
async def patient(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Whose timers go off by `pass_time` alone."""
    monkeypatch.setattr(timed_requests, "LATE", 3600)
    return served


class Client:
    """A connection of which each byte is chosen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def trickle(self, content: bytes, *, every: float, at_once: int = 1) -> bool:
        """Whether all could be sent."""
        with suppress(ConnectionError):
            for first in range(0, len(content), at_once):
                self.writer.write(content[first : first + at_once])
                await self.writer.drain()
                await asyncio.sleep(every)
            return not self.reader.at_eof()
        return False

    async def ask(self) -> str:
        """The status of one whole call."""
        self.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        return await self.answer()

    async def answer(self) -> str:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            await self.reader.readuntil(b"0\r\n\r\n")
        else:
            await self.reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))
        return head.split()[1]


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    yield Client(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_head_that_does_not_end_is_answered_after_a_time(served: Served) -> None:
    told = await raw(served.port, b"GET /healthz HTTP/1.1\r\nhost: local")
    assert told.startswith(b"HTTP/1.1 408 ")
    assert told.endswith(b"connection: close\r\n\r\nthe request's head was not complete after 0.2 seconds\n")


@pytest.mark.parametrize("line", [b"x: y\r\n", b"\r\n"])
async def test_a_head_that_comes_in_drops_gains_no_time(client: Client, line: bytes) -> None:
    start = b"" if line == b"\r\n" else HEAD
    assert not await client.trickle(start + line * 100, every=LATE / 10, at_once=len(line))


async def test_a_body_that_does_not_end_is_answered_after_a_time(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    told = await raw(served.port, HEAD + b"Content-Length: 100\r\n\r\n" + BODY)
    assert told.startswith(b"HTTP/1.1 408 ")
    assert told.endswith(b"less than 1024 bytes of the request's body came in 0.2 seconds\n")
    chunked = await raw(served.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n")
    assert chunked.startswith(b"HTTP/1.1 408 ")
    second = await raw(
        served.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD + b"Content-Length: 9\r\n\r\n"
    )
    assert b" 200 " in second
    assert b" 408 " in second
    await served.servers.stop(grace=0.1)
    assert "had not ended" not in caplog.text


def timer(served: Served) -> asyncio.TimerHandle | None:
    """Of the only connection."""
    found = (each._timer for each in served.servers._state.connections if isinstance(each, TimedRequests))
    return next(found, None)


async def pass_time(served: Served) -> None:
    """The connection's timer, if it has one, goes off."""
    await asyncio.sleep(0.05)  # what was sent is there
    running = timer(served)
    if running is not None:
        running._run()
        running.cancel()


async def test_a_body_that_comes_slowly_is_waited_for(
    patient: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_requests, "LEAST", 5)
    client.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:5])
    await eventually(lambda: timer(patient) is not None)
    for first in range(5, 20, 5):
        client.writer.write(BODY[first : first + 5])
        await pass_time(patient)
    client.writer.write(BODY[20:])
    assert await client.answer() == "200"


async def test_an_idle_connection_stays_and_gets_a_new_time_for_each_part(patient: Served, client: Client) -> None:
    for _ in range(3):
        assert await client.ask() == "200"
        assert timer(patient) is None
    client.writer.write(HEAD)
    await eventually(lambda: timer(patient) is not None)
    of_head = timer(patient)
    client.writer.write(b"Content-Length: %d\r\n\r\n" % len(BODY))
    await eventually(lambda: timer(patient) not in (None, of_head))
    client.writer.write(BODY)
    assert await client.answer() == "200"
    assert timer(patient) is None


async def test_a_call_that_takes_long_is_not_cut(patient: Served, client: Client) -> None:
    body = BODY.replace(b'"a"', b'"wait"')
    client.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"GET /hea")
    await pass_time(patient)
    client.writer.write(b"lthz")
    await pass_time(patient)
    patient.service.release.set()
    assert await client.answer() == "200"
    client.writer.write(b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await client.answer() == "200"


async def test_a_stream_of_messages_may_rest_between_them(patient: Served, client: Client) -> None:
    message = struct.pack(">BI", 0, 0)
    client.writer.write(STREAM + b"Transfer-Encoding: chunked\r\n\r\n2\r\n" + message[:2] + b"\r\n")
    await pass_time(patient)
    client.writer.write(b"3\r\n" + message[2:] + b"\r\n0\r\n\r\n")
    assert (await client.reader.readline()).startswith(b"HTTP/1.1 200 ")


async def test_what_stays_away_after_a_refusal_is_closed_without_a_second_word(served: Served) -> None:
    told = await raw(served.port, HEAD + b"Content-Length: 99999999999\r\n\r\n" + BODY)
    assert told.count(b"HTTP/1.1 ") == 1
    assert told.startswith(b"HTTP/1.1 413 ")


async def test_with_tls_a_connection_that_never_speaks_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE", LATE)
    files = issue(tmp_path, "localhost", "127.0.0.1")
    identity = load_identity(str(files.certificate), str(files.key))
    assert identity is not None
    trust = ssl.create_default_context(cafile=str(files.authority))
    trust.set_alpn_protocols(["http/1.1"])
    async with serve(tls=identity.context) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trust)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await eventually(lambda: not running.servers._state.connections)
