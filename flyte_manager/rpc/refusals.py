"""How the edge itself says no, before any service is asked: in the terms of the protocol that the client speaks.

    gRPC                    200, trailers with grpc-status
    gRPC-Web                200, the same trailers as the body's only frame
    a stream of Connect     200, the error in the end-of-stream message
    the rest                JSON, with the HTTP status of the code

A client of one of the first three looks at nothing else: it would tell its user the HTTP status and no sentence.
"""

import json
import struct
from collections.abc import Sequence
from urllib.parse import quote

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from flyte_manager.rpc.asgi import Header, Scope, Send, answer, header_values
from flyte_manager.rpc.errors import HTTP_STATUS

CONNECT_STREAM = b"application/connect+"
GRPC = b"application/grpc"
GRPC_WEB = b"application/grpc-web"
END_OF_STREAM = 0b10
TRAILERS = 0b10000000
GRPC_CODES = (
    Code.CANCELED,
    Code.UNKNOWN,
    Code.INVALID_ARGUMENT,
    Code.DEADLINE_EXCEEDED,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.RESOURCE_EXHAUSTED,
    Code.FAILED_PRECONDITION,
    Code.ABORTED,
    Code.OUT_OF_RANGE,
    Code.UNIMPLEMENTED,
    Code.INTERNAL,
    Code.UNAVAILABLE,
    Code.DATA_LOSS,
    Code.UNAUTHENTICATED,
)
"""in the order of their numbers, from 1"""


def content_type(scope: Scope) -> bytes:
    """The request's, without parameters."""
    return b"".join(header_values(scope, b"content-type")[:1]).partition(b";")[0].strip().lower()


def is_grpc(kind: bytes) -> bool:
    """Whether this content type is gRPC proper."""
    return kind == GRPC or kind.startswith(GRPC + b"+")


def is_grpc_web(kind: bytes) -> bool:
    return kind == GRPC_WEB or kind.startswith(GRPC_WEB + b"+")


def is_framed(kind: bytes) -> bool:
    """Whether messages have heads that tell their lengths."""
    return kind.startswith(CONNECT_STREAM) or is_grpc(kind) or is_grpc_web(kind)


def has_trailers(scope: Scope) -> bool:
    """Whether the connection can carry trailers: HTTP/2 can."""
    return "http.response.trailers" in scope.get("extensions", {})


async def refuse(
    scope: Scope, send: Send, error: ConnectError, *, status: int = 0, headers: Sequence[Header] = ()
) -> None:
    """Sends the error as the whole answer. `status`: an HTTP status other than that of the code, where one is shown."""
    kind = content_type(scope)
    if is_grpc(kind) and has_trailers(scope):
        start = [(b"content-type", kind), *headers]
        await send({"type": "http.response.start", "status": 200, "headers": start, "trailers": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        await send({"type": "http.response.trailers", "headers": grpc_trailers(error), "more_trailers": False})
    elif is_grpc_web(kind):
        lines = b"".join(b"%s: %s\r\n" % trailer for trailer in grpc_trailers(error))
        await answer(send, 200, envelope(TRAILERS, lines), kind=kind.decode("latin-1"), headers=headers)
    elif kind.startswith(CONNECT_STREAM):
        body = envelope(END_OF_STREAM, json.dumps({"error": as_json(error)}).encode())
        await answer(send, 200, body, kind=kind.decode("latin-1"), headers=headers)
    else:
        body = json.dumps(as_json(error)).encode()
        await answer(send, status or HTTP_STATUS[error.code], body, kind="application/json", headers=headers)


def grpc_trailers(error: ConnectError) -> list[Header]:
    number = GRPC_CODES.index(error.code) + 1
    return [(b"grpc-status", str(number).encode()), (b"grpc-message", quote(error.message, safe=" ").encode())]


def envelope(flags: int, content: bytes) -> bytes:
    return struct.pack(">BI", flags, len(content)) + content


def as_json(error: ConnectError) -> dict[str, str]:
    return {"code": error.code.value, "message": error.message}
