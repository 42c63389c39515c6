"""What a client of HTTP/2 can do that HTTP/1.1 knows not: none of it costs more than itself, or hurts others."""

import asyncio
import gzip
import os
import random
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from flyteidl2.workflow.state_service_pb2 import WatchRequest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

from flyte_manager.rpc import http2
from flyte_manager.rpc.first_bytes import PREFACE
from tests.unit.rpc.raw_http2 import Answer, Http2Client, connected
from tests.unit.rpc.serving import GET, WATCH, Served, eventually, serve

JSON = {"content_type": "application/json"}
MIB = 1 << 20


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve(allowed_hosts=["flyte.example.com"]) as running:
        yield running


@pytest.fixture
async def bystander(served: Served) -> AsyncIterator[Http2Client]:
    """Another client, with a stream of its own, that must be as well after the attack as it was before."""
    async with connected(served.port) as client:
        watch = client.grpc(WATCH, watched("stay"))
        await eventually(lambda: bool(client.answers[watch].body))
        yield client
        assert not client.answers[watch].over
        assert await status(client) == "200"


def watched(name: str) -> bytes:
    return WatchRequest(parent_action_id={"name": name}).SerializeToString()


async def status(client: Http2Client, path: str = GET, **headers: str) -> str:
    return (await client.until_over(client.request(path, b"{}", **(JSON | headers)))).headers[":status"]


class RawFrames:
    """A connection that writes frames as they are, and reads only what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int, *, receive_buffer: int = 0) -> "RawFrames":
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(PREFACE + SettingsFrame(0).serialize())
        return cls(reader, writer)

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    async def frame(self) -> Frame:
        """The next one."""
        frame, length = Frame.parse_frame_header(memoryview(await self.reader.readexactly(9)))
        frame.parse_body(memoryview(await self.reader.readexactly(length)))
        return frame

    async def goodbye(self) -> int | None:
        """The code of the GOAWAY with which the server closes; None when it closes without. Fails when it doesn't."""
        code = None
        try:
            async with asyncio.timeout(5):
                while True:
                    frame = await self.frame()
                    code = frame.error_code if isinstance(frame, GoAwayFrame) else code
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.writer.close()
        return code


# the gate


@pytest.mark.parametrize("authority", ["localhost:8090", "127.0.0.1", "[::1]:1", "Flyte.Example.com"])
async def test_known_authorities_pass(served: Served, authority: str) -> None:
    async with connected(served.port) as client:
        assert await status(client, authority=authority) == "200"


@pytest.mark.parametrize("authority", ["evil.example.com", "localhost.evil.org", "127.0.0.1.evil.org"])
async def test_foreign_authorities_are_refused(served: Served, authority: str) -> None:
    async with connected(served.port) as client:
        assert await status(client, authority=authority) == "403"
        assert await status(client, "/healthz", authority=authority) == "403"
        assert await status(client, "/healthz", authority=authority, method="GET") == "200"


async def test_foreign_origins_are_refused(served: Served) -> None:
    async with connected(served.port) as client:
        assert await status(client, authority="localhost:8090", origin="http://localhost:8090") == "200"
        for origin in ("null", "http://evil.org", "https://localhost:8090"):
            assert await status(client, authority="localhost:8090", origin=origin) == "403"


@pytest.mark.parametrize(
    "headers",
    [
        [(":authority", "localhost"), ("host", "evil.org")],
        [(":authority", "evil.org"), ("host", "localhost")],
        [("host", "evil.org"), ("host", "localhost")],
        [(":authority", "localhost"), (":authority", "evil.org")],
        [],
    ],
)
async def test_two_names_or_none_get_nowhere(served: Served, headers: list[tuple[str, str]]) -> None:
    pseudo = [(":method", "POST"), (":path", GET), (":scheme", "http")]
    given = [*pseudo, *headers, ("content-type", "application/json")]
    raw = await RawFrames.to(served.port)
    raw.send(HeadersFrame(1, Encoder().encode(given), flags=["END_HEADERS", "END_STREAM"]))
    await asyncio.sleep(0.1)
    raw.writer.write_eof()
    await raw.goodbye()
    assert served.service.ended == []


@pytest.mark.parametrize(
    ("name", "value"), [("connection", "close"), ("transfer-encoding", "chunked"), ("x-a", "b\r\nx-c: d"), ("X-A", "b")]
)
@pytest.mark.usefixtures("bystander")
async def test_headers_that_http_2_forbids_end_the_connection(served: Served, name: str, value: str) -> None:
    raw = await RawFrames.to(served.port)
    head = [(":method", "POST"), (":path", GET), (":scheme", "http"), (":authority", "localhost"), (name, value)]
    raw.send(HeadersFrame(1, Encoder().encode(head), flags=["END_HEADERS", "END_STREAM"]))
    assert await raw.goodbye() == ErrorCodes.PROTOCOL_ERROR
    assert served.service.ended == []


