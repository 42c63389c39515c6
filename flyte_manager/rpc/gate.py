"""The gate: who may talk to a manager that asks nobody for a password.

It keeps web pages out. A page of another site that sends requests here is told by its Origin; one whose own name was
made to point at this machine (DNS rebinding) is told by the Host, because rebinding needs a name and here only IP
literals, `localhost` and the names in `server.allowedHosts` pass. Every path and method is checked, on every listener;
only GET /healthz and /readyz are exempt, for probes. There are no CORS headers: no other origin may read anything.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from flyte_manager.domain.errors import Invalid
from flyte_manager.rpc.asgi import ASGIApp, Receive, Scope, Send, header_values
from flyte_manager.rpc.refusals import refuse

EXEMPT = frozenset({("GET", "/healthz"), ("GET", "/readyz")})
AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>.+)")
DEFAULT_PORTS = {"http": 80, "https": 443}
POLICY_VIOLATION = 1008
LAST_PORT = 65535
REMEMBERED = 64
"""authorities: each client names the same one in all its requests"""


class IllegalAllowedHost(Invalid):
    """server.allowedHosts: {entry!r} is not a host name: write it as manager.example.com, without scheme and path."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Host and port as a Host header names them. The host is lower case, IPv6 without brackets and compressed."""

    host: str
    port: int | None
    literal: bool


class Gate:
    """Lets requests through to `app` whose Host is an IP literal, `localhost` or one of `allowed_hosts`, and whose
    Origin, if any, is the manager itself. Raises IllegalAllowedHost for an entry that can never match."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost"}
        for entry in allowed_hosts:
            authority = parse_authority(entry)
            if authority is None:
                raise IllegalAllowedHost(entry=entry)
            self._names.add(authority.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        exempt = (scope["method"], scope["path"]) in EXEMPT
        refusal = None if exempt else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refuse(scope, send, refusal)

    def _refusal(self, scope: Scope) -> ConnectError | None:
        hosts = header_values(scope, b"host")
        if len(hosts) != 1:
            return ConnectError(Code.INVALID_ARGUMENT, "a request needs exactly one Host header")
        host = parse_authority(hosts[0].decode("latin-1"))
        if host is None:
            return ConnectError(Code.INVALID_ARGUMENT, "the Host header is not a host name with or without a port")
        if not host.literal and host.host not in self._names:
            return ConnectError(
                Code.PERMISSION_DENIED,
                f"this manager does not answer to the name {host.host!r}: add it to server.allowedHosts, or use "
                "localhost or an IP address",
            )
        origins = header_values(scope, b"origin")
        if origins and not all(same_origin(origin.decode("latin-1"), scope["scheme"], host) for origin in origins):
            return ConnectError(
                Code.PERMISSION_DENIED,
                "web pages of another origin may not call this manager; behind a proxy keep the Host header and add "
                "its name to server.allowedHosts",
            )
        return None


@lru_cache(maxsize=REMEMBERED)
def parse_authority(text: str) -> Authority | None:
    """None for what is not `name`, `name:port`, `1.2.3.4` or `[::1]:port`; user info, paths and zones never are."""
    match = AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host = match["host"].lower()
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port <= LAST_PORT:
        return None
    try:
        if host.startswith("["):
            return Authority(ipaddress.IPv6Address(host[1:-1]).compressed, port, literal=True)
    except ValueError:
        return None
    try:
        return Authority(str(ipaddress.IPv4Address(host)), port, literal=True)
    except ValueError:
        return Authority(host, port, literal=False)


def same_origin(origin: str, scheme: str, host: Authority) -> bool:
    """Whether the Origin header names this scheme, host and port. `null` names nothing."""
    match = ORIGIN.fullmatch(origin)
    theirs = parse_authority(match["authority"]) if match else None
    if match is None or theirs is None:
        return False
    default = DEFAULT_PORTS[match["scheme"]]
    own_default = DEFAULT_PORTS.get(scheme)
    return (match["scheme"], theirs.host, theirs.port or default) == (scheme, host.host, host.port or own_default)
