"""A client of HTTP/2 that does what it is told, also what no good client does: on the state machine of `h2`."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from hyperframe.frame import Frame, GoAwayFrame

Pairs = Sequence[tuple[str, str]]


@dataclass
class Answer:
    """What came back on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: ErrorCodes | int | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class _Patient(H2Connection):
    """h2 takes a GOAWAY for the end; it is the beginning of it, and answers may follow."""

    goaway: int | None = None

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[events.Event]]:
        self.goaway = frame.error_code
        return [], []


class Http2Client:
    """One connection. `reading=False` keeps every window as small as it is: nothing is acknowledged."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reading: bool) -> None:
        self.reader, self.writer = reader, writer
        self.reading = reading
        self.h2 = _Patient(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.answers: dict[int, Answer] = {}
        self.closed = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def goaway(self) -> int | None:
        """The error code of the server's GOAWAY."""
        return self.h2.goaway

    def start(self) -> None:
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.writer.transport.abort()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def open(self, path: str, *, method: str = "POST", headers: Pairs = (), authority: str = "localhost") -> int:
        """Sends the head of a request, whose body is to come; the number of the stream."""
        stream_id = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", authority)]
        self.answers[stream_id] = Answer()
        self.h2.send_headers(stream_id, [*pseudo, *headers])
        self.flush()
        return stream_id

    def send(self, stream_id: int, data: bytes, *, end: bool = True) -> None:
        self.h2.send_data(stream_id, data, end_stream=end)
        self.flush()

    def request(self, path: str, body: bytes = b"", **settings: str) -> int:
        """A whole request with a small body; `settings`: headers, with _ for -, and method and authority."""
        method, authority = settings.pop("method", "POST"), settings.pop("authority", "localhost")
        headers = [(name.replace("_", "-"), value) for name, value in settings.items()]
        stream_id = self.open(path, method=method, authority=authority, headers=headers)
        self.send(stream_id, body)
        return stream_id

    def grpc(self, path: str, message: bytes = b"", **headers: str) -> int:
        framed = struct.pack(">BI", 0, len(message)) + message
        return self.request(path, framed, content_type="application/grpc", te="trailers", **headers)

    def reset(self, stream_id: int) -> None:
        self.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        self.flush()

    async def until_over(self, *stream_ids: int, seconds: float = 5.0) -> Answer:
        """Waits until these streams have ended; the last one's answer."""
        async with asyncio.timeout(seconds):
            while not all(self.answers[stream_id].over for stream_id in stream_ids):
                assert not self.closed, "the server closed the connection"
                self._news.clear()
                await self._news.wait()
        return self.answers[stream_ids[-1]]

    async def until_closed(self, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not self.closed:
                self._news.clear()
                await self._news.wait()

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(1 << 16):
                for event in self.h2.receive_data(data):
                    self._handle(event)
                self.flush()
                self._news.set()
        except ConnectionError:
            pass
        finally:
            self.closed = True
            self._news.set()

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.ResponseReceived():
                self.answers[event.stream_id].headers = _texts(event.headers)
            case events.TrailersReceived():
                self.answers[event.stream_id].trailers = _texts(event.headers)
            case events.DataReceived():
                self.answers[event.stream_id].body += event.data
                if self.reading:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.StreamEnded():
                self.answers[event.stream_id].ended = True
            case events.StreamReset():
                self.answers[event.stream_id].reset = event.error_code


def _texts(headers: object) -> dict[str, str]:
    assert isinstance(headers, list)
    return {str(name): str(value) for name, value in headers}


@asynccontextmanager
async def connected(port: int, *, reading: bool = True, window: int = 65535) -> AsyncIterator[Http2Client]:
    """`window`: how many bytes of each answer's body the server may send before it is told that they were read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Http2Client(reader, writer, reading=reading)
    client.h2.initiate_connection()
    if window != 65535:
        client.h2.update_settings({4: window})
    client.flush()
    client.start()
    try:
        yield client
    finally:
        await client.close()