@pytest.mark.parametrize(
    "head",
    [
        [(":method", "CONNECT"), (":authority", "localhost:80")],
        [(":method", "OPTIONS"), (":path", "*"), (":scheme", "http"), (":authority", "localhost")],
        [(":method", "GET"), (":path", "/\xff"), (":scheme", "http"), (":authority", "localhost")],
        [(":method", "GET"), (":path", "http://evil.org/"), (":scheme", "http"), (":authority", "localhost")],
    ],
)
async def test_what_asks_for_no_path_is_reset(served: Served, head: list[tuple[str, str]]) -> None:
    raw = await RawFrames.to(served.port)
    coded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head]
    raw.send(HeadersFrame(1, Encoder().encode(coded), flags=["END_HEADERS", "END_STREAM"]))
    async with asyncio.timeout(2):
        frames = [await raw.frame() for _ in range(4)]
    assert [type(frame).__name__ for frame in frames][-1] == "RstStreamFrame"
    raw.writer.close()


# floods


@pytest.mark.parametrize("name", ["quiet", "stay", "flood"])
@pytest.mark.usefixtures("bystander")
async def test_streams_cancelled_at_once_leave_bystanders_alive(served: Served, name: str) -> None:
    async with connected(served.port) as client:
        kept = client.grpc(WATCH, watched("stay"))
        for _ in range(3):
            streams = [client.grpc(WATCH, watched(name)) for _ in range(300)]
            for stream in streams:
                client.reset(stream)
        assert await status(client) == "200"
        assert not client.answers[kept].over
        await eventually(lambda: served.service.open == 2)


@pytest.mark.usefixtures("bystander")
async def test_streams_that_are_reset_in_the_same_breath_as_they_are_refused_hurt_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http2, "MOST_HANDLERS", 0)
    async with connected(served.port) as client:
        streams = []
        for _ in range(20):
            streams.append(client.h2.get_next_available_stream_id())
            client.answers[streams[-1]] = Answer()
            head = [(":method", "POST"), (":path", GET), (":scheme", "http"), (":authority", "localhost")]
            client.h2.send_headers(streams[-1], head)
            client.h2.reset_stream(streams[-1])
        client.flush()
        await asyncio.sleep(0.05)
        monkeypatch.undo()
        assert await status(client) == "200"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.usefixtures("bystander")
async def test_resets_without_end_never_hold_more_than_the_handlers_that_there_may_be(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "MOST_HANDLERS", 50)
    async with connected(served.port) as client:
        streams = [client.request(GET, b'{"actionId": {"name": "hang"}}', **JSON) for _ in range(300)]
        await eventually(lambda: sum(answer.over for answer in client.answers.values()) == 250)
        refused = [stream for stream in streams if client.answers[stream].over]
        assert {client.answers[stream].reset for stream in refused} == {ErrorCodes.REFUSED_STREAM}
        for stream in streams:
            if stream not in refused:
                client.reset(stream)
        await eventually(lambda: len(served.service.ended) == 50)
        assert await status(client) == "200"


@pytest.mark.usefixtures("bystander")
async def test_more_streams_than_allowed_end_the_connection_of_who_opens_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(http2.SETTINGS, SettingCodes.MAX_CONCURRENT_STREAMS, 20)
    raw = await RawFrames.to(served.port)
    encoder = Encoder()
    head = [(":method", "POST"), (":path", GET), (":scheme", "http"), (":authority", "localhost")]
    head.append(("content-type", "application/proto"))  # so that each waits for its body
    for number in range(1, 60, 2):
        raw.send(HeadersFrame(number, encoder.encode(head), flags=["END_HEADERS"]))
    assert await raw.goodbye() == ErrorCodes.PROTOCOL_ERROR


@pytest.mark.usefixtures("bystander")
async def test_a_head_that_is_too_large_ends_the_connection(served: Served) -> None:
    encoder = Encoder()
    head = [(":method", "POST"), (":path", GET), (":scheme", "http"), (":authority", "localhost")]
    block = encoder.encode([*head, *((f"x-{n}", "v" * 1000) for n in range(80))], huffman=False)
    raw = await RawFrames.to(served.port)
    raw.send(HeadersFrame(1, block[:16_000]))
    raw.send(*(ContinuationFrame(1, block[start : start + 16_000]) for start in range(16_000, len(block), 16_000)))
    raw.send(ContinuationFrame(1, b"", flags=["END_HEADERS"]))
    assert await raw.goodbye() == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.usefixtures("bystander")
async def test_a_small_head_that_unpacks_to_a_large_one_costs_no_memory(served: Served) -> None:
    encoder = Encoder()
    head = [(":method", "POST"), (":path", GET), (":scheme", "http"), (":authority", "localhost")]
    block = encoder.encode([*head, ("x-bomb", "v" * 4000)]) + b"\xbe" * 12_000  # the same header 12,000 times more
    raw = await RawFrames.to(served.port)
    tracemalloc.start()
    try:
        raw.send(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]))
        code = await raw.goodbye()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert code == ErrorCodes.ENHANCE_YOUR_CALM
    assert peak < 4 * MIB


