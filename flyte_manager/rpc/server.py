"""Listening: one event loop, any number of ports, HTTP/1.1 and HTTP/2 on each, with TLS or without.

`first_bytes.py` finds out what a client speaks. Of uvicorn only the protocol for HTTP/1.1 is used, one instance a
connection; its `Server` wakes ten times a second for each port, takes the process's signals, and at its end cancels
streams so that clients read success (docs/decisions/0001). What the protocols share is small: a set of connections, a
set of request tasks, and the Date header once a second. HTTP/2: `http2.py` (docs/decisions/0010).

The end, in at most `grace` and a second:
    `stopping` is set     streams end themselves with UNAVAILABLE
    listeners close       idle connections close, busy ones close after their response
    grace passes          handlers that still run are cancelled: UNAVAILABLE
    a moment later        what is left is cut
"""

import asyncio
import errno
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from flyte_manager.domain.errors import Unavailable
from flyte_manager.rpc.asgi import ASGIApp, Message, Receive, Scope, Send
from flyte_manager.rpc.first_bytes import FirstBytes
from flyte_manager.rpc.holder import port_holder
from flyte_manager.rpc.http2 import Http2
from flyte_manager.rpc.timed_requests import TimedRequests

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
BACKLOG = 2048
KEEP_ALIVE = 75
HANDSHAKE, GOODBYE = 10, 1
"""seconds that TLS may take to begin and to end"""

LARGEST_HEAD = 64 << 10
FREE_PORT_TRIES = 20
UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
LAST_WORDS = 0.3
NO_SUCH_FAMILY = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class PortTaken(Unavailable):
    """address already in use: {host}:{port} ({who}): stop it, or set {setting} to another port"""


class CannotListen(Unavailable):
    """cannot listen on {host}:{port}: {problem}; change host or port in {section}"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the manager shows to clients. `names`: hosts and addresses that it is valid for."""

    context: ssl.SSLContext
    names: tuple[str, ...]
    until: datetime
    authority: bool = False
    """whether it is marked as one that issues others (CA:TRUE), which curl takes for a server's and the SDK does not"""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that clients may call; a pattern such as *.example.com is none."""
        return tuple(name for name in self.names if not name.startswith("*") and ":" not in name)


@dataclass(frozen=True, slots=True)
class Listener:
    """One port and what is served there. `setting` is the configuration key that changes the port; `tls`: https."""

    name: str
    host: str
    port: int
    app: ASGIApp
    setting: str
    tls: ssl.SSLContext | None = None

    @property
    def section(self) -> str:
        return self.setting.rpartition(".")[0]


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs the program on the event loop that this server is meant for."""
    factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


