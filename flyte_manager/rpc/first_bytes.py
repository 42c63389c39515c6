"""Two protocols on one port: what a client speaks is told by its TLS handshake (ALPN), else by its first bytes.

    h2, or PRI * HTTP/2.0 …   -> HTTP/2 (`http2.py`)
    the hello of TLS          -> closed, where the port is plain; the log tells why
    anything else             -> HTTP/1.1 (uvicorn's)

The connection is handed over with `transport.set_protocol`, so nothing stands between it and its protocol afterwards.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ALPN = ("h2", "http/1.1")
TLS_HELLO = b"\x16\x03"
PATIENCE = 75
"""seconds in which a client has to say a first word"""

log = logging.getLogger(__name__)


class FirstBytes(asyncio.Protocol):
    """A connection of which is not yet known what it speaks. It is one of `connections` until it is handed over."""

    def __init__(
        self, *, http1: Callable[[], asyncio.Protocol], http2: Callable[[], asyncio.Protocol], connections: set[Any]
    ) -> None:
        self._http1, self._http2 = http1, http2
        self._connections = connections
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # all of ours can write
        self.transport = transport
        tls = transport.get_extra_info("ssl_object")
        spoken = tls.selected_alpn_protocol() if tls is not None else None
        if spoken is not None:
            self._hand_over(self._http2 if spoken == "h2" else self._http1)
            return
        self._connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, transport.close)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < len(PREFACE) and PREFACE.startswith(self._received):
            return
        self._forget()
        if self._received.startswith(TLS_HELLO):
            port = self.transport.get_extra_info("sockname")[1]
            log.warning(
                "a client speaks https to port %d, which is plain http: let it use http://, or --insecure", port
            )
        self._hand_over(self._http2 if self._received.startswith(PREFACE) else self._http1)

    def connection_lost(self, _error: Exception | None) -> None:
        self._forget()

    def shutdown(self) -> None:
        """The manager ends: what has said nothing waits for nothing."""
        self.transport.close()

    def _forget(self) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _hand_over(self, make: Callable[[], asyncio.Protocol]) -> None:
        protocol = make()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._received:
            protocol.data_received(self._received)
