"""HTTP/2: one connection, on the state machine of the library `h2`; each of its streams is a task that runs the app.

    bytes ──▶ h2 ──events──▶ Stream.feed …        what an app has not read keeps its window closed
    bytes ◀── h2 ◀──frames── Stream.send          waits for the client's window, and for the socket to take more

All frames of one turn of the event loop leave in one write. What a client can make us keep is bounded: headers by `h2`
(64 KiB, 64 CONTINUATION frames), bodies by the windows, answers by one message a stream, and what `h2` answers by
itself (PING, SETTINGS) by reading nothing while the socket takes nothing. Streams that the client resets count until
their handler is over.

The end (`shutdown`): GOAWAY, new streams are refused, and the connection closes with its last stream.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from uvicorn.server import ServerState

from flyte_manager.rpc.asgi import ASGIApp, Header, Scope
from flyte_manager.rpc.http2_stream import Stream, scope_of

MOST_STREAMS = 2000
MOST_HANDLERS = 2 * MOST_STREAMS
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
DEFAULT_WINDOW = 65535
LARGEST_HEAD = 64 << 10
LITTLE = 4 << 10
MUCH = 64 << 10
"""bytes: of what has come, those that are taken in one turn; of what leaves, those that don't wait for its end"""

KEEP_ALIVE = 75
CONFIG = H2Configuration(
    client_side=False, header_encoding=None, normalize_outbound_headers=False, validate_outbound_headers=False
)
SETTINGS = {
    SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
    SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    SettingCodes.MAX_HEADER_LIST_SIZE: LARGEST_HEAD,
}

log = logging.getLogger(__name__)


