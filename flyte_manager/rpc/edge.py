"""What every RPC has in common, in one interceptor: errors, deadlines, and the end of the manager. (Most unary calls
take the short way of `unary.py`, which has only the words from here.)

connectrpc 0.10 tells a deadline but does not keep it, and turns a cancelled stream into a clean end, which a client
reads as success. So each wait for the handler runs under one timeout, which fires for either of two reasons:

    deadline passed      -> DEADLINE_EXCEEDED
    `stopping` was set   -> UNAVAILABLE (streams only; unary calls in flight get the server's grace period)

A cancel from outside (grace over, client gone) becomes UNAVAILABLE too; `guard.py` drops it when nobody listens any
more.
"""

import asyncio
import re
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint

from flyte_manager.rpc.asgi import ASGIApp, Message, Receive, Scope, Send, answer, header_values
from flyte_manager.rpc.codecs import BinaryCodec, JsonCodec
from flyte_manager.rpc.errors import STOPPING, to_connect, was_cancelled
from flyte_manager.rpc.guard import Guard
from flyte_manager.rpc.gzip import BoundedGzip
from flyte_manager.rpc.refusals import content_type, has_trailers, is_framed, is_grpc, refuse
from flyte_manager.rpc.unary import UnaryCalls

UNARY = type(Endpoint.unary(method=cast(Any, None), function=cast(Any, None)))
"""connectrpc does not export the class"""

GENERATED = "flyteidl2."
LARGEST_MESSAGE = 64 << 20
WORDS = {
    405: b"calls are POSTs: docs/curl.md shows how\n",
    415: b"calls are POSTs with `Content-Type: application/json` (or application/proto), streams (Watch..., TailLogs)"
    b" with application/connect+json, in frames: docs/curl.md shows how\n",
}
"""by status"""

GRPC_TIMEOUT = re.compile(rb"[0-9]{1,8}[HMSmun]")

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Context = RequestContext[Any, Any]


class Edge:
    """The interceptor. `stopping` is the manager's: once set, streams end. `limit`: bytes of one message."""

    def __init__(self, *, stopping: asyncio.Event, limit: int = LARGEST_MESSAGE) -> None:
        self._stopping = stopping
        self.limit = limit

    async def intercept_unary(
        self, call_next: Callable[[Request, Context], Awaitable[Reply]], request: Request, ctx: Context
    ) -> Reply:
        try:
            async with asyncio.timeout_at(deadline_of(ctx)) as wait:
                return await call_next(request, ctx)
        except (Exception, asyncio.CancelledError) as error:
            raise self.told(error, ctx, wait.expired()) from None

    async def intercept_server_stream(
        self, call_next: Callable[[Request, Context], AsyncIterator[Reply]], request: Request, ctx: Context
    ) -> AsyncGenerator[Reply, None]:
        deadline = deadline_of(ctx)
        wait = asyncio.timeout(None)
        ending = asyncio.create_task(self._stopping.wait())
        ending.add_done_callback(lambda ended: None if ended.cancelled() else wake(wait))
        messages: AsyncGenerator[Reply, None] | None = None
        try:
            messages = cast("AsyncGenerator[Reply, None]", call_next(request, ctx))
            while True:
                if self._stopping.is_set():
                    raise ConnectError(Code.UNAVAILABLE, STOPPING)
                wait = asyncio.timeout_at(deadline)
                async with wait:
                    message = await anext(messages)
                yield message
        except StopAsyncIteration:
            return
        except (Exception, asyncio.CancelledError) as error:
            raise self.told(error, ctx, wait.expired()) from None
        finally:
            ending.cancel()
            if messages is not None:
                await messages.aclose()

    # The request of a stream in both directions is the iterator of its messages: all the rest is the same.
    intercept_bidi_stream = intercept_server_stream

    def told(self, error: BaseException, ctx: Context, expired: bool) -> ConnectError:
        """What the client is told about the end of its call. `expired`: a timeout ended it."""
        if expired and (isinstance(error, TimeoutError) or was_cancelled(error)):
            if self._stopping.is_set():
                return ConnectError(Code.UNAVAILABLE, STOPPING)
            return ConnectError(Code.DEADLINE_EXCEEDED, "the call took longer than the deadline that the client set")
        return to_connect(error, where=f"{ctx.method().service_name}/{ctx.method().name}")


def deadline_of(ctx: Context) -> float | None:
    """When the client stops waiting, in the loop's time."""
    left = ctx.timeout_ms()
    return None if left is None else asyncio.get_running_loop().time() + left / 1000


