"""Which handler a request goes to, by its path alone.

    /healthz, /readyz       this module
    /{package.Service}/{Method}   the service of that name, after the aliases
    the rest                the plain HTTP routes, longest prefix first

Nothing that a handler raises leaves here: refusals become their Connect code, the rest INTERNAL with an id.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from flyte_manager.rpc.asgi import ASGIApp, Message, Receive, Scope, Send, answer
from flyte_manager.rpc.edge import ConnectApp
from flyte_manager.rpc.errors import to_connect
from flyte_manager.rpc.not_served import HealthOnly, refusal
from flyte_manager.rpc.refusals import refuse

NOT_HERE = 404
NOT_THIS_METHOD = 405
NOT_READY = 503

Ready = Callable[[], Awaitable[str | None]]
"""Asked by /readyz: None, or what the manager still waits for."""


@dataclass(frozen=True, slots=True)
class Route:
    """Plain HTTP: paths that begin with `prefix` go to `app` when the method is one of these."""

    methods: frozenset[str]
    prefix: str
    app: ASGIApp


def build_app(
    services: Sequence[ConnectApp],
    extra: Sequence[Route] = (),
    *,
    ready: Ready,
    aliases: Mapping[str, str] | None = None,
) -> ASGIApp:
    """One application of all. `aliases`: a path that clients call -> the path that is served, e.g.
    `/flyteidl2.workflow.RunService/GetRun` -> `/flyteidl2.workflow.RunService/GetRunDetails`."""
    return Router(services, extra, ready, dict(aliases or {}))


class Router:
    """See `build_app`."""

    def __init__(
        self, services: Sequence[ConnectApp], extra: Sequence[Route], ready: Ready, aliases: Mapping[str, str]
    ) -> None:
        self._services = {service.service: service for service in services}
        self._routes = sorted(extra, key=lambda route: -len(route.prefix))
        self._ready = ready
        self._aliases = aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._dispatch(scope, receive, sending)
        except (Exception, asyncio.CancelledError) as error:
            told = to_connect(error, where=f"{scope['method']} {scope['path']}")
            if not started:  # else the server closes the connection, so that no client takes the part for the whole
                await refuse(scope, send, told)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._aliases.get(scope["path"], scope["path"])
        if path in ("/healthz", "/readyz"):
            await self._health(scope, send)
            return
        first, _, rest = path.removeprefix("/").partition("/")
        service = self._services.get(first)
        if service is not None and rest in service.methods:
            aliased = path != scope["path"]
            await service.app({**scope, "path": path, "raw_path": path.encode()} if aliased else scope, receive, send)
            return
        matching = [route for route in self._routes if path.startswith(route.prefix)]
        for route in matching:
            if scope["method"] in route.methods:
                await route.app(scope, receive, send)
                return
        if matching:
            await wrong_method(send, frozenset().union(*(route.methods for route in matching)))
        elif service is not None or ("." in first and rest and "/" not in rest):
            why = refusal(first, rest) if self._services else HealthOnly(service=first)
            await refuse(scope, send, to_connect(why, where=path), status=NOT_HERE)
        else:
            await answer(send, NOT_HERE, b"nothing is served at this path: docs/rpc.md lists what is\n")

    async def _health(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await wrong_method(send, frozenset({"GET", "HEAD"}))
            return
        reason = await self._ready() if scope["path"] == "/readyz" else None
        if reason is None:
            await answer(send, 200, b"OK")
        else:
            await answer(send, NOT_READY, f"{reason}\n".encode())


async def wrong_method(send: Send, allowed: frozenset[str]) -> None:
    names = ", ".join(sorted(allowed))
    body = f"this path takes {names}\n".encode()
    await answer(send, NOT_THIS_METHOD, body, headers=[(b"allow", names.encode())])
