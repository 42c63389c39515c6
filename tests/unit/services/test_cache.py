"""Both versions of CacheService: entries, scopes, reservations."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.cacheservice import cacheservice_pb2 as pb
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as v2
from flyteidl2.core import identifier_pb2, literals_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.services.running import NOW, Manager, refused

HERE = v2.Identifier(org="acme", project="flytesnacks", domain="development")


def integer(value: int) -> literals_pb2.LiteralMap:
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))
    return literals_pb2.LiteralMap(literals={"o0": literal})


class First:
    """Calls the first version."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.cache

    async def get(self, **fields: Any) -> pb.GetCacheResponse:
        return await self._client.get(pb.GetCacheRequest(**fields))

    async def put(self, **fields: Any) -> pb.PutCacheResponse:
        return await self._client.put(pb.PutCacheRequest(**fields))

    async def delete(self, **fields: Any) -> pb.DeleteCacheResponse:
        return await self._client.delete(pb.DeleteCacheRequest(**fields))

    async def reserve(self, **fields: Any) -> pb.Reservation:
        asked = pb.GetOrExtendReservationRequest(**fields)
        return (await self._client.get_or_extend_reservation(asked)).reservation

    async def release(self, **fields: Any) -> pb.ReleaseReservationResponse:
        return await self._client.release_reservation(pb.ReleaseReservationRequest(**fields))


class Second:
    """Calls the second version in a scope."""

    def __init__(self, manager: Manager, scope: v2.Identifier = HERE) -> None:
        self._client = manager.scoped_cache
        self._scope = scope

    async def get(self, **fields: Any) -> pb.GetCacheResponse:
        base = pb.GetCacheRequest(**fields)
        return await self._client.get(v2.GetCacheRequest(base_request=base, identifier=self._scope))

    async def put(self, **fields: Any) -> pb.PutCacheResponse:
        base = pb.PutCacheRequest(**fields)
        return await self._client.put(v2.PutCacheRequest(base_request=base, identifier=self._scope))

    async def delete(self, **fields: Any) -> pb.DeleteCacheResponse:
        base = pb.DeleteCacheRequest(**fields)
        return await self._client.delete(v2.DeleteCacheRequest(base_request=base, identifier=self._scope))

    async def reserve(self, **fields: Any) -> pb.Reservation:
        base = pb.GetOrExtendReservationRequest(**fields)
        asked = v2.GetOrExtendReservationRequest(base_request=base, identifier=self._scope)
        return (await self._client.get_or_extend_reservation(asked)).reservation

    async def release(self, **fields: Any) -> pb.ReleaseReservationResponse:
        base = pb.ReleaseReservationRequest(**fields)
        asked = v2.ReleaseReservationRequest(base_request=base, identifier=self._scope)
        return await self._client.release_reservation(asked)


Caller = First | Second


@pytest.fixture(params=[First, Second])
def calls(request: pytest.FixtureRequest, manager: Manager) -> Caller:
    kind: Callable[[Manager], Caller] = request.param
    return kind(manager)


def output(value: int = 1, **metadata: Any) -> pb.CachedOutput:
    return pb.CachedOutput(output_literals=integer(value), metadata=pb.Metadata(**metadata))


async def test_what_is_put_is_got_with_all_its_metadata(calls: Caller) -> None:
    source = identifier_pb2.Identifier(resource_type=identifier_pb2.TASK, project="p", name="t", version="1", org="o")
    notes = pb.KeyMapMetadata(values={"task-version": "1"})
    await calls.put(key="call", output=output(7, source_identifier=source, key_map=notes))
    found = (await calls.get(key="call")).output
    assert found.output_literals == integer(7)
    assert (found.metadata.source_identifier, found.metadata.key_map) == (source, notes)
    assert found.metadata.created_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    assert found.metadata.last_updated_at == found.metadata.created_at


