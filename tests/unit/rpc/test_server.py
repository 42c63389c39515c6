import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from flyte_manager.rpc import server
from flyte_manager.rpc.asgi import Receive, Scope, Send, answer
from flyte_manager.rpc.server import CannotListen, Listener, PortTaken, Servers
from tests.unit.rpc.serving import GET, raw, serve

HOLDER = """
import socket, sys
holder = socket.create_server((sys.argv[1], 0), family=getattr(socket, sys.argv[2]))
print(holder.getsockname()[1], flush=True)
sys.stdin.read()
"""


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await answer(send, 200, b"hello")


def listener(port: int = 0, *, host: str = "localhost", name: str = "api") -> Listener:
    return Listener(name, host, port, hello, setting="server.port")


@pytest.fixture(params=[("127.0.0.1", "AF_INET"), ("::1", "AF_INET6"), ("0.0.0.0", "AF_INET")])
def holder(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Pid and port of another process that listens."""
    command = [sys.executable, "-c", HOLDER, *request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


async def test_a_taken_port_is_refused_with_its_holder_and_the_cure(holder: tuple[int, int]) -> None:
    pid, port = holder
    free = listener(name="free")
    servers = Servers([free, listener(port)], stopping=asyncio.Event())
    with pytest.raises(PortTaken) as caught:
        await servers.start()
    told = str(caught.value)
    assert told.startswith(f"address already in use: localhost:{port} (pid {pid}, ")
    assert "-c" in told
    assert told.endswith("stop it, or set server.port to another port")


async def test_a_taken_port_whose_holder_the_system_does_not_tell_is_held_by_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "port_holder", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken) as caught:
        await Servers([listener(taken.getsockname()[1])], stopping=asyncio.Event()).start()
    assert "(another process)" in str(caught.value)


async def test_nothing_is_held_after_a_refused_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
        probe.close()
        listeners = [listener(free, name="free"), listener(taken.getsockname()[1])]
        with pytest.raises(PortTaken):
            await Servers(listeners, stopping=asyncio.Event()).start()
        socket.create_server(("127.0.0.1", free)).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_refused_with_the_settings_of_both(host: str) -> None:
    with pytest.raises(CannotListen, match=r"change host or port in server$"):
        await Servers([listener(host=host)], stopping=asyncio.Event()).start()


async def test_a_wildcard_host_answers_too() -> None:
    servers = Servers([listener(host="0.0.0.0")], stopping=asyncio.Event())
    await servers.start()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{servers.port_of('api')}/")).text == "hello"
    await servers.stop()


async def test_stopping_closes_idle_connections_at_once_and_frees_the_port() -> None:
    stopping = asyncio.Event()
    servers = Servers([listener()], stopping=stopping)
    await servers.start()
    port = servers.port_of("api")
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    async with httpx.AsyncClient() as client:
        await client.get(f"http://127.0.0.1:{port}/")
        began = asyncio.get_running_loop().time()
        await servers.stop()
    assert stopping.is_set()
    assert asyncio.get_running_loop().time() - began < 0.2
    again = Servers([listener(port)], stopping=asyncio.Event())
    await again.start()
    await again.stop()
    writer.close()


async def test_the_process_keeps_its_own_signal_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serve():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_request_with_an_endless_head_is_refused() -> None:
    async with serve() as served:
        line = b"x-filler: " + b"a" * 1000 + b"\r\n"
        many = await raw(served.port, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + line * 200)
        long = await raw(served.port, b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 200_000)
        assert many.startswith(b"HTTP/1.1 400 ")
        assert long.startswith(b"HTTP/1.1 400 ")


async def test_https_at_a_plain_port_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as served:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"x" * 100
        assert (await raw(served.port, hello)).startswith(b"HTTP/1.1 400")
    assert f"a client speaks https to port {served.port}, which is plain http" in caplog.text


async def test_many_requests_with_large_bodies_pass_on_one_connection() -> None:
    async with serve() as served, httpx.AsyncClient(base_url=served.url) as client:
        body = b'{"actionId": {"name": "' + b"n" * 300_000 + b'"}}'
        for _ in range(5):
            reply = await client.post(GET, content=body, headers={"content-type": "application/json"})
            assert len(reply.json()["state"]) == 300_000


async def test_the_access_log_is_written_at_debug_only_and_without_the_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for level, expected in ((logging.INFO, 0), (logging.DEBUG, 1)):
        caplog.set_level(level, logger="flyte_manager")
        caplog.clear()
        async with serve() as served, httpx.AsyncClient(base_url=served.url) as client:
            await client.get("/healthz?signature=abc")
        lines = [record.getMessage() for record in caplog.records if "/healthz" in record.getMessage()]
        assert len(lines) == expected
        assert not any("abc" in line for line in lines)


def test_run_uses_uvloop() -> None:
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert server.run(loop_module()).startswith("uvloop" if os.name == "posix" else "asyncio")


def test_the_edge_works_on_uvloop_too() -> None:
    async def call() -> int:
        async with serve() as served:
            return (await served.post(GET)).status_code

    assert server.run(call()) == 200
