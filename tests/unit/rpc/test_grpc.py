"""gRPC by other people's clients, on the real edge and real sockets."""

import asyncio
import gzip
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from flyteidl2.workflow.state_service_pb2 import GetRequest, GetResponse, PutRequest, PutResponse, WatchRequest
from flyteidl2.workflow.state_service_pb2_grpc import StateServiceStub
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from flyte_manager.domain.errors import Unavailable
from flyte_manager.rpc import grpc_health
from tests.unit.rpc.raw_http2 import connected
from tests.unit.rpc.serving import GET, SECRET, WATCH, Served, eventually, serve

PUT = "/flyteidl2.workflow.StateService/Put"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Readiness:
    """What /readyz and the health service ask."""

    problem: str | None = None
    refusal: Unavailable | None = None

    async def __call__(self) -> str | None:
        if self.refusal is not None:
            raise self.refusal
        return self.problem


@pytest.fixture
def ready() -> Readiness:
    return Readiness()


@pytest.fixture
async def served(ready: Readiness) -> AsyncIterator[Served]:
    async with serve(ready=ready, limit=8 << 20) as running:
        yield running


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as opened:
        yield opened


def named(name: str) -> GetRequest:
    return GetRequest(action_id={"name": name})


def watched(name: str) -> WatchRequest:
    return WatchRequest(parent_action_id={"name": name})


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def all_of(stream: Any) -> list[Any]:
    return [message async for message in stream]


async def test_unary_calls_and_streams_are_answered(channel: grpc.aio.Channel) -> None:
    state = StateServiceStub(channel)
    for name in ("a", "300", "1000000"):
        assert len((await state.Get(named(name))).state) == (int(name) if name.isdecimal() else 1)
    assert len(await all_of(state.Watch(watched("")))) == 3


async def test_compressed_calls_are_answered(served: Served) -> None:
    gzipped = grpc.Compression.Gzip
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", compression=gzipped) as channel:
        assert len((await StateServiceStub(channel).Get(named("n" * 100_000))).state) == 100_000


async def test_refusals_and_faults_arrive_with_their_code(channel: grpc.aio.Channel) -> None:
    state = StateServiceStub(channel)
    refused = await failure(state.Get(named("missing")))
    assert (refused.code(), refused.details()) == (grpc.StatusCode.NOT_FOUND, "the action was not found.")
    for call in (state.Get(named("fault")), all_of(state.Watch(watched("fault")))):
        fault = await failure(call)
        assert fault.code() is grpc.StatusCode.INTERNAL
        assert SECRET not in str(fault.details())
    later = await failure(all_of(state.Watch(watched("missing-later"))))
    assert later.code() is grpc.StatusCode.NOT_FOUND


