"""A small service behind the real edge and real sockets. What a call does is chosen by the name of its action."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.workflow.state_service_connect import StateServiceASGIApplication, StateServiceClient
from flyteidl2.workflow.state_service_pb2 import (
    ControlMessage,
    GetRequest,
    GetResponse,
    PutRequest,
    PutResponse,
    WatchRequest,
    WatchResponse,
)

from flyte_manager.domain.errors import Missing
from flyte_manager.rpc.edge import LARGEST_MESSAGE, DescribedApplication, Edge, connect_app, with_streams
from flyte_manager.rpc.gate import Gate
from flyte_manager.rpc.grpc_services import with_grpc_services
from flyte_manager.rpc.routes import Route, build_app
from flyte_manager.rpc.server import Listener, Servers
from flyte_manager.services.state_streams import StateStreams

GET = "/flyteidl2.workflow.StateService/Get"
WATCH = "/flyteidl2.workflow.StateService/Watch"
SECRET = "postgres://user:hunter2@db"


class Service:
    """StateService for tests; `begun` and `ended` collect the names of the calls whose handler began and is over."""

    def __init__(self) -> None:
        self.open = 0
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.release = asyncio.Event()

    async def put(self, request: PutRequest, ctx: Any) -> PutResponse:
        del ctx
        return PutResponse(action_id=request.action_id)

    async def get(self, request: GetRequest, ctx: Any) -> GetResponse:
        name = request.action_id.name
        self.begun.append(name)
        try:
            match name:
                case "missing":
                    raise Missing(what="the action")
                case "fault":
                    raise RuntimeError(SECRET)
                case "refused":
                    raise ConnectError(Code.FAILED_PRECONDITION, "not today")
                case "cancelled-inside":
                    raise asyncio.CancelledError
                case "no-message":
                    return None  # type: ignore[return-value]
                case "hang":
                    await asyncio.Event().wait()
                case "wait":
                    await self.release.wait()
                case "context":
                    return GetResponse(state=told(ctx))
                case "adds":
                    ctx.response_headers().add("x-made", "one")
                    ctx.response_headers().add("x-made", "two")
                    ctx.response_trailers().add("x-end", "three")
            return GetResponse(action_id=request.action_id, state="x" * int(name or 0) if name.isdecimal() else name)
        finally:
            self.ended.append(name)

    async def watch(self, request: WatchRequest, ctx: Any) -> AsyncIterator[WatchResponse]:
        del ctx
        name = request.parent_action_id.name
        self.open += 1
        self.begun.append(name)
        try:
            match name:
                case "fault":
                    raise RuntimeError(SECRET)
                case "cancelled-inside":
                    raise asyncio.CancelledError
                case "missing-later":
                    await asyncio.sleep(0.05)
                    raise Missing(what="the action")
                case "flood" | "flood-later":
                    await asyncio.sleep(0.05 if name == "flood-later" else 0)
                    while True:
                        yield WatchResponse(action_update={"output_uri": "x" * 10_000})
            yielded = 0 if name == "quiet" else 3
            for _ in range(yielded):
                yield WatchResponse(control_message=ControlMessage(sentinel=True))
            if name in ("quiet", "stay"):
                await asyncio.Event().wait()
        finally:
            self.open -= 1
            self.ended.append(name)


def told(ctx: Any) -> str:
    """What a handler can learn beside the message; of times and ports only whether there are any."""
    host, _, port = ctx.client_address().rpartition(":")
    about = [ctx.http_method(), ctx.method().name, ctx.server_address(), host, port.isdigit(), ctx.timeout_ms() is None]
    return json.dumps([*about, *sorted(ctx.request_headers().allitems())])


@dataclass
class Served:
    """Running listeners with what a test needs to reach them."""

    service: Service
    servers: Servers
    stopping: asyncio.Event
    clients: list[StateServiceClient] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.servers.port_of("api")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **settings: Any) -> StateServiceClient:
        client = StateServiceClient(self.url, **settings)
        self.clients.append(client)
        return client

    async def post(self, path: str, content: Any = b"{}", **headers: str | bytes) -> httpx.Response:
        """A plain HTTP POST, in JSON unless the headers say otherwise."""
        given: dict[bytes, bytes] = {b"content-type": b"application/json"}
        for name, value in headers.items():
            given[name.replace("_", "-").encode()] = value if isinstance(value, bytes) else value.encode()
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.post(path, content=content, headers=given)


async def is_ready() -> str | None:
    return None


@asynccontextmanager
async def serve(
    *,
    limit: int = LARGEST_MESSAGE,
    extra: Sequence[Route] = (),
    ready: Callable[[], Awaitable[str | None]] = is_ready,
    allowed_hosts: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Served]:
    """The test service on two free ports, `api` and `second`."""
    stopping = asyncio.Event()
    service = Service()
    edge = Edge(stopping=stopping, limit=limit)
    unary = connect_app(StateServiceASGIApplication, service, edge=edge)
    streams = connect_app(DescribedApplication, StateStreams(service), edge=edge)
    services = with_grpc_services([with_streams(unary, streams)], ready=ready, edge=edge)
    app = Gate(
        build_app(services, extra, ready=ready, aliases={"/flyteidl2.workflow.StateService/Read": GET}),
        allowed_hosts=allowed_hosts,
    )
    listeners = [Listener(name, "localhost", 0, app, f"{name}.port", tls) for name in ("api", "second")]
    servers = Servers(listeners, stopping=stopping)
    await servers.start()
    served = Served(service, servers, stopping)
    try:
        yield served
    finally:
        await servers.stop(grace=0.2)
        for client in served.clients:
            await client.close()


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits until the condition holds; fails the test when it doesn't within these seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for is often not ours to signal
            await asyncio.sleep(0.01)


async def raw(port: int, request: bytes, *, host: str = "127.0.0.1") -> bytes:
    """Sends the bytes and returns all that comes back until the server closes, or for one second."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        writer.write(request)
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(1):
                while part := await reader.read(65536):
                    answer += part
    finally:
        writer.close()
    return answer