def wake(wait: asyncio.Timeout) -> None:
    """Ends the wait now, if somebody is in it."""
    try:
        wait.reschedule(0)
    except RuntimeError:
        return  # between two messages: the stream looks at `stopping` itself before it waits again


class WithCodecs(ConnectASGIApplication[Any]):
    """Stands between a generated application, which has no parameter for codecs, and connectrpc's, which has."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, codecs=[BinaryCodec(), JsonCodec()])
        endpoints = settings["endpoints"](settings["service"])
        self.unary = {path: endpoint for path, endpoint in endpoints.items() if isinstance(endpoint, UNARY)}
        self.implemented = frozenset(
            path.rpartition("/")[2]
            for path, endpoint in endpoints.items()
            if not endpoint.function.__module__.startswith(GENERATED)
        )


class Described(Protocol):
    """A service for which there is no generated application."""

    @property
    def name(self) -> str: ...

    def endpoints(self) -> Mapping[str, Any]: ...


class DescribedApplication(ConnectASGIApplication[Described]):
    """What the generated classes are, for services that tell their methods themselves."""

    def __init__(self, service: Described, **settings: Any) -> None:
        super().__init__(service=service, endpoints=lambda service: service.endpoints(), **settings)
        self._path = f"/{service.name}"

    @property
    def path(self) -> str:
        return self._path


@dataclass(frozen=True, slots=True)
class ConnectApp:
    """One service, ready to be mounted at `/{service}/`."""

    service: str
    methods: frozenset[str]
    """those that the service has; what is left to the generated class is not served"""

    app: ASGIApp


def connect_app(app_class: Callable[..., ConnectASGIApplication[Any]], service: object, *, edge: Edge) -> ConnectApp:
    """The service behind a generated `*ASGIApplication` class, with all that is set for every RPC."""
    application = types.new_class("Application", (app_class, WithCodecs))(
        service, interceptors=[edge], read_max_bytes=edge.limit, compressions=[BoundedGzip(edge.limit)]
    )
    name: str = application.path.removeprefix("/")
    guarded = Guard(application, limit=edge.limit)

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        problem = malformed(scope)
        if problem:
            await refuse(scope, send, ConnectError(Code.INVALID_ARGUMENT, problem))
        else:
            await guarded(scope, receive, with_words(send))

    return ConnectApp(
        service=name,
        methods=application.implemented,
        app=UnaryCalls(application.unary, checked, limit=edge.limit, told=edge.told),
    )


def with_words(send: Send) -> Send:
    """connectrpc refuses a content type or an HTTP method without a word; curl's users meet that first."""
    told = False

    async def telling(message: Message) -> None:
        nonlocal told
        if message["type"] == "http.response.start" and message["status"] in WORDS:
            told = True
            await answer(send, message["status"], WORDS[message["status"]], headers=message["headers"])
        elif not told:
            await send(message)

    return telling


def with_streams(unary: ConnectApp, streams: ConnectApp) -> ConnectApp:
    """`unary`, with the methods of `streams` in their place where the client frames its messages.

    A unary call of gRPC is a stream of one message each way, so a method may be both, as StateService's Put and Get
    were streams once and are unary now.
    """
    paths = frozenset(f"/{streams.service}/{method}" for method in streams.methods)

    async def chosen(scope: Scope, receive: Receive, send: Send) -> None:
        framed = scope["path"] in paths and is_framed(content_type(scope))
        await (streams if framed else unary).app(scope, receive, send)

    return ConnectApp(service=unary.service, methods=unary.methods, app=chosen)


def malformed(scope: Scope) -> str | None:
    """What in the head of the request would make connectrpc raise, and so leak, something else than a ConnectError."""
    for name, value in scope["headers"]:
        try:
            name.decode(), value.decode()
        except UnicodeDecodeError:
            return "a header is not text in UTF-8"
    if not scope["query_string"].isascii():
        return "the query is not percent-encoded"
    timeouts = header_values(scope, b"grpc-timeout")
    if any(not GRPC_TIMEOUT.fullmatch(timeout) for timeout in timeouts if timeout):
        return "grpc-timeout is not up to 8 digits with one of the units H M S m u n"
    if is_grpc(content_type(scope)) and not has_trailers(scope):
        return "gRPC needs HTTP/2; over HTTP/1.1 speak Connect or gRPC-Web"
    return None