class Servers:
    """All the listeners of the process. `start` and `stop` once each."""

    def __init__(self, listeners: Sequence[Listener], *, stopping: asyncio.Event) -> None:
        self._listeners = listeners
        self._stopping = stopping
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._ports: dict[str, int] = {}
        self._dating: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Binds every port and accepts. Raises PortTaken or CannotListen, and then holds none of them."""
        bound: list[tuple[Listener, list[socket.socket]]] = []
        try:
            for listener in self._listeners:
                bound.append((listener, bind(listener)))
        except Unavailable:
            for _, sockets in bound:
                close_all(sockets)
            raise
        self._date()
        loop = asyncio.get_running_loop()
        for listener, sockets in bound:
            self._ports[listener.name] = sockets[0].getsockname()[1]
            make = self._make_protocol(listener)
            for listening in sockets:
                serving = loop.create_server(
                    make,
                    sock=listening,
                    backlog=BACKLOG,
                    ssl=listener.tls,
                    ssl_handshake_timeout=HANDSHAKE if listener.tls else None,
                    ssl_shutdown_timeout=GOODBYE if listener.tls else None,
                )
                self._servers.append(await serving)

    def port_of(self, name: str) -> int:
        """The port that the listener of this name really has; KeyError before `start`."""
        return self._ports[name]

    async def stop(self, grace: float = 2.0) -> None:
        """Ends everything; takes at most `grace` seconds and a moment."""
        self._stopping.set()
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._tasks_end(grace)
        unfinished = [task for task in self._state.tasks if not task.done()]
        if unfinished:
            log.warning("%d calls had not ended after %s s and are cut off", len(unfinished), grace)
        for task in unfinished:
            task.cancel()
        await self._tasks_end(LAST_WORDS)
        await asyncio.sleep(0)
        for connection in list(self._state.connections):
            close_or_cut(connection.transport)
        if self._dating is not None:
            self._dating.cancel()
        await asyncio.sleep(0)

    async def _tasks_end(self, seconds: float) -> None:
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=seconds)

    def _date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        self._dating = asyncio.get_running_loop().call_later(1, self._date)

    def _make_protocol(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        app = with_access_log(listener.app, listener.name) if log.isEnabledFor(logging.DEBUG) else listener.app
        config = Config(
            app,
            interface="asgi3",
            http=BoundedHead,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        config.load()
        state = self._state
        return lambda: FirstBytes(
            http1=lambda: BoundedHead(config=config, server_state=state, app_state={}),
            http2=lambda: Http2(app, state),
            connections=state.connections,
        )


class BoundedHead(TimedRequests):
    """uvicorn's protocol, which by itself takes a request line and headers of any size, and loses the body of a request
    that offers to go on in another protocol (Java's client and `curl --http2` offer h2c)."""

    _head = 0

    def data_received(self, data: bytes) -> None:
        if self._in_head and b"pgrade" in data.lower():
            data = without_upgrade(data)
        super().data_received(data)
        if self._in_head and not self._new_head:
            self._head += len(data)
            if self._head > LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response(f"the request's head is larger than {LARGEST_HEAD} bytes")

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # the parser takes what follows for another protocol
            self.send_400_response("this server does not upgrade connections: begin with HTTP/2, or leave Upgrade out")
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()


def without_upgrade(data: bytes) -> bytes:
    """The request without the offer to upgrade the connection, which a server may ignore."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest


def bind(listener: Listener) -> list[socket.socket]:
    """Listening sockets for the host's addresses, all with one port; port 0 is any free one."""
    for attempt in range(FREE_PORT_TRIES):
        sockets: list[socket.socket] = []
        port = listener.port
        try:
            for family, address in addresses(listener):
                try:
                    sockets.append(listen(family, address, port))
                except OSError as error:
                    if listener.host in LOOPBACK and error.errno in NO_SUCH_FAMILY:
                        continue
                    raise
                port = sockets[0].getsockname()[1]
            if sockets:
                return sockets
            raise CannotListen(
                host=listener.host, port=port, problem="this machine has no such address", section=listener.section
            )
        except OSError as error:
            close_all(sockets)
            if error.errno == errno.EADDRINUSE and listener.port == 0 and attempt < FREE_PORT_TRIES - 1:
                continue  # free for IPv4 and taken for IPv6: the next
            raise refusal_of(error, listener) from error
    raise AssertionError("the last try returns or raises")


def refusal_of(error: OSError, listener: Listener) -> Unavailable:
    """The sentence for what the system said about an address."""
    host, port, setting = listener.host, listener.port, listener.setting
    if error.errno == errno.EADDRINUSE:
        return PortTaken(host=host, port=port, who=port_holder(port) or "another process", setting=setting)
    return CannotListen(host=host, port=port, problem=error.strerror or str(error), section=listener.section)


def addresses(listener: Listener) -> list[tuple[socket.AddressFamily, str]]:
    """Where to listen; `localhost` and both loopback addresses mean both, as the SDK's `localhost` does."""
    if listener.host in LOOPBACK:
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    found = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    """A socket that listens already, so that a port taken meanwhile is found out here."""
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        listening.setblocking(False)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def close_all(sockets: Sequence[socket.socket]) -> None:
    for open_socket in sockets:
        open_socket.close()


def close_or_cut(transport: asyncio.Transport) -> None:
    """Closes a connection whose answer is written out, cuts one whose client doesn't read."""
    with suppress(RuntimeError):
        if transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
        else:
            transport.close()


def with_access_log(app: ASGIApp, name: str) -> ASGIApp:
    """The app with a line for every request. The query is left out: it may hold a signature."""

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, sending)
        finally:
            spent = (time.monotonic() - began) * 1000
            log.debug("%s %s %s %d %.1f ms", name, scope["method"], scope["path"], status, spent)

    return logged