async def test_what_is_not_served_is_unimplemented_with_its_sentence(channel: grpc.aio.Channel) -> None:
    error = await failure(channel.unary_unary("/flyteidl2.app.AppService/Get")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "AppService/Get" in str(error.details())


async def test_a_foreign_authority_is_refused_with_the_setting(served: Served) -> None:
    options = [("grpc.default_authority", "evil.example.com")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=options) as channel:
        error = await failure(StateServiceStub(channel).Get(named("a")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "server.allowedHosts" in str(error.details())


async def test_deadlines_are_kept(served: Served, channel: grpc.aio.Channel) -> None:
    state = StateServiceStub(channel)
    for call in (state.Get(named("hang"), timeout=0.2), all_of(state.Watch(watched("quiet"), timeout=0.2))):
        assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: sorted(served.service.ended) == ["hang", "quiet"])


async def test_a_deadline_is_told_by_the_server_too(served: Served) -> None:
    async with connected(served.port) as client:
        stream = client.grpc(WATCH, watched("quiet").SerializeToString(), grpc_timeout="100m")
        assert (await client.until_over(stream)).trailers["grpc-status"] == "4"


async def test_handlers_end_when_their_call_is_cancelled(served: Served, channel: grpc.aio.Channel) -> None:
    state = StateServiceStub(channel)
    calls = [state.Get(named("hang")), state.Watch(watched("quiet")), state.Watch(watched("stay"))]
    await calls[2].read()
    await eventually(lambda: sorted(served.service.begun) == ["hang", "quiet", "stay"])
    for call in calls:
        call.cancel()
    await eventually(lambda: sorted(served.service.ended) == ["hang", "quiet", "stay"], seconds=1)


async def test_the_headers_of_a_quiet_stream_come_at_once(channel: grpc.aio.Channel) -> None:
    stream = StateServiceStub(channel).Watch(watched("quiet"))
    async with asyncio.timeout(1):
        assert "date" in dict(await stream.initial_metadata())
    stream.cancel()


async def test_streams_end_with_unavailable_when_the_manager_stops(served: Served, channel: grpc.aio.Channel) -> None:
    state = StateServiceStub(channel)
    streams = [state.Watch(watched("quiet" if n % 2 else "stay")) for n in range(100)]
    ends = [asyncio.create_task(all_of(stream)) for stream in streams]
    await eventually(lambda: served.service.open == 100)
    began = asyncio.get_running_loop().time()
    await served.servers.stop()
    assert asyncio.get_running_loop().time() - began < 1.5
    for end in ends:
        error = await failure(end)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "reconnect" in str(error.details())


async def test_a_call_that_outlasts_the_grace_is_unavailable(served: Served, channel: grpc.aio.Channel) -> None:
    call = asyncio.ensure_future(StateServiceStub(channel).Get(named("hang")))
    await eventually(lambda: served.service.begun == ["hang"])
    await served.servers.stop(grace=0.2)
    assert (await failure(call)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_thousand_streams_are_open_on_one_connection_and_calls_pass_beside_them(
    served: Served, channel: grpc.aio.Channel
) -> None:
    state = StateServiceStub(channel)
    streams = [state.Watch(watched("stay")) for _ in range(1000)]
    await asyncio.gather(*(stream.read() for stream in streams))
    assert served.service.open == 1000
    assert (await state.Get(named("a"))).state == "a"
    for stream in streams:
        stream.cancel()
    await eventually(lambda: served.service.open == 0)


async def test_grpc_web_is_served_over_http_1(served: Served) -> None:
    for path, request, expected in ((GET, named("a"), 1), (WATCH, watched(""), 3)):
        message = request.SerializeToString()
        body = struct.pack(">BI", 0, len(message)) + message
        reply = await served.post(path, body, content_type="application/grpc-web+proto")
        frames = frames_of(reply.content)
        assert [flags for flags, _ in frames] == [0] * expected + [0x80]
        assert frames[-1][1] == b"grpc-status: 0\r\n"


def frames_of(body: bytes) -> list[tuple[int, bytes]]:
    """Flags and content of each."""
    found = []
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + size]))
        body = body[5 + size :]
    return found


# streams in both directions


def both_ways(channel: grpc.aio.Channel, path: str, asked: type[Any], answered: type[Any]) -> Callable[..., Any]:
    multi = channel.stream_stream(
        path, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
    )
    called: Callable[..., Any] = multi
    return called


async def test_put_and_get_are_streams_in_both_directions_too(channel: grpc.aio.Channel) -> None:
    get = both_ways(channel, GET, GetRequest, GetResponse)()
    for name in ("a", "b", "c"):
        await get.write(named(name))
        async with asyncio.timeout(2):
            assert (await get.read()).state == name
    await get.done_writing()
    assert await get.read() is grpc.aio.EOF
    put = both_ways(channel, PUT, PutRequest, PutResponse)
    asked = [PutRequest(action_id={"name": name}) for name in "abc"]
    assert [reply.action_id.name for reply in await all_of(put(iter(asked)))] == ["a", "b", "c"]


async def test_a_refusal_ends_a_stream_in_both_directions_with_its_code(channel: grpc.aio.Channel) -> None:
    get = both_ways(channel, GET, GetRequest, GetResponse)()
    await get.write(named("missing"))
    assert (await failure(get.read())).code() is grpc.StatusCode.NOT_FOUND


async def test_connect_streams_the_same_over_http_1(served: Served) -> None:
    messages = [named(name).SerializeToString() for name in ("a", "b")]
    body = b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)
    reply = await served.post(GET, body, content_type="application/connect+proto")
    found = frames_of(reply.content)
    assert [GetResponse.FromString(content).state for flags, content in found if flags == 0] == ["a", "b"]
    assert found[-1] == (2, b"{}")


