"""Class F of known faults: browsers against a server on localhost; and bodies that cost more than they weigh."""

import asyncio
import gzip
import json
import struct
import tracemalloc
from collections.abc import AsyncIterator
from itertools import product

import httpx
import pytest

from flyte_manager.rpc.asgi import Receive, Scope, Send, answer
from flyte_manager.rpc.gate import Gate, IllegalAllowedHost, parse_authority
from flyte_manager.rpc.routes import Route
from tests.unit.rpc.serving import GET, WATCH, Served, eventually, raw, serve

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]
PATHS = [GET, WATCH, "/", "/blobs/x", "/flyteidl2.app.AppService/List", "/healthz/", "/x/healthz", "/%2e/"]


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await answer(send, 200, b"page")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    routes = [Route(frozenset(METHODS), "/blobs/", page)]
    async with serve(extra=routes, allowed_hosts=["Flyte.Example.com", "tasks.example.com:8090"]) as running:
        yield running


async def status(served: Served, *headers: str, method: str = "GET", path: str = "/blobs/x") -> int:
    """The status that a request with exactly these header lines gets."""
    lines = "".join(f"{line}\r\n" for line in headers)
    request = f"{method} {path} HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n{lines}\r\n"
    return int((await raw(served.port, request.encode("latin-1"))).split(b" ", 2)[1])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8090",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:8090",
        "10.1.2.3:80",
        "[::1]",
        "[::1]:8090",
        "[2001:DB8::1]:8090",
        "[::ffff:127.0.0.1]:8090",
        "flyte.example.com",
        "FLYTE.example.com:8443",
        "tasks.example.com",
    ],
)
async def test_ip_literals_localhost_and_allowed_names_pass(served: Served, host: str) -> None:
    assert await status(served, f"Host: {host}") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "example.com",
        "sub.flyte.example.com",
        "flyte.example.com.evil.org",
        "localhost.evil.org",
        "evil-localhost",
        "localhost.",
        "127.0.0.1.evil.org",
        "127.1",
        "0x7f000001",
        "2130706433",
        "127.0.0.1.",
        "0177.0.0.1",
        "256.1.1.1",
    ],
)
async def test_other_names_are_refused_on_every_listener_with_the_setting_that_admits_them(
    served: Served, host: str
) -> None:
    for name in ("api", "second"):
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{served.servers.port_of(name)}/blobs/x"
            reply = await client.get(url, headers={"host": host})
        assert (reply.status_code, reply.json()["code"]) == (403, "permission_denied")
        assert "server.allowedHosts" in reply.json()["message"]
        assert host in reply.json()["message"]


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "user@localhost",
        "user:pass@127.0.0.1",
        "localhost:",
        "localhost:x",
        "localhost:0",
        "localhost:65536",
        "localhost:80:80",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[zz]",
        "[]",
        "localhost/",
        "localhost#",
        "localhost,evil.org",
        "local\xe9host",
        "http://localhost",
    ],
)
async def test_a_host_that_is_no_host_is_a_bad_request(served: Served, host: str) -> None:
    assert await status(served, f"Host: {host}") == 400


async def test_a_missing_or_second_host_is_a_bad_request(served: Served) -> None:
    assert await status(served) == 400
    assert await status(served, "Host: localhost", "Host: localhost") == 400
    assert await status(served, "Host: evil.org", "Host: localhost") == 400
    assert (await raw(served.port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_foreign_host_or_origin_gets_nowhere_by_any_method_and_path(served: Served) -> None:
    for method, path in product(METHODS, PATHS):
        assert await status(served, "Host: evil.org", method=method, path=path) == 403
        assert await status(served, "Host: localhost", "Origin: http://evil.org", method=method, path=path) == 403
    assert served.service.ended == []


async def test_only_get_of_the_two_health_paths_is_exempt(served: Served) -> None:
    for path in ("/healthz", "/readyz"):
        assert await status(served, "Host: evil.org", "Origin: null", path=path) == 200
        assert await status(served, path=path) == 200
        for method in METHODS[1:]:
            assert await status(served, "Host: evil.org", method=method, path=path) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8090", "http://localhost:8090"),
        ("LocalHost:8090", "http://localhost:8090"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("[::1]:8090", "http://[0:0::1]:8090"),
        ("flyte.example.com", "http://flyte.example.com"),
    ],
)
async def test_the_managers_own_pages_may_call_it(served: Served, host: str, origin: str) -> None:
    assert await status(served, f"Host: {host}", f"Origin: {origin}", method="POST") == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "*",
        "http://evil.org",
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8090",
        "http://127.0.0.1:8090",
        "http://user@localhost:8090",
        "http://localhost:8090/",
        "http://localhost:8090.evil.org",
        "localhost:8090",
        "file://",
        "http://flyte.example.com:8090",
        "chrome-extension://abc",
        "http://localhost:8090 http://evil.org",
    ],
)
async def test_pages_of_any_other_origin_may_not(served: Served, origin: str) -> None:
    assert await status(served, "Host: localhost:8090", f"Origin: {origin}", method="POST") == 403


