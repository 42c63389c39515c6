"""A thousand watchers of one run all see its end; one that reads nothing costs nothing and sees it too, later."""

import asyncio
import json
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from flyteidl2.common.identifier_pb2 import RunIdentifier
from flyteidl2.common.phase_pb2 import ACTION_PHASE_ABORTED, ActionPhase
from flyteidl2.workflow.run_service_pb2 import WatchActionsRequest, WatchActionsResponse

from tests.chaos.watched_run import NAMED, abort, enqueue, start
from tests.managers import Manager
from tests.security.fuzzing.wires import frames
from tests.unit.rpc.raw_http2 import connected

pytestmark = pytest.mark.chaos

WATCHERS = 1000
SLOW = 100
CHANGES = 200
MIB = 1 << 20
LARGEST = (1 << 31) - 1
"""window of a connection of HTTP/2"""

ACTIONS = "/flyteidl2.workflow.RunService/WatchActions"
WATCH = WatchActionsRequest(run_id=RunIdentifier(**NAMED)).SerializeToString()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path, {"embedded.cpu": "8"}) as started:
        yield started


@pytest.fixture
def many_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def memory(manager: Manager) -> int:
    """Bytes that the manager's process holds in RAM."""
    pages = int(Path(f"/proc/{manager.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


Watches = Callable[..., Awaitable[asyncio.StreamReader]]


@pytest.fixture
async def watch(manager: Manager) -> AsyncIterator[Watches]:
    """Opens streams of JSON by HTTP/1.1, which end with the test."""
    writers: list[asyncio.StreamWriter] = []

    async def opened(method: str, *, receive_buffer: int = 1 << 16) -> asyncio.StreamReader:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", manager.ports["api"]))
        reader, writer = await asyncio.open_connection(sock=connection, limit=4 * MIB)
        writers.append(writer)
        message = json.dumps({"runId": NAMED}).encode()
        body = struct.pack(">BI", 0, len(message)) + message
        head = f"POST /flyteidl2.workflow.RunService/{method} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/connect+json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader

    yield opened
    for writer in writers:
        writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_watchers_of_one_run_see_its_end(manager: Manager, watch: Watches) -> None:
    start(manager)
    before = memory(manager)
    watchers = [await watch(("WatchActions", "WatchRunDetails")[number % 2]) for number in range(WATCHERS)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(each.readuntil(b'"ACTION_PHASE_RUNNING"') for each in watchers))
    await asyncio.to_thread(abort, manager)
    async with asyncio.timeout(20):
        await asyncio.gather(*(each.readuntil(b'"ACTION_PHASE_ABORTED"') for each in watchers))
    assert memory(manager) - before < 100 * MIB
    assert manager.serves()
    assert "failed, id" not in manager.log


async def test_watchers_that_read_nothing_hold_up_nobody_and_see_the_last_state_when_they_read(
    manager: Manager, watch: Watches
) -> None:
    start(manager)
    quick = await watch("WatchActions")
    by_http1 = [await watch("WatchActions", receive_buffer=4096) for _ in range(SLOW // 10)]
    for each in by_http1:
        each._transport.pause_reading()  # type: ignore[attr-defined]
    async with connected(manager.ports["api"], reading=False, window=100) as client:
        by_http2 = [client.grpc(ACTIONS, WATCH) for _ in range(SLOW)]
        await quick.readuntil(b'"ACTION_PHASE_RUNNING"')
        before, longest = memory(manager), 0.0
        for number in range(CHANGES):
            began = time.monotonic()
            asked = {"name": "asked", "type": {"simple": "BOOLEAN"}}
            await asyncio.to_thread(enqueue, manager, f"asked{number}", condition=asked)
            async with asyncio.timeout(5):
                await quick.readuntil(f'"asked{number}"'.encode())
            longest = max(longest, time.monotonic() - began)
        grown = memory(manager) - before
        await asyncio.to_thread(abort, manager)
        async with asyncio.timeout(30):
            for each in [quick, *by_http1]:
                each._transport.resume_reading()  # type: ignore[attr-defined]
                await each.readuntil(f'"asked{CHANGES - 1}"'.encode())
                await each.readuntil(b'"ACTION_PHASE_ABORTED"')
            client.reading = True
            client.h2.increment_flow_control_window(LARGEST - 65535)
            for stream in by_http2:
                client.h2.increment_flow_control_window(16 * MIB, stream)
            client.flush()
            while not all(aborted(client.answers[stream].body) for stream in by_http2):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    messages = max(len(list(frames(client.answers[stream].body))) for stream in by_http2)
    assert longest < 3
    assert grown < 10 * MIB
    assert messages < CHANGES / 10
    assert manager.serves()


def aborted(body: bytearray) -> bool:
    """Whether these messages tell the end of all actions."""
    seen: dict[str, ActionPhase] = {}
    for _, message in frames(body):
        for each in WatchActionsResponse.FromString(message).enriched_actions:
            seen[each.action.id.name] = each.action.status.phase
    return len(seen) == CHANGES + 1 and set(seen.values()) == {ACTION_PHASE_ABORTED}
