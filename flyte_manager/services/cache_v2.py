"""CacheService, second version: each key belongs to a project and domain, as those of the executor do."""

from flyteidl2.cacheservice import cacheservice_pb2 as pb
from flyteidl2.cacheservice.v2 import cacheservice_connect
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as v2

from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.ids import ProjectId
from flyte_manager.services.cache import CacheCalls
from flyte_manager.services.context import Context
from flyte_manager.wire.caching import scope_of

Asked = (
    v2.GetCacheRequest
    | v2.PutCacheRequest
    | v2.DeleteCacheRequest
    | v2.GetOrExtendReservationRequest
    | v2.ReleaseReservationRequest
)


class CacheServiceV2(cacheservice_connect.CacheService):
    def __init__(self, calls: CacheCalls) -> None:
        self._calls = calls

    async def get(self, request: v2.GetCacheRequest, _ctx: Context) -> pb.GetCacheResponse:
        return await self._calls.get(request.base_request, _scope(request))

    async def put(self, request: v2.PutCacheRequest, _ctx: Context) -> pb.PutCacheResponse:
        return await self._calls.put(request.base_request, _scope(request))

    async def delete(self, request: v2.DeleteCacheRequest, _ctx: Context) -> pb.DeleteCacheResponse:
        return await self._calls.delete(request.base_request, _scope(request))

    async def get_or_extend_reservation(
        self, request: v2.GetOrExtendReservationRequest, _ctx: Context
    ) -> pb.GetOrExtendReservationResponse:
        return await self._calls.reserve(request.base_request, _scope(request))

    async def release_reservation(
        self, request: v2.ReleaseReservationRequest, _ctx: Context
    ) -> pb.ReleaseReservationResponse:
        return await self._calls.release(request.base_request, _scope(request))


def _scope(request: Asked) -> ProjectId:
    """Raises NotGiven, and what check_scope raises."""
    if not request.HasField("identifier"):
        raise NotGiven(field="identifier (org, project, domain)")
    return scope_of(request.identifier)
