"""CacheService, first version: keys without a scope. The executor's own entries lie in the scopes of the second."""

from dataclasses import dataclass

from flyteidl2.cacheservice import cacheservice_connect
from flyteidl2.cacheservice import cacheservice_pb2 as pb

from flyte_manager.domain.caching import CacheEntry
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import Blobs, Clock
from flyte_manager.ledger.cache import Cache
from flyte_manager.ledger.projects import Projects
from flyte_manager.services.context import Context
from flyte_manager.wire.caching import cached_output, check_text, reservation_proto, scoped
from flyte_manager.wire.times import moment, seconds


@dataclass(frozen=True, slots=True)
class CacheCalls:
    """What both versions do, the first in no scope."""

    projects: Projects
    cache: Cache
    blobs: Blobs
    clock: Clock

    async def get(self, asked: pb.GetCacheRequest, scope: ProjectId | None) -> pb.GetCacheResponse:
        key = scoped(asked.key, scope)
        await self._check(scope)
        return pb.GetCacheResponse(output=cached_output(await self.cache.get(key)))

    async def put(self, asked: pb.PutCacheRequest, scope: ProjectId | None) -> pb.PutCacheResponse:
        """Blobs of a run are the run's: only what another client had put is deleted by `delete_blob`."""
        entry = self._entry(asked, scope)
        rules = asked.overwrite
        max_age = seconds(rules.max_age) if rules.HasField("max_age") else None
        await self._admit(scope)
        former = await self.cache.put(entry, overwrite=rules.overwrite, max_age=max_age)
        if former and rules.delete_blob and former.source is None and former.output_uri not in ("", entry.output_uri):
            await self.blobs.delete(former.output_uri)
        return pb.PutCacheResponse()

    async def delete(self, asked: pb.DeleteCacheRequest, scope: ProjectId | None) -> pb.DeleteCacheResponse:
        key = scoped(asked.key, scope)
        await self._check(scope)
        await self.cache.delete(key)
        return pb.DeleteCacheResponse()

    async def reserve(
        self, asked: pb.GetOrExtendReservationRequest, scope: ProjectId | None
    ) -> pb.GetOrExtendReservationResponse:
        key, owner = scoped(asked.key, scope), check_text("owner_id", asked.owner_id)
        await self._admit(scope)
        found = await self.cache.reserve(key, owner, seconds(asked.heartbeat_interval))
        return pb.GetOrExtendReservationResponse(reservation=reservation_proto(found))

    async def release(
        self, asked: pb.ReleaseReservationRequest, scope: ProjectId | None
    ) -> pb.ReleaseReservationResponse:
        key, owner = scoped(asked.key, scope), check_text("owner_id", asked.owner_id)
        await self._check(scope)
        await self.cache.release(key, owner)
        return pb.ReleaseReservationResponse()

    async def _check(self, scope: ProjectId | None) -> None:
        if scope is not None:
            await self.projects.check_read(scope)

    async def _admit(self, scope: ProjectId | None) -> None:
        if scope is not None:
            await self.projects.admit_write(scope)

    def _entry(self, asked: pb.PutCacheRequest, scope: ProjectId | None) -> CacheEntry:
        key, now = scoped(asked.key, scope), self.clock()
        output = asked.output
        if output.WhichOneof("output") is None or (not output.output_uri and not output.HasField("output_literals")):
            raise NotGiven(field="output (output_uri or output_literals)")
        if output.output_uri:
            self.blobs.checked(output.output_uri)
        created = output.metadata.created_at
        return CacheEntry(
            key=key,
            output_uri=output.output_uri,
            literals=output.output_literals.SerializeToString(deterministic=True),
            metadata=output.metadata.SerializeToString(deterministic=True),
            created_at=moment(created) if output.metadata.HasField("created_at") else now,
            updated_at=now,
        )


class CacheService(cacheservice_connect.CacheService):
    def __init__(self, calls: CacheCalls) -> None:
        self._calls = calls

    async def get(self, request: pb.GetCacheRequest, _ctx: Context) -> pb.GetCacheResponse:
        return await self._calls.get(request, None)

    async def put(self, request: pb.PutCacheRequest, _ctx: Context) -> pb.PutCacheResponse:
        return await self._calls.put(request, None)

    async def delete(self, request: pb.DeleteCacheRequest, _ctx: Context) -> pb.DeleteCacheResponse:
        return await self._calls.delete(request, None)

    async def get_or_extend_reservation(
        self, request: pb.GetOrExtendReservationRequest, _ctx: Context
    ) -> pb.GetOrExtendReservationResponse:
        return await self._calls.reserve(request, None)

    async def release_reservation(
        self, request: pb.ReleaseReservationRequest, _ctx: Context
    ) -> pb.ReleaseReservationResponse:
        return await self._calls.release(request, None)
