"""Connections to the API server: sockets that notice a silent end, the way through a proxy, and what goes wrong with
them in words.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from weakref import WeakSet

import aiohttp

KEEPALIVE_SECONDS, KEEPALIVE_PROBES = 20, 3
"""A server that went away without a word, be it that a network was cut, is noticed after four times that long."""

TURNS = 20
"""of the event loop, in which a connection that was cut closes; four or five are enough"""


class Sockets:
    """The sockets of one client's connections."""

    def __init__(self) -> None:
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: tuple[int, int, int, str, Any]) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        self._made.add(made)
        return made

    async def end(self) -> None:
        """After the session has closed. aiohttp forgets a call that was cancelled before its answer began, while TLS
        still waits for the server's farewell: there it is cut."""
        for each in self._made:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(TURNS):
            if all(each.fileno() < 0 for each in self._made):
                return
            await asyncio.sleep(0)


def proxy_of(url: str) -> tuple[str | None, Mapping[str, str]]:
    """Its address and its user apart: errors tell the address."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url or None, {}
    user = aiohttp.encode_basic_auth(unquote(parts.username or ""), unquote(parts.password or ""))
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(address), {"Proxy-Authorization": user}


def told(error: Exception) -> str:
    """What went wrong, for people: without addresses of memory and of the proxy's user."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            found = error.certificate_error
            why = getattr(found, "verify_message", "") or str(found)
            return f"its certificate is not trusted ({why})"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not known here ({error.strerror})"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused: {error.status} {error.message}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy {error.host}:{error.port} can't be reached ({_system(error.os_error)})"
        case aiohttp.ClientConnectorError():
            return _system(error.os_error)
        case TimeoutError():
            return "it did not answer in time"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "the connection was cut"
    return str(error) or type(error).__name__


def _system(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) or error.errno is None:
        return str(error) or type(error).__name__
    return os.strerror(error.errno)
