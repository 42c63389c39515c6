"""StateService's Put and Get as streams in both directions, as the first Flyte 2 executors speak them.

Each message is answered like a unary call of its own; the first refusal ends the stream with its code.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from connectrpc.method import IdempotencyLevel, MethodInfo
from connectrpc.server import Endpoint
from flyteidl2.workflow import state_service_pb2 as pb
from flyteidl2.workflow.state_service_connect import StateService

from flyte_manager.services.context import Context


class StateStreams:
    name = "flyteidl2.workflow.StateService"

    def __init__(self, state: StateService) -> None:
        self._state = state

    def endpoints(self) -> Mapping[str, Any]:
        return {
            f"/{self.name}/Put": Endpoint.bidi_stream(_method("Put", pb.PutRequest, pb.PutResponse), self.put),
            f"/{self.name}/Get": Endpoint.bidi_stream(_method("Get", pb.GetRequest, pb.GetResponse), self.get),
        }

    async def put(self, requests: AsyncIterator[pb.PutRequest], ctx: Context) -> AsyncIterator[pb.PutResponse]:
        async for request in requests:
            yield await self._state.put(request, ctx)

    async def get(self, requests: AsyncIterator[pb.GetRequest], ctx: Context) -> AsyncIterator[pb.GetResponse]:
        async for request in requests:
            yield await self._state.get(request, ctx)


def _method(name: str, asked: type[Any], answered: type[Any]) -> MethodInfo[Any, Any]:
    return MethodInfo(
        name=name,
        service_name=StateStreams.name,
        input=asked,
        output=answered,
        idempotency_level=IdempotencyLevel.UNKNOWN,
    )