class Http2(asyncio.Protocol):
    """One connection of a client that speaks HTTP/2. `state` is what all connections of the process share."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._connections: set[Any] = state.connections
        self._tasks = state.tasks
        self._state = state
        self._loop = asyncio.get_running_loop()
        self.h2 = H2Connection(CONFIG)
        self.h2.local_settings = Settings(client=False, initial_values=SETTINGS)
        self._streams: dict[int, Stream] = {}
        self._blocked: set[Stream] = set()
        self._handlers = 0
        self._ending = False
        self._flushing: asyncio.Handle | None = None
        self._unsent = 0
        self._full = False
        self._untaken = bytearray()
        self._taking: asyncio.Handle | None = None
        self._idle_since = 0.0
        self._idling: asyncio.TimerHandle | None = None
        self._shared_scope: Scope = {}
        self.transport: asyncio.Transport

    @property
    def date(self) -> Iterable[Header]:
        return self._state.default_headers

    # asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # all of ours can write
        self.transport = transport
        self._connections.add(self)
        secure = transport.get_extra_info("ssl_object") is not None
        self._shared_scope = {
            "scheme": "https" if secure else "http",
            "client": _address(transport.get_extra_info("peername")),
            "server": _address(transport.get_extra_info("sockname")),
        }
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)
        self.flush()
        self._idle_since = self._loop.time()
        self._idling = self._loop.call_later(KEEP_ALIVE, self._close_if_idle)

    def data_received(self, data: bytes) -> None:
        self._untaken += data
        self._take()

    def pause_writing(self) -> None:
        self._full = True
        self._regulate()

    def resume_writing(self) -> None:
        self._full = False
        self._regulate()
        self._wake_all()
        self._take()

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        self._untaken.clear()
        if self._idling is not None:
            self._idling.cancel()
        self._lose_all()

    def shutdown(self) -> None:
        """The manager ends: no new streams, and the connection closes with the last one."""
        self._ending = True
        self._say_goodbye()
        if not self._streams:
            self._close()

    # the streams' side

    def room(self, stream_id: int) -> int:
        """How many bytes of a body may be sent now."""
        if self._full:
            return 0
        # A client that makes its window smaller afterwards makes it negative.
        return max(0, min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size))

    async def until_room(self, stream: Stream) -> None:
        """Waits until there may be room for this stream, or it is lost."""
        self._blocked.add(stream)
        try:
            await stream.woken()
        finally:
            self._blocked.discard(stream)

    def send_data(self, stream_id: int, data: bytes, *, last: bool) -> None:
        self.h2.send_data(stream_id, data, end_stream=last)
        self._unsent += len(data)
        if self._unsent > MUCH:
            self.flush()
        else:
            self.flush_soon()

    def send_headers(self, stream_id: int, headers: list[Header], *, last: bool) -> None:
        self.h2.send_headers(stream_id, headers, end_stream=last)
        self.flush_soon()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """The app has taken `size` bytes of a body: the client may send as many again."""
        self.h2.acknowledge_received_data(size, stream_id)
        self.flush_soon()

    def flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._unsent = 0
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    # inside

    def _take(self) -> None:
        """Lets h2 have what has come, little by little, so that a flood of small frames lets others have their turn."""
        if self._full or self._taking is not None or not self._untaken:
            return
        piece = bytes(self._untaken[:LITTLE])
        del self._untaken[:LITTLE]
        try:
            received = self.h2.receive_data(piece)
        except ProtocolError as error:
            log.debug("a client's HTTP/2 is wrong: %s", error)
            self._close()
            return
        for event in received:
            self._handle(event)
        self.flush_soon()
        if self._untaken:
            self._taking = self._loop.call_soon(self._take_more)
        self._regulate()

    def _take_more(self) -> None:
        self._taking = None
        self._take()

    def _regulate(self) -> None:
        """Reads from the socket while there is nothing to be taken and the socket takes what is written."""
        if self.transport.is_closing():
            return
        if self._full or self._untaken:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                self._begin(event)
            case events.DataReceived():
                stream = self._streams.get(event.stream_id)
                if stream is None:
                    self.acknowledge(event.stream_id, event.flow_controlled_length)
                else:
                    stream.feed(event.data, event.flow_controlled_length)
            case events.StreamEnded(stream_id=stream_id) if stream_id in self._streams:
                self._streams[stream_id].feed_end()
            case events.StreamReset(stream_id=stream_id) if stream_id in self._streams:
                self._streams.pop(stream_id).lose()
            case events.WindowUpdated(stream_id=stream_id) if stream_id in self._streams:
                self._streams[stream_id].wake()
            case events.WindowUpdated(stream_id=0) | events.RemoteSettingsChanged():
                self._wake_all()
            case events.ConnectionTerminated():
                self._close()

    def _begin(self, event: events.RequestReceived) -> None:
        stream_id = event.stream_id
        if self._ending or self._handlers >= MOST_HANDLERS:
            self._refuse(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        scope = scope_of(event.headers, self._shared_scope)
        if scope is None:
            self._refuse(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        stream = Stream(stream_id, self, silent=scope["method"] == "HEAD")
        self._streams[stream_id] = stream
        self._handlers += 1
        task = self._loop.create_task(self._run(stream, scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self, stream_id: int, code: ErrorCodes) -> None:
        with suppress(StreamClosedError):  # the client has reset it in the same breath
            self.h2.reset_stream(stream_id, code)

    async def _run(self, stream: Stream, scope: Scope) -> None:
        try:
            await self._app(scope, stream.receive, stream.send)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
        finally:
            self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """The handler is over: what is left of the stream ends."""
        self._handlers -= 1
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
            if not stream.answered and not self._ending:
                self.h2.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
            elif stream.answered and not stream.whole:
                self.h2.reset_stream(stream.id, ErrorCodes.NO_ERROR)
            self.flush_soon()
        if not self._streams:
            self._idle_since = self._loop.time()
            if self._ending:
                self._close()

    def _close_if_idle(self) -> None:
        left = KEEP_ALIVE if self._streams else self._idle_since + KEEP_ALIVE - self._loop.time()
        if left > 0:
            self._idling = self._loop.call_later(left, self._close_if_idle)
        else:
            self._say_goodbye()
            self._close()

    def _say_goodbye(self) -> None:
        """Not by `h2.close_connection`, after which h2 would send nothing more for the streams that still run."""
        self.flush()
        if not self.transport.is_closing():
            self.transport.write(GoAwayFrame(0, last_stream_id=self.h2.highest_inbound_stream_id).serialize())

    def _close(self) -> None:
        """Closes when all is written; what still runs is lost."""
        if not self.transport.is_closing():
            self.flush()
            self.transport.close()
        self._untaken.clear()
        self._lose_all()

    def _lose_all(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lose()

    def _wake_all(self) -> None:
        for stream in self._blocked:
            stream.wake()


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
