"""grpc.health.v1.Health: what /readyz says, for those who ask by gRPC.

The empty name is the manager as a whole; each service of its own has the same state. Nothing tells us when the
readiness changes, so a Watch looks once a second; any number of them share one look.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from connectrpc.method import IdempotencyLevel, MethodInfo
from connectrpc.server import Endpoint

from flyte_manager.domain.errors import Missing, Refusal
from flyte_manager.rpc.grpc_protos import HEALTH, message_class
from flyte_manager.rpc.routes import Ready

LOOK_SECONDS = 1.0
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

CheckRequest = message_class(f"{HEALTH}.HealthCheckRequest")
CheckResponse = message_class(f"{HEALTH}.HealthCheckResponse")
ListRequest = message_class(f"{HEALTH}.HealthListRequest")
ListResponse = message_class(f"{HEALTH}.HealthListResponse")


class NoSuchService(Missing):
    """service {name!r} was not found in this manager: the empty name stands for all of it."""


class Health:
    """`services`: the names of all that are served."""

    name = f"{HEALTH}.Health"

    def __init__(self, ready: Ready, services: Iterable[str]) -> None:
        self._ready = ready
        self._services = frozenset({"", *services})
        self._state = NOT_SERVING
        self._looked = float("-inf")

    def endpoints(self) -> Mapping[str, Any]:
        return {
            f"/{self.name}/Check": Endpoint.unary(_method("Check", CheckRequest, CheckResponse), self.check),
            f"/{self.name}/List": Endpoint.unary(_method("List", ListRequest, ListResponse), self.list),
            f"/{self.name}/Watch": Endpoint.server_stream(_method("Watch", CheckRequest, CheckResponse), self.watch),
        }

    async def check(self, request: Any, _ctx: Any) -> Any:
        if request.service not in self._services:
            raise NoSuchService(name=request.service)
        return CheckResponse(status=await self._look())

    async def list(self, _request: Any, _ctx: Any) -> Any:
        state = await self._look()
        return ListResponse(statuses={name: CheckResponse(status=state) for name in self._services})

    async def watch(self, request: Any, _ctx: Any) -> AsyncIterator[Any]:
        if request.service not in self._services:  # it may come, says the protocol; here it never does
            yield CheckResponse(status=SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        told = None
        while True:
            state = await self._look()
            if state != told:
                yield CheckResponse(status=state)
                told = state
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> int:
        if time.monotonic() - self._looked >= LOOK_SECONDS / 2:
            self._looked = time.monotonic()
            try:
                self._state = SERVING if await self._ready() is None else NOT_SERVING
            except Refusal:  # such as a database that can't be written; /readyz tells which
                self._state = NOT_SERVING
        return self._state


def _method(name: str, asked: type[Any], answered: type[Any]) -> MethodInfo[Any, Any]:
    return MethodInfo(
        name=name,
        service_name=Health.name,
        input=asked,
        output=answered,
        idempotency_level=IdempotencyLevel.UNKNOWN,
    )
