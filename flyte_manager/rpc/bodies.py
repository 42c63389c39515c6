"""How large what a client sends may be, looked at while it comes: a body as a whole, or each message of a stream."""

from typing import Protocol

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from flyte_manager.rpc.asgi import Scope, header_values
from flyte_manager.rpc.gzip import too_large
from flyte_manager.rpc.refusals import CONNECT_STREAM, content_type, is_framed

HEAD = 5
COMPRESSED = 1


class Body(Protocol):
    """Raises a ConnectError for what is too large, or ends in the middle of a message."""

    def feed(self, data: bytes) -> None: ...

    def end(self) -> None: ...


class Whole:
    """One message, without a head."""

    __slots__ = ("_limit", "_read")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._read = 0

    def feed(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > self._limit:
            raise ConnectError(Code.RESOURCE_EXHAUSTED, too_large(self._limit))

    def end(self) -> None:
        return


class Framed:
    """Messages, each behind a head of its flags and its length. `packed`: whether they may be compressed."""

    __slots__ = ("_head", "_left", "_limit", "_packed")

    def __init__(self, limit: int, *, packed: bool) -> None:
        self._limit = limit
        self._packed = packed
        self._head = bytearray()
        self._left = 0

    def feed(self, data: bytes) -> None:
        position = min(self._left, len(data))
        self._left -= position
        while position < len(data):
            missing = HEAD - len(self._head)
            self._head += data[position : position + missing]
            position += missing
            if len(self._head) < HEAD:
                return
            self._check(self._head)
            skipped = min(int.from_bytes(self._head[1:], "big"), len(data) - position)
            self._left = int.from_bytes(self._head[1:], "big") - skipped
            self._head.clear()
            position += skipped

    def end(self) -> None:
        if self._head or self._left:
            raise ConnectError(Code.INVALID_ARGUMENT, "the last message was cut off before its end")

    def _check(self, head: bytearray) -> None:
        if int.from_bytes(head[1:], "big") > self._limit:
            raise ConnectError(Code.RESOURCE_EXHAUSTED, too_large(self._limit))
        if head[0] & COMPRESSED and not self._packed:
            raise ConnectError(Code.INVALID_ARGUMENT, "a message says that it is compressed, the head not by what")


def body_of(scope: Scope, limit: int) -> Body:
    """What is to be looked at in this request's body."""
    kind = content_type(scope)
    if not is_framed(kind):
        return Whole(limit)
    name = b"connect-content-encoding" if kind.startswith(CONNECT_STREAM) else b"grpc-encoding"
    return Framed(limit, packed=any(value != b"identity" for value in header_values(scope, name)))
