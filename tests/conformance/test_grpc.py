"""A real manager, and a client that knows nothing of Connect: grpcio, with the stubs that flyteidl2 brings."""

import asyncio
import os
import resource
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from flyteidl2.workflow.queue_service_pb2 import (
    AbortQueuedActionRequest,
    AbortQueuedRunRequest,
    EnqueueActionRequest,
)
from flyteidl2.workflow.queue_service_pb2_grpc import QueueServiceStub
from flyteidl2.workflow.run_service_pb2 import (
    AbortRunRequest,
    CreateRunRequest,
    GetRunDetailsRequest,
    ListRunsRequest,
    WatchRunDetailsRequest,
)
from flyteidl2.workflow.run_service_pb2_grpc import RunServiceStub
from flyteidl2.workflow.state_service_pb2 import GetRequest, PutRequest, WatchRequest
from flyteidl2.workflow.state_service_pb2_grpc import StateServiceStub
from google.protobuf.json_format import ParseDict
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.managers import COMMAND, Manager, run_of

SCOPE = {"project": "flytesnacks", "domain": "development"}
QUEUED, RUNNING, SUCCEEDED, ABORTED = 1, 4, 5, 7
WATCH = "/flyteidl2.workflow.StateService/Watch"
FEW_FILES = ("sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh", *COMMAND)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with Manager(tmp_path_factory.mktemp("manager"), command=FEW_FILES) as started:
        yield started


@pytest.fixture(params=["api", "queue"])
def channel(manager: Manager, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """To each of the two ports."""
    with grpc.insecure_channel(f"localhost:{manager.ports[request.param]}") as opened:
        yield opened


def run_id(name: str) -> dict[str, str]:
    return {**SCOPE, "name": name}


def action(run: str, name: str = "a0") -> dict[str, Any]:
    return {"run": run_id(run), "name": name}


def child_of(run: str) -> EnqueueActionRequest:
    template = {**run_of("", "sleep", "60")["taskSpec"]["taskTemplate"]}  # type: ignore[index]
    body = {"actionId": action(run, "child"), "parentActionName": "a0", "task": {"spec": {"taskTemplate": template}}}
    return ParseDict(body, EnqueueActionRequest())


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    found: grpc.StatusCode = caught.value.code()
    return found


def test_the_calls_of_the_readme_pass_by_grpc_on_both_ports(channel: grpc.Channel, request: Any) -> None:
    name = f"grpc-{request.node.callspec.params['channel']}"
    runs, states, queue = RunServiceStub(channel), StateServiceStub(channel), QueueServiceStub(channel)
    created = runs.CreateRun(ParseDict(run_of(name, "sleep", "60"), CreateRunRequest()))
    assert created.run.action.id.name == "a0"
    seen = 0
    for told in runs.WatchRunDetails(WatchRunDetailsRequest(run_id=run_id(name)), timeout=30):
        seen = told.details.action.status.phase
        if seen == RUNNING:
            break
    assert seen == RUNNING
    watch = states.Watch(WatchRequest(parent_action_id=action(name)), timeout=30)
    assert next(watch).control_message.sentinel
    queue.EnqueueAction(child_of(name))
    assert next(watch).action_update.action_id.name == "child"
    assert '"phase": "PHASE_RUNNING"' in states.Get(GetRequest(action_id=action(name))).state
    state = '{"phase": "PHASE_RUNNING", "note": "half way"}'
    states.Put(PutRequest(action_id=action(name), state=state))
    assert "half way" in states.Get(GetRequest(action_id=action(name))).state
    queue.AbortQueuedAction(AbortQueuedActionRequest(action_id=action(name, "child")))
    assert any(told.action_update.phase == ABORTED for told in watch)
    runs.AbortRun(AbortRunRequest(run_id=run_id(name), reason="enough"))
    queue.AbortQueuedRun(AbortQueuedRunRequest(run_id=run_id(name)))
    details = runs.GetRunDetails(GetRunDetailsRequest(run_id=run_id(name))).details
    assert details.action.status.phase == ABORTED
    listed = runs.ListRuns(
        ParseDict({"projectId": {"name": "flytesnacks", "domain": "development"}}, ListRunsRequest())
    )
    assert name in {run.action.id.run.name for run in listed.runs}


def test_refusals_have_their_codes(channel: grpc.Channel) -> None:
    runs, states = RunServiceStub(channel), StateServiceStub(channel)
    missing = GetRunDetailsRequest(run_id=run_id("nobody"))
    assert code_of(lambda: runs.GetRunDetails(missing)) is grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: runs.CreateRun(CreateRunRequest())) is grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: states.Put(PutRequest(action_id=action("nobody")))) is grpc.StatusCode.NOT_FOUND
    unserved = channel.unary_unary("/flyteidl2.app.AppService/Create")
    assert code_of(lambda: unserved(b"")) is grpc.StatusCode.UNIMPLEMENTED


def test_a_ready_manager_is_serving(channel: grpc.Channel) -> None:
    health = HealthStub(channel)
    for service in ("", "flyteidl2.workflow.RunService"):
        assert health.Check(HealthCheckRequest(service=service)).status == HealthCheckResponse.SERVING


def test_a_client_learns_all_from_reflection(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    assert "flyteidl2.workflow.RunService" in services
    for service in services:
        file = database.FindFileContainingSymbol(service)
        assert service.rpartition(".")[2] in {each.name for each in file.service}


async def http1_stream(port: int, body: bytes) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {WATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+proto\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readuntil(b"\r\n\r\n")
    reader.writer = writer  # type: ignore[attr-defined]  # or it would be closed
    return reader


async def test_a_thousand_streams_each_way_are_open_and_end_with_unavailable_when_the_manager_is_told_to_stop(
    manager: Manager,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    manager.call("workflow.RunService/CreateRun", run_of("watched", "sleep", "60")).raise_for_status()
    request = WatchRequest(parent_action_id=action("watched"))
    message = request.SerializeToString()
    try:
        async with grpc.aio.insecure_channel(manager.endpoint) as channel:
            state = StateServiceStub(channel)
            http2 = [aiter(state.Watch(request)) for _ in range(1000)]
            for stream in http2:
                assert (await anext(stream)).control_message.sentinel
            framed = struct.pack(">BI", 0, len(message)) + message
            http1 = [await http1_stream(manager.ports["api"], framed) for _ in range(1000)]
            assert (await state.Get(GetRequest(action_id=action("watched")))).action_id.name == "a0"
            assert len(os.listdir(f"/proc/{manager.pid}/fd")) > 1024
            began = time.monotonic()
            manager.signal(signal.SIGTERM)
            ends = await asyncio.gather(*(anext(stream) for stream in http2), return_exceptions=True)
            assert {end.code() for end in ends if isinstance(end, grpc.RpcError)} == {grpc.StatusCode.UNAVAILABLE}
            assert len([end for end in ends if isinstance(end, grpc.RpcError)]) == 1000
            told = await asyncio.gather(*(reader.read() for reader in http1))
            assert all(b'"unavailable"' in end for end in told)
            assert manager.until_ended() == 0
            assert time.monotonic() - began < 3
            for reader in http1:
                reader.writer.close()  # type: ignore[attr-defined]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