async def test_outputs_may_lie_in_the_store(manager: Manager, calls: Caller) -> None:
    uri = manager.directory.join("flytesnacks/development/r1/a0/1/outputs.pb")
    await calls.put(key="call", output=pb.CachedOutput(output_uri=uri))
    assert (await calls.get(key="call")).output.output_uri == uri
    told = await refused(
        calls.put(key="other", output=pb.CachedOutput(output_uri="/etc/passwd")), Code.INVALID_ARGUMENT
    )
    assert "/etc/passwd" in told


async def test_what_is_there_is_only_replaced_by_leave(manager: Manager, calls: Caller) -> None:
    await calls.put(key="call", output=output(1))
    assert "overwrite" in await refused(calls.put(key="call", output=output(2)), Code.ALREADY_EXISTS)
    manager.clock.advance(seconds=60)
    await calls.put(key="call", output=output(2), overwrite=pb.OverwriteOutput(overwrite=True))
    found = (await calls.get(key="call")).output
    assert found.output_literals == integer(2)
    assert found.metadata.created_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    assert found.metadata.last_updated_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=60)


async def test_what_is_older_than_max_age_is_replaced_without_leave(manager: Manager, calls: Caller) -> None:
    rules = pb.OverwriteOutput(max_age=Duration(seconds=60))
    await calls.put(key="call", output=output(1))
    manager.clock.advance(seconds=60)
    await refused(calls.put(key="call", output=output(2), overwrite=rules), Code.ALREADY_EXISTS)
    manager.clock.advance(seconds=1)
    await calls.put(key="call", output=output(3), overwrite=rules)
    assert (await calls.get(key="call")).output.output_literals == integer(3)


@pytest.mark.parametrize(("seconds", "replaced"), [(-(2**63), True), (2**63 - 1, False)])
async def test_a_max_age_may_be_longer_than_any_time(calls: Caller, *, seconds: int, replaced: bool) -> None:
    rules = pb.OverwriteOutput(max_age=Duration(seconds=seconds))
    await calls.put(key="call", output=output(1))
    again = calls.put(key="call", output=output(2), overwrite=rules)
    if replaced:
        await again
    else:
        await refused(again, Code.ALREADY_EXISTS)


async def test_the_time_of_its_making_may_be_told(calls: Caller) -> None:
    made = Timestamp(seconds=1_000_000_000)
    await calls.put(key="call", output=output(1))
    await calls.put(key="call", output=output(2, created_at=made), overwrite=pb.OverwriteOutput(overwrite=True))
    assert (await calls.get(key="call")).output.metadata.created_at == made
    bad = output(created_at=Timestamp(seconds=1 << 60))
    await refused(calls.put(key="other", output=bad), Code.INVALID_ARGUMENT)


async def test_the_blob_of_what_is_replaced_is_deleted_on_demand(manager: Manager, calls: Caller) -> None:
    one, two = manager.directory.join("one/outputs.pb"), manager.directory.join("two/outputs.pb")
    for uri in (one, two):
        await manager.directory.write(uri, b"")
    overwrite = pb.OverwriteOutput(overwrite=True)
    await calls.put(key="call", output=pb.CachedOutput(output_uri=one))
    await calls.put(key="call", output=pb.CachedOutput(output_uri=two), overwrite=overwrite)
    assert await manager.directory.exists(one)
    overwrite.delete_blob = True
    await calls.put(key="call", output=pb.CachedOutput(output_uri=two), overwrite=overwrite)
    assert await manager.directory.exists(two)
    await calls.put(key="call", output=output(), overwrite=overwrite)
    assert not await manager.directory.exists(two)


async def test_what_is_deleted_is_not_found_any_more(calls: Caller) -> None:
    await calls.put(key="call", output=output())
    await calls.delete(key="call")
    for call in (calls.get, calls.delete):
        assert "'call'" in await refused(call(key="call"), Code.NOT_FOUND)


