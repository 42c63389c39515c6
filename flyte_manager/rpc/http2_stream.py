"""One stream of an HTTP/2 connection, as ASGI shows a request."""

import asyncio
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

from flyte_manager.rpc.asgi import Header, Message, Scope


class Connection(Protocol):
    """What a stream needs of its connection."""

    @property
    def date(self) -> Iterable[Header]: ...

    def room(self, stream_id: int) -> int: ...

    async def until_room(self, stream: "Stream") -> None: ...

    def send_headers(self, stream_id: int, headers: list[Header], *, last: bool) -> None: ...

    def send_data(self, stream_id: int, data: bytes, *, last: bool) -> None: ...

    def acknowledge(self, stream_id: int, size: int) -> None: ...


class Stream:
    """What `receive` and `send` of one request stand on. `whole`: the client has sent all; `answered`: we have."""

    __slots__ = (
        "_body",
        "_connection",
        "_gone",
        "_news",
        "_room",
        "_silent",
        "_told",
        "_trailers",
        "_unread",
        "answered",
        "id",
        "whole",
    )

    def __init__(self, stream_id: int, connection: Connection, *, silent: bool) -> None:
        self.id = stream_id
        self.whole = self.answered = False
        self._connection = connection
        self._silent = silent
        self._body = bytearray()
        self._unread = 0
        self._gone = self._told = self._trailers = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    # the connection's side

    def feed(self, data: bytes, size: int) -> None:
        """A piece of the body; `size` is what it takes of the window."""
        self._body += data
        self._unread += size
        self._news.set()

    def feed_end(self) -> None:
        self.whole = True
        self._news.set()

    def lose(self) -> None:
        """The client has gone, or has given the stream up."""
        self._gone = True
        self._news.set()
        self._room.set()

    def wake(self) -> None:
        """There may be room to send more."""
        self._room.set()

    async def woken(self) -> None:
        self._room.clear()
        await self._room.wait()

    # the app's side

    async def receive(self) -> Message:
        while not self._gone and not self._body and (self._told or not self.whole):
            self._news.clear()
            await self._news.wait()
        if self._gone:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        if self._unread:
            self._connection.acknowledge(self.id, self._unread)
            self._unread = 0
        self._told = self.whole
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def send(self, message: Message) -> None:
        if self._gone or self.answered:
            await asyncio.sleep(0)  # an app that sends without end would not let anybody tell it
            return
        kind = message["type"]
        if kind == "http.response.start":
            self._trailers = message.get("trailers", False)
            status = (b":status", str(message["status"]).encode())
            headers = [(name.lower(), value) for name, value in message["headers"]]
            self._connection.send_headers(self.id, [status, *self._connection.date, *headers], last=False)
        elif kind == "http.response.body":
            last = not message.get("more_body", False) and not self._trailers
            body = b"" if self._silent else message.get("body", b"")
            if body or last:
                await self._write(body, last=last)
        elif kind == "http.response.trailers":
            self.answered = True
            self._connection.send_headers(self.id, message["headers"], last=True)

    async def _write(self, body: bytes, *, last: bool) -> None:
        """Hands the body over as the client's window and the socket allow."""
        rest = memoryview(body)
        while True:
            room = self._connection.room(self.id) if rest else 0
            piece, rest = bytes(rest[:room]), rest[room:]
            if piece or not rest:
                self.answered = last and not rest
                self._connection.send_data(self.id, piece, last=self.answered)
            if not rest:
                return
            if room == 0:
                await self._connection.until_room(self)
            else:
                await asyncio.sleep(0)  # large answers take turns
            if self._gone:
                return


def scope_of(headers: Iterable[Header], shared: Scope) -> Scope | None:
    """The request as ASGI tells it; None for what is no request for a path (CONNECT, bytes that no path may hold)."""
    pseudo: dict[bytes, bytes] = {}
    plain: list[Header] = []
    for name, value in headers:
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            plain.append((name, value))
    authority = pseudo.get(b":authority")
    if authority is not None and (b"host", authority) not in plain:
        plain.append((b"host", authority))
    raw_path, _, query = pseudo.get(b":path", b"").partition(b"?")
    if not raw_path.startswith(b"/") or not raw_path.isascii():
        return None
    return {
        **shared,
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "method": pseudo[b":method"].decode("latin-1"),
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": plain,
        "extensions": {"http.response.trailers": {}},
        "state": {},
    }
