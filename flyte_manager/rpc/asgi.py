"""The ASGI types and the three kinds of plain answer that the edge gives itself."""

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from connectrpc.errors import ConnectError

from flyte_manager.rpc.errors import HTTP_STATUS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


async def answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: str = "text/plain; charset=utf-8",
    headers: Sequence[Header] = (),
) -> None:
    """Sends a whole response."""
    start = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(send: Send, error: ConnectError, *, status: int = 0, headers: Sequence[Header] = ()) -> None:
    """Sends the error as Connect's JSON, with the HTTP status of its code unless `status` says another."""
    body = json.dumps({"code": error.code.value, "message": error.message}).encode()
    await answer(send, status or HTTP_STATUS[error.code], body, kind="application/json", headers=headers)


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a header, in order. `name` is lower case, as ASGI wants header names."""
    return [value for key, value in scope["headers"] if key == name]
