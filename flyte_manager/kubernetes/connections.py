"""How connections to the API server are made: sockets that notice a silent end, and the way through a proxy."""

import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp

KEEPALIVE_SECONDS, KEEPALIVE_PROBES = 20, 3
"""A server that went away without a word, be it that a network was cut, is noticed after four times that long."""


def kept_alive(address: tuple[int, int, int, str, Any]) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    return made


def proxy_of(url: str) -> tuple[str | None, Mapping[str, str]]:
    """Its address and its user apart: errors tell the address."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url or None, {}
    user = aiohttp.encode_basic_auth(unquote(parts.username or ""), unquote(parts.password or ""))
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(address), {"Proxy-Authorization": user}
