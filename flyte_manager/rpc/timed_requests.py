"""HTTP/1.1 requests that never become whole: their connections are closed after a time, with 408 where one may speak.

    head    LATE seconds from its first byte on
    body    each LATE seconds LEAST bytes of it, unless we ourselves don't read; a stream of messages may rest
    idle    KEEP_ALIVE (uvicorn's), before the first request as between two

A request that comes whole in one piece costs no timer.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from flyte_manager.rpc.asgi import Scope
from flyte_manager.rpc.refusals import content_type, is_framed

LATE = 30.0
LEAST = 1024


class TimedRequests(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for the rest of a request for ever."""

    _in_head = True
    _new_head = False
    """whether what came last completed a request"""

    _came = 0
    """bytes since the timer was started"""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._new_head = False
        self._came += len(data)
        super().data_received(data)
        if self._new_head:
            self._stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            self._start_timer()

    def on_headers_complete(self) -> None:
        self._in_head = self._new_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = self._new_head = True
        super().on_message_complete()

    def _start_timer(self) -> None:
        if self._in_head or not is_framed(content_type(cast("Scope", self.scope))):
            self._came = 0
            self._timer = self.loop.call_later(LATE, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._has_time():
            self._start_timer()
        elif self._in_head:
            self._refuse(f"the request's head was not complete after {LATE:g} seconds\n")
        else:
            self._refuse(f"less than {LEAST} bytes of the request's body came in {LATE:g} seconds\n")

    def _has_time(self) -> bool:
        if self._in_head:  # the one before is answered still
            return self.cycle is not None and not self.cycle.response_complete
        return self._came >= LEAST or self.flow.read_paused or bool(self.pipeline)

    def _refuse(self, sentence: str) -> None:
        if self._in_head or not self.cycle.response_started:
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(sentence)),
                (b"connection", b"close"),
            ]
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[408] + lines + b"\r\n" + sentence.encode())
        self.transport.close()