async def test_a_second_origin_does_not_help(served: Served) -> None:
    own, foreign = "Origin: http://localhost", "Origin: http://evil.org"
    assert await status(served, "Host: localhost", own, foreign) == 403
    assert await status(served, "Host: localhost", foreign, own) == 403


async def test_no_answer_lets_another_origin_read_it(served: Served) -> None:
    for headers in ({}, {"origin": "http://evil.org"}, {"origin": served.url}):
        for method in ("OPTIONS", "GET", "POST"):
            async with httpx.AsyncClient() as client:
                reply = await client.request(method, served.url + "/blobs/x", headers=headers)
            assert not [name for name in reply.headers if name.startswith("access-control-")]


async def test_a_websocket_handshake_is_an_ordinary_request_to_the_gate(served: Served) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")
    assert await status(served, "Host: evil.org", *upgrade, path="/healthz/") == 403


@pytest.mark.parametrize("entry", ["https://a.example", "a.example/", "", "*", "user@a.example", "a b"])
def test_an_allowed_host_that_could_never_match_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(IllegalAllowedHost):
        Gate(page, allowed_hosts=[entry])


def test_an_authority_is_compared_in_one_spelling() -> None:
    first, second = parse_authority("[0:0:0::1]:80"), parse_authority("[::1]:80")
    assert first == second
    assert first is not None
    assert first.literal


async def test_a_small_body_that_expands_beyond_the_limit_costs_no_memory(served: Served) -> None:
    bomb = gzip.compress(bytes(256 << 20), compresslevel=9)
    headers = {"content_type": "application/proto", "content_encoding": "gzip"}
    await served.post(GET, bomb[:100], **headers)
    tracemalloc.start()
    try:
        reply = await served.post(GET, bomb, **headers)
        stream = await served.post(
            WATCH,
            struct.pack(">BI", 1, len(bomb)) + bomb,
            content_type="application/connect+proto",
            connect_content_encoding="gzip",
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (reply.status_code, reply.json()["code"]) == (429, "resource_exhausted")
    assert json.loads(stream.content[5:])["error"]["code"] == "resource_exhausted"
    assert peak < 8 << 20


async def test_a_body_that_announces_too_much_is_refused_before_it_is_read(served: Served) -> None:
    head = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {1 << 40}\r\n"
    for more in ("", "Expect: 100-continue\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"{head}{more}\r\n".encode())
        async with asyncio.timeout(2):
            answered = await reader.readuntil(b"}")
        assert answered.startswith(b"HTTP/1.1 413")
        assert b"resource_exhausted" in answered
        writer.close()


async def test_a_chunked_body_is_refused_when_it_passes_the_limit() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 65536

    async with serve(limit=1 << 20) as served:
        unary = await served.post(GET, chunks())
        assert (unary.status_code, unary.json()["code"]) == (429, "resource_exhausted")
        stream = await served.post(WATCH, chunks(), content_type="application/connect+proto")
        assert json.loads(stream.content[5:])["error"]["code"] == "resource_exhausted"


async def test_a_message_of_the_limit_passes_whole_and_packed() -> None:
    async with serve(limit=1 << 20) as served:
        body = b'{"actionId": {"name": "a"}}'.ljust(1 << 20)
        assert (await served.post(GET, body)).json()["state"] == "a"
        packed = await served.post(GET, gzip.compress(body), content_encoding="gzip")
        assert packed.json()["state"] == "a"
        assert (await served.post(GET, body + b" ")).status_code == 413


@pytest.mark.parametrize("path", [GET, WATCH])
async def test_broken_gzip_is_an_invalid_argument(served: Served, path: str) -> None:
    whole = gzip.compress(b"x" * 100)
    for broken in (b"x", whole[:-1], whole + b"tail", b"\x1f\x8b" + bytes(40)):
        if path == GET:
            reply = await served.post(path, broken, content_encoding="gzip")
            assert (reply.status_code, reply.json()["code"]) == (400, "invalid_argument")
        else:
            reply = await served.post(
                path,
                struct.pack(">BI", 1, len(broken)) + broken,
                content_type="application/connect+proto",
                connect_content_encoding="gzip",
            )
            assert json.loads(reply.content[5:])["error"]["code"] == "invalid_argument"


async def test_an_unknown_encoding_is_refused(served: Served) -> None:
    reply = await served.post(GET, b"{}", content_encoding="br")
    assert (reply.status_code, reply.json()["code"]) == (501, "unimplemented")


async def test_what_is_no_http_gets_a_bad_request_and_the_next_client_is_served(served: Served) -> None:
    negative = b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 100, b"GET\r\n\r\n", negative):
        assert (await raw(served.port, noise)).startswith(b"HTTP/1.1 400")
    smuggled = "Content-Length: 5", "Transfer-Encoding: chunked", "Host: localhost"
    request = "\r\n".join((f"POST {GET} HTTP/1.1", *smuggled, "", "0", "", "")).encode()
    assert (await raw(served.port, request)).startswith(b"HTTP/1.1 400")
    assert (await served.post(GET)).status_code == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode())
    writer.write(b"Content-Length: 100\r\n\r\n{")
    await asyncio.sleep(0.1)
    before = len(asyncio.all_tasks())
    writer.close()
    await eventually(lambda: len(asyncio.all_tasks()) < before)