async def test_scopes_do_not_see_each_other(manager: Manager) -> None:
    scopes: list[Caller] = [
        First(manager),
        Second(manager),
        Second(manager, v2.Identifier(project="flytesnacks", domain="staging")),
        Second(manager, v2.Identifier(project="fresh", domain="development")),
    ]
    for number, scope in enumerate(scopes):
        await scope.put(key="call", output=output(number))
        await scope.reserve(key="call", owner_id=str(number))
    for number, scope in enumerate(scopes):
        assert (await scope.get(key="call")).output.output_literals == integer(number)
        assert (await scope.reserve(key="call", owner_id="late")).owner_id == str(number)
    same = Second(manager, v2.Identifier(org="another", project="flytesnacks", domain="development"))
    assert (await same.get(key="call")).output.output_literals == integer(1)


async def test_one_owner_has_the_key_until_it_expires_or_is_released(manager: Manager, calls: Caller) -> None:
    first = await calls.reserve(key="call", owner_id="one", heartbeat_interval=Duration(seconds=2))
    assert (first.key, first.owner_id, first.heartbeat_interval) == ("call", "one", Duration(seconds=2))
    assert first.expires_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=6)
    manager.clock.advance(seconds=5)
    assert await calls.reserve(key="call", owner_id="two") == first
    again = await calls.reserve(key="call", owner_id="one", heartbeat_interval=Duration(seconds=2))
    assert again.expires_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=11)
    manager.clock.advance(seconds=6)
    assert (await calls.reserve(key="call", owner_id="two")).owner_id == "two"
    for owner in ("one", "two", "two"):
        await calls.release(key="call", owner_id=owner)
        expected = "two" if owner == "one" else "three"
        assert (await calls.reserve(key="call", owner_id="three")).owner_id == expected


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (Duration(), 10.0),
        (Duration(seconds=-1), 10.0),
        (Duration(seconds=3600), 10.0),
        (Duration(nanos=500_000_000), 0.5),
        (Duration(seconds=1 << 62), 10.0),
    ],
)
async def test_heartbeats_are_at_most_ten_seconds(calls: Caller, asked: Duration, given: float) -> None:
    found = await calls.reserve(key="call", owner_id="one", heartbeat_interval=asked)
    assert found.heartbeat_interval.ToTimedelta() == timedelta(seconds=given)
    assert found.expires_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=3 * given)


@pytest.mark.parametrize("key", ["", "x" * 513, "a\0b", "line\n"])
async def test_a_bad_key_or_owner_is_refused_by_every_method(calls: Caller, key: str) -> None:
    asked: list[Awaitable[object]] = [
        calls.get(key=key),
        calls.put(key=key, output=output()),
        calls.delete(key=key),
        calls.reserve(key=key, owner_id="one"),
        calls.release(key=key, owner_id="one"),
    ]
    for call in asked:
        assert "key" in await refused(call, Code.INVALID_ARGUMENT)
    for call in (calls.reserve(key="call", owner_id=key), calls.release(key="call", owner_id=key)):
        assert "owner_id" in await refused(call, Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("given", [pb.CachedOutput(), pb.CachedOutput(output_uri="")])
async def test_an_entry_without_outputs_is_refused(calls: Caller, given: pb.CachedOutput) -> None:
    assert "output" in await refused(calls.put(key="call", output=given), Code.INVALID_ARGUMENT)


async def test_the_second_version_asks_for_a_scope(manager: Manager) -> None:
    base = pb.GetCacheRequest(key="call")
    told = await refused(manager.scoped_cache.get(v2.GetCacheRequest(base_request=base)), Code.INVALID_ARGUMENT)
    assert "identifier" in told
    unknown = Second(manager, v2.Identifier(project="unknown", domain="development"))
    assert "unknown" in await refused(unknown.get(key="call"), Code.NOT_FOUND)
    nowhere = Second(manager, v2.Identifier(project="flytesnacks", domain="nowhere"))
    assert "nowhere" in await refused(nowhere.put(key="call", output=output()), Code.NOT_FOUND)
