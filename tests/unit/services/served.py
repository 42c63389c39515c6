"""Services behind the real edge and gate, on a free port of localhost."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flyte_manager.rpc.edge import Edge, connect_app
from flyte_manager.rpc.gate import Gate
from flyte_manager.rpc.routes import Route, build_app
from flyte_manager.rpc.server import Listener, Servers


@asynccontextmanager
async def served(services: Iterable[tuple[Any, object]], routes: Sequence[Route] = ()) -> AsyncIterator[str]:
    """`services`: a generated `*ASGIApplication` class and what it serves, each. Yields the URL."""
    stopping = asyncio.Event()
    edge = Edge(stopping=stopping)
    app = build_app([connect_app(kind, service, edge=edge) for kind, service in services], routes, ready=is_ready)
    servers = Servers([Listener("api", "localhost", 0, Gate(app), setting="api.port")], stopping=stopping)
    await servers.start()
    try:
        yield f"http://localhost:{servers.port_of('api')}"
    finally:
        await servers.stop(grace=0.2)


async def is_ready() -> str | None:
    return None
