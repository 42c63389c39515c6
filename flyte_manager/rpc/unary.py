"""The short way of a unary call: a Connect POST in application/proto or application/json with nothing odd in its head.

connectrpc's way, with our guard around it, costs more than twice the CPU (docs/decisions/0013). What is not plainly
such a call goes that way before a byte of its body is read, so heads are refused in one place only:

    a plain head? ──no──▶ guard ─▶ connectrpc      GET, gRPC, streams; what is unknown, malformed, or there twice
          │ yes
    body ─▶ unzip ─▶ decode ─▶ handler ─▶ encode ─▶ answer

Both ways give the same answers; tests/unit/rpc/test_unary.py compares them.
"""

import asyncio
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from connectrpc.codec import Codec
from connectrpc.errors import ConnectError
from connectrpc.method import MethodInfo
from connectrpc.request import Headers, RequestContext

from flyte_manager.rpc.asgi import ASGIApp, Header, Receive, Scope, Send
from flyte_manager.rpc.bodies import Whole
from flyte_manager.rpc.codecs import BinaryCodec, JsonCodec
from flyte_manager.rpc.flight import Call, Flight
from flyte_manager.rpc.guard import ENCODINGS
from flyte_manager.rpc.gzip import STORED_UP_TO, BoundedGzip
from flyte_manager.rpc.refusals import refuse

KINDS: Mapping[bytes | None, Codec[Any, Any]] = {b"application/proto": BinaryCodec(), b"application/json": JsonCodec()}
ODD = frozenset({b"connect-content-encoding", b"grpc-timeout"})
MOST_DIGITS = 10
NO_HEADERS = Headers()

Told = Callable[[BaseException, RequestContext[Any, Any], bool], ConnectError]
"""What the client is told about an error; the last: whether the deadline has passed."""


class Head(NamedTuple):
    """What a plain head says. `timeout`: milliseconds."""

    kind: bytes
    packed: bool
    accepted: bytes
    timeout: int | None


class UnaryCalls:
    """The unary methods of one service: endpoints of connectrpc, by path. `rest` takes all other calls."""

    def __init__(self, endpoints: Mapping[str, Any], rest: ASGIApp, *, limit: int, told: Told) -> None:
        self._endpoints = endpoints
        self._rest = rest
        self._limit = limit
        self._told = told
        self._gzip = BoundedGzip(limit)
        self._flight = Flight()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is None or (head := plain_head(scope, self._limit)) is None:
            await self._rest(scope, receive, send)
            return
        codec = KINDS[head.kind]
        context = Context(endpoint.method, scope, head.timeout)  # the client counts from here, not from its body's end
        try:
            body = await whole_body(receive, self._limit)
            if body is None:
                return  # nobody is there any more
            if head.packed and body:
                body = self._gzip.decompress(body)
            request = codec.decode(body, endpoint.method.input())
            reply = codec.encode(await self._handled(endpoint.function, request, context, receive))
        except ConnectError as error:
            await refuse(scope, send, error)
            return
        encoding, reply = self._packed(reply, head.accepted)
        headers = [
            (b"content-type", head.kind),
            (b"content-encoding", encoding),
            (b"vary", b"Accept-Encoding"),
            (b"content-length", b"%d" % len(reply)),
            *context.added(),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply, "more_body": False})

    async def _handled(self, handler: Callable[..., Any], request: Any, context: "Context", receive: Receive) -> Any:
        left = context.timeout_ms()
        call = Call(receive, None if left is None else left / 1000)
        self._flight.add(call)
        try:
            return await handler(request, context)
        except (Exception, asyncio.CancelledError) as error:
            raise self._told(error, context, call.expired) from None
        finally:
            self._flight.remove(call)

    def _packed(self, reply: bytes, accepted: bytes) -> tuple[bytes, bytes]:
        """The encoding and the bytes. A short reply gains nothing by it."""
        offers = (offer.strip() for offer in accepted.split(b","))
        if len(reply) <= STORED_UP_TO or next((offer for offer in offers if offer in ENCODINGS), None) != b"gzip":
            return b"identity", reply
        return b"gzip", self._gzip.compress(reply)


def plain_head(scope: Scope, limit: int) -> Head | None:
    """None for what goes the long way."""
    headers = scope["headers"]
    given = dict(headers)
    if (
        scope["method"] != "POST"
        or scope["query_string"]
        or len(given) != len(headers)
        or not ODD.isdisjoint(given)
        or not b"".join(chain.from_iterable(headers)).isascii()
        or given.get(b"connect-protocol-version", b"1") != b"1"
    ):
        return None
    kind, encoding = given.get(b"content-type"), given.get(b"content-encoding", b"identity")
    timeout, size = given.get(b"connect-timeout-ms"), given.get(b"content-length", b"0")
    if kind is None or kind not in KINDS or encoding not in ENCODINGS or not size.isdigit() or int(size) > limit:
        return None
    if timeout is not None and not (timeout.isdigit() and len(timeout) <= MOST_DIGITS):
        return None
    accepted = given.get(b"accept-encoding", b"")
    return Head(kind, encoding == b"gzip", accepted, None if timeout is None else int(timeout))


async def whole_body(receive: Receive, limit: int) -> bytes | None:
    """None when the client has gone before it sent all."""
    bounded = Whole(limit)
    pieces: list[bytes] = []
    while (message := await receive())["type"] != "http.disconnect":
        piece: bytes = message.get("body", b"")
        bounded.feed(piece)
        if not message.get("more_body", False):
            return b"".join([*pieces, piece]) if pieces else piece
        pieces.append(piece)
    return None


class Context(RequestContext[Any, Any]):
    """What a handler is told beside the message. Headers become texts only when it asks for them, which few do."""

    def __init__(self, method: MethodInfo[Any, Any], scope: Scope, timeout: int | None) -> None:
        super().__init__(method=method, http_method="POST", request_headers=NO_HEADERS, timeout_ms=timeout)
        self._scope = scope
        self._adding = False

    def request_headers(self) -> Headers:
        return Headers([(name.decode(), value.decode()) for name, value in self._scope["headers"]])

    def server_address(self) -> str | None:
        host = self.request_headers().get("host")
        if host is None or ":" in host:
            return host
        return f"{host}:{443 if self._scope.get('scheme') == 'https' else 80}"

    def client_address(self) -> str | None:
        client = self._scope.get("client")
        return f"{client[0]}:{client[1]}" if client else None

    def response_headers(self) -> Headers:
        self._adding = True
        return super().response_headers()

    def response_trailers(self) -> Headers:
        self._adding = True
        return super().response_trailers()

    def added(self) -> list[Header]:
        """What the handler adds to the answer's head."""
        if not self._adding:
            return []
        trailers = ((f"trailer-{name}", value) for name, value in self.response_trailers().allitems())
        return [(name.encode(), value.encode()) for name, value in (*self.response_headers().allitems(), *trailers)]