async def test_a_stream_whose_last_message_is_cut_off_does_not_end_as_if_all_was_well(served: Served) -> None:
    message = named("a").SerializeToString()
    body = struct.pack(">BI", 0, len(message)) + message
    reply = await served.post(GET, body + body[:-1], content_type="application/connect+proto")
    flags, told = frames_of(reply.content)[-1]
    assert (flags, json.loads(told)["error"]["code"]) == (2, "invalid_argument")


async def test_a_stream_in_both_directions_ends_with_the_manager_and_with_its_client(
    served: Served, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(asyncio.all_tasks())
    left, stays = (both_ways(channel, GET, GetRequest, GetResponse)() for _ in range(2))
    for stream in (left, stays):
        await stream.write(named("a"))
        await stream.read()
    opened = len(asyncio.all_tasks())
    assert opened > before
    left.cancel()
    await eventually(lambda: len(asyncio.all_tasks()) < opened, seconds=2)
    end = asyncio.create_task(failure(stays.read()))
    await asyncio.sleep(0.05)
    await served.servers.stop()
    assert (await end).code() is grpc.StatusCode.UNAVAILABLE
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# what a client may send


async def test_a_message_that_announces_too_much_is_refused_before_it_is_read(served: Served) -> None:
    for path in (GET, WATCH):
        async with connected(served.port) as client:
            stream = client.open(path, headers=[("content-type", "application/grpc"), ("te", "trailers")])
            client.send(stream, struct.pack(">BI", 0, (8 << 20) + 1), end=False)
            assert (await client.until_over(stream)).trailers["grpc-status"] == "8"


async def test_a_packed_message_that_expands_beyond_the_limit_is_refused(served: Served) -> None:
    bomb = gzip.compress(bytes(64 << 20), compresslevel=9)
    async with connected(served.port) as client:
        for path in (GET, WATCH):
            headers = {"content_type": "application/grpc", "te": "trailers", "grpc_encoding": "gzip"}
            stream = client.open(path, headers=[(name.replace("_", "-"), value) for name, value in headers.items()])
            client.send(stream, struct.pack(">BI", 1, len(bomb)), end=False)
            for start in range(0, len(bomb), 16_000):
                client.send(stream, bomb[start : start + 16_000], end=False)
            client.send(stream, b"")
            assert (await client.until_over(stream)).trailers["grpc-status"] == "8"


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (struct.pack(">BI", 1, 3) + b"abc", "identity", "3"),
        (struct.pack(">BI", 1, 3) + b"abc", "gzip", "3"),
        (struct.pack(">BI", 0, 3) + b"\xff\xff\xff", "identity", "3"),
        (struct.pack(">BI", 0, 3) + b"ab", "identity", "3"),
        (struct.pack(">BI", 0, 3)[:4], "identity", "3"),
        (struct.pack(">BI", 0, 0), "snappy", "12"),
    ],
)
async def test_a_malformed_message_is_the_clients_fault(
    served: Served, body: bytes, encoding: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(served.port) as client:
        for path in (GET, WATCH, PUT):
            headers = {"content_type": "application/grpc", "te": "trailers", "grpc_encoding": encoding}
            assert (await client.until_over(client.request(path, body, **headers))).trailers["grpc-status"] == status
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# health


async def test_the_health_service_says_what_readyz_says(channel: grpc.aio.Channel, ready: Readiness) -> None:
    health = HealthStub(channel)
    for name in ("", "flyteidl2.workflow.StateService"):
        assert (await health.Check(HealthCheckRequest(service=name))).status == SERVING
    listed = (await health.List(HealthListRequest())).statuses
    assert {name: state.status for name, state in listed.items()} == {
        "": SERVING,
        "flyteidl2.workflow.StateService": SERVING,
    }
    await asyncio.sleep(grpc_health.LOOK_SECONDS / 2)
    ready.problem = "the informers have not listed yet"
    assert (await health.Check(HealthCheckRequest())).status == NOT_SERVING


async def test_an_unknown_service_has_no_health(channel: grpc.aio.Channel) -> None:
    health = HealthStub(channel)
    error = await failure(health.Check(HealthCheckRequest(service="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(HealthCheckRequest(service="nobody"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    watch.cancel()


async def test_a_health_watch_follows_the_readiness(
    channel: grpc.aio.Channel, ready: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_health, "LOOK_SECONDS", 0.02)
    watch = HealthStub(channel).Watch(HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    ready.refusal = Unavailable(what="the database", problem="it is locked")
    assert (await watch.read()).status == NOT_SERVING
    ready.refusal = None
    assert (await watch.read()).status == SERVING
    watch.cancel()


# reflection


@pytest.fixture(params=["v1", "v1alpha"])
def reflect(request: pytest.FixtureRequest, channel: grpc.aio.Channel) -> Callable[..., Any]:
    """Sends requests on one stream and returns what is answered; both versions have the same messages."""
    path = f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo"
    call = both_ways(channel, path, ServerReflectionRequest, ServerReflectionResponse)

    async def asking(*requests: dict[str, Any]) -> Sequence[ServerReflectionResponse]:
        return await all_of(call(iter([ServerReflectionRequest(**each) for each in requests])))

    return asking


async def test_reflection_lists_the_services(reflect: Callable[..., Any]) -> None:
    (listed,) = await reflect({"list_services": "*"})
    assert [service.name for service in listed.list_services_response.service] == [
        "flyteidl2.workflow.StateService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


@pytest.mark.parametrize(
    "symbol",
    [
        "flyteidl2.workflow.StateService",
        "flyteidl2.workflow.StateService.Get",
        "flyteidl2.workflow.GetRequest",
        "grpc.health.v1.Health",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "grpc.reflection.v1.ServerReflectionRequest",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
)
async def test_the_files_of_a_symbol_are_all_that_is_needed_to_understand_it(
    reflect: Callable[..., Any], symbol: str
) -> None:
    (told,) = await reflect({"file_containing_symbol": symbol})
    files = [FileDescriptorProto.FromString(each) for each in told.file_descriptor_response.file_descriptor_proto]
    pool = DescriptorPool()
    waiting = {file.name: file for file in files}
    while waiting:
        name = next(name for name, file in waiting.items() if not waiting.keys() & set(file.dependency))
        pool.Add(waiting.pop(name))
    owner = symbol.removesuffix(".Get")
    assert pool.FindFileContainingSymbol(owner).name == files[0].name


async def test_a_file_is_sent_once_a_stream_unless_it_is_asked_for(reflect: Callable[..., Any]) -> None:
    asked = {"file_by_filename": "flyteidl2/workflow/state_service.proto"}
    first, second = await reflect(asked, asked)
    assert len(first.file_descriptor_response.file_descriptor_proto) > 5
    assert len(second.file_descriptor_response.file_descriptor_proto) == 1


async def test_extensions_are_told(reflect: Callable[..., Any]) -> None:
    options = "google.protobuf.FieldOptions"
    extension = {"containing_type": options, "extension_number": 1159}
    numbers, file = await reflect({"all_extension_numbers_of_type": options}, {"file_containing_extension": extension})
    assert 1159 in numbers.all_extension_numbers_response.extension_number
    first = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert first.name == "buf/validate/validate.proto"


@pytest.mark.parametrize(
    "request_of",
    [
        {"file_by_filename": "no/such.proto"},
        {"file_containing_symbol": "no.such.Symbol"},
        {"file_containing_symbol": "flyteidl2.workflow.StateService.NoMethod"},
        {"file_containing_symbol": ""},
        {"all_extension_numbers_of_type": "no.Type"},
        {"file_containing_extension": {"containing_type": "no.Type", "extension_number": 1}},
        {"file_containing_extension": {"containing_type": "google.protobuf.FieldOptions", "extension_number": 7}},
    ],
)
async def test_what_is_not_there_is_not_found_and_the_stream_goes_on(
    reflect: Callable[..., Any], request_of: dict[str, Any]
) -> None:
    missing, nothing, listed = await reflect(request_of, {}, {"list_services": ""})
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert missing.original_request == ServerReflectionRequest(**request_of)
    assert nothing.error_response.error_code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert listed.list_services_response.service