@pytest.mark.usefixtures("bystander")
async def test_a_small_message_of_grpc_that_unpacks_to_a_large_one_costs_no_memory(served: Served) -> None:
    bomb = gzip.compress(bytes(256 * MIB), compresslevel=9)
    framed = struct.pack(">BI", 1, len(bomb)) + bomb
    given = {"content_type": "application/grpc", "te": "trailers", "grpc_encoding": "gzip"}
    async with connected(served.port) as client:
        await status(client)  # afterwards the windows are as wide as they get
        tracemalloc.start()
        try:
            for path in (GET, WATCH):
                stream = client.open(path, headers=[(name.replace("_", "-"), value) for name, value in given.items()])
                for start in range(0, len(framed), 16_000):
                    while client.h2.local_flow_control_window(stream) < 16_000:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    client.send(stream, framed[start : start + 16_000], end=False)
                client.send(stream, b"")
                assert (await client.until_over(stream)).trailers["grpc-status"] == "8"
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * MIB


@pytest.mark.usefixtures("bystander")
async def test_continuations_without_end_are_cut_short(served: Served) -> None:
    for piece in (b"", b"\0" * 16_000):
        raw = await RawFrames.to(served.port)
        raw.send(HeadersFrame(1, Encoder().encode([(":method", "POST")])))
        raw.send(*(ContinuationFrame(1, piece) for _ in range(1000)))
        assert await raw.goodbye() in (ErrorCodes.PROTOCOL_ERROR, ErrorCodes.ENHANCE_YOUR_CALM, None)


@pytest.mark.parametrize("frame", [PingFrame(0, b"12345678"), SettingsFrame(0, {4: 65535})])
async def test_who_asks_and_reads_no_answer_is_not_read_either(
    served: Served, bystander: Http2Client, frame: Frame
) -> None:
    raw = await RawFrames.to(served.port, receive_buffer=4096)
    raw.reader._transport.pause_reading()  # type: ignore[attr-defined]
    raw.writer.transport.set_write_buffer_limits(high=1 << 16)
    flood = frame.serialize() * 4000

    sent = 0

    async def send_all() -> None:
        nonlocal sent
        while sent < 64 * MIB:
            raw.writer.write(flood)
            async with asyncio.timeout(1):
                await raw.writer.drain()
            sent += len(flood)

    with pytest.raises(TimeoutError):
        await send_all()
    assert await status(bystander) == "200"
    raw.writer.transport.abort()


@pytest.mark.usefixtures("bystander")
async def test_a_client_that_never_opens_its_window_holds_one_message_of_each_stream(served: Served) -> None:
    before = len(os.listdir("/dev/fd"))
    async with connected(served.port, reading=False, window=0) as client:
        streams = [client.grpc(WATCH, watched("flood")) for _ in range(100)]
        await eventually(lambda: served.service.open == 101)
        tracemalloc.start()
        try:
            await asyncio.sleep(1)
            grown = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert grown < 4 * MIB
        assert all(client.answers[stream].body == b"" for stream in streams)
    await eventually(lambda: served.service.open == 1)
    assert len(os.listdir("/dev/fd")) <= before + 1


async def test_a_client_that_stops_reading_its_socket_holds_no_more_than_that(
    served: Served, bystander: Http2Client
) -> None:
    async with connected(served.port, window=(1 << 31) - 1) as client:
        client.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
        client.flush()
        assert client.reader._transport is not None  # type: ignore[attr-defined]
        for _ in range(20):
            client.grpc(WATCH, watched("flood"))
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: served.service.open == 21)
        tracemalloc.start()
        try:
            await asyncio.sleep(1)
            grown = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert grown < 8 * MIB
        assert await status(bystander) == "200"


async def test_bodies_that_nobody_reads_are_held_to_the_windows(served: Served) -> None:
    async with connected(served.port) as client:
        assert client.h2.remote_settings.initial_window_size <= 65535
        await status(client)
        assert client.h2.remote_settings.initial_window_size == http2.STREAM_WINDOW
        assert client.h2.outbound_flow_control_window <= http2.CONNECTION_WINDOW


@pytest.mark.usefixtures("bystander")
async def test_noise_after_the_preface_hurts_nobody_else(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    for _ in range(100):
        raw = await RawFrames.to(served.port)
        for _ in range(chance.randrange(1, 6)):
            body = chance.randbytes(chance.randrange(0, 40))
            kind, flags, stream = chance.randrange(12), chance.randrange(256), chance.choice([0, 1, 1, 2, 3, 1 << 30])
            length = chance.choice([len(body), len(body), len(body) + 1, 1 << 20])
            raw.writer.write(struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body)
        await asyncio.sleep(0)
        raw.writer.close()
    await eventually(lambda: served.service.open == 1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
