"""The short way of unary calls against connectrpc's: each request is sent both ways, by HTTP/1.1 and by HTTP/2."""

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from flyteidl2.workflow.state_service_pb2 import GetRequest

from flyte_manager.rpc import flight, unary
from flyte_manager.rpc.asgi import Scope
from flyte_manager.rpc.gzip import STORED_UP_TO
from tests.unit.rpc.serving import GET, WATCH, Served, eventually, serve

LIMIT = 200_000
FRAMING = ("date", "content-length", "transfer-encoding", "connection", "x-content-type-options")
FAULT = re.compile(rb"internal error [0-9a-f]{8}")
PROTO, JSON = ("Content-Type", "application/proto"), ("Content-Type", "application/json")
PACKED = ("Content-Encoding", "gzip")
HANG = b'{"actionId": {"name": "hang"}}'

Pair = tuple[str | bytes, str | bytes]


def proto(name: str) -> bytes:
    return GetRequest(action_id={"name": name}).SerializeToString()


def json(name: str) -> bytes:
    return b'{"actionId": {"name": "%s"}}' % name.encode()


def timeout(value: str) -> Pair:
    return ("Connect-Timeout-Ms", value)


def accepts(value: str) -> Pair:
    return ("Accept-Encoding", value)


class InPieces(bytes):
    """Sent without its length."""

    async def pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self), 50_000):
            yield self[start : start + 50_000]


@dataclass(frozen=True)
class Answer:
    """Without what differs between two answers to the same request, and what is not meant for its reader."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


SHORT: dict[str, tuple[bytes, *tuple[Pair, ...]]] = {
    "proto": (proto("a"), PROTO),
    "json": (json("a"), JSON),
    "proto packed": (gzip.compress(proto("a")), PROTO, PACKED),
    "json packed": (gzip.compress(json("a")), JSON, PACKED),
    "said to be unpacked": (proto("a"), PROTO, ("Content-Encoding", "identity")),
    "in pieces": (InPieces(json("n" * 150_000)), JSON),
    "names in odd case": (json("context"), ("cOnTeNt-TyPe", "application/json"), ("X-ODD", "Odd"), timeout("60000")),
    "what the handler is told": (json("context"), JSON, timeout("60000"), ("Connect-Protocol-Version", "1")),
    "told without a deadline": (json("context"), JSON, ("Host", "localhost")),
    "what the handler adds": (json("adds"), JSON),
    "large reply": (json("90000"), JSON, accepts("gzip, deflate")),
    "large reply, the first known": (json("90000"), JSON, accepts("br , gzip,identity")),
    "large reply, unpacked first": (json("90000"), JSON, accepts("identity, gzip")),
    "large reply, nothing known": (json("90000"), JSON, accepts("br")),
    "large reply, gzip refused": (json("90000"), JSON, accepts("gzip;q=0")),
    "large reply, nothing said": (json("90000"), JSON, accepts("")),
    "no body, proto": (b"", PROTO),
    "no body, json": (b"", JSON),
    "no body, packed": (b"", PROTO, PACKED),
    "unknown field": (proto("a") + b"\xfa\x3f\x03abc", PROTO),
    "unknown field, json": (b'{"nosuch": 1}', JSON),
    "trailing bytes": (proto("a") + b"\xff", PROTO),
    "trailing bytes, json": (json("a") + b"{}", JSON),
    "cut off": (proto("a")[:-1], PROTO),
    "cut off, json": (json("a")[:-1], JSON),
    "no utf-8": (b"\xff\xfe", JSON),
    "no gzip": (b"no gzip at all, but long enough", PROTO, PACKED),
    "short gzip": (b"\x1f\x8b", PROTO, PACKED),
    "cut gzip": (gzip.compress(json("a"))[:-3], JSON, PACKED),
    "bytes behind gzip": (gzip.compress(json("a")) + b"x" * 9, JSON, PACKED),
    "two gzips": (gzip.compress(json("a")) * 2, JSON, PACKED),
    "bomb": (gzip.compress(bytes(LIMIT + 1)), PROTO, PACKED),
    "as large as may be": (json("n" * (LIMIT - len(json("")))), JSON),
    "too large, in pieces": (InPieces(json("n" * LIMIT)), JSON),
    "refused": (json("refused"), JSON),
    "missing": (proto("missing"), PROTO),
    "fault": (json("fault"), JSON),
    "cancelled inside": (json("cancelled-inside"), JSON),
    "no message": (proto("no-message"), PROTO),
    "deadline passed": (HANG, JSON, timeout("0")),
    "deadline soon": (HANG, JSON, timeout("50")),
    "deadline later": (HANG, JSON, timeout("400")),
    "the longest deadline": (json("a"), JSON, timeout("9999999999")),
}
"""name -> body, headers"""

LONG: dict[str, tuple[bytes, *tuple[Pair, ...]]] = {
    "parameters of the type": (json("a"), ("Content-Type", "application/json; charset=utf-8")),
    "type in capitals": (json("a"), ("Content-Type", "Application/JSON")),
    "unknown codec": (json("a"), ("Content-Type", "application/cbor")),
    "a form": (json("a"), ("Content-Type", "text/plain")),
    "no type": (json("a"),),
    "two types": (json("a"), JSON, PROTO),
    "unknown compression": (json("a"), JSON, ("Content-Encoding", "br")),
    "compression in capitals": (gzip.compress(json("a")), JSON, ("Content-Encoding", "GZIP")),
    "compression of a stream": (json("a"), JSON, ("Connect-Content-Encoding", "br")),
    "other version": (json("a"), JSON, ("Connect-Protocol-Version", "2")),
    "no number": (json("a"), JSON, timeout("soon")),
    "an empty number": (json("a"), JSON, timeout("")),
    "a sign": (json("a"), JSON, timeout("+5000")),
    "too many digits": (json("a"), JSON, timeout("10000000000")),
    "gRPC's deadline": (json("a"), JSON, ("Grpc-Timeout", "7 days")),
    "a header twice": (json("context"), JSON, ("X-Twice", "one"), ("X-Twice", "two")),
    "a header in utf-8": (json("context"), JSON, ("X-Word", "über".encode())),
    "a header in latin-1": (json("context"), JSON, ("X-Word", "über".encode("latin-1"))),
    "gRPC-Web": (b"\0\0\0\0\0", ("Content-Type", "application/grpc-web+proto")),
    "a stream's type": (b"\0\0\0\0\0", ("Content-Type", "application/connect+proto")),
}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve(limit=LIMIT) as running:
        yield running


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
async def client(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[httpx.AsyncClient]:
    second = request.param == "HTTP/2"
    async with httpx.AsyncClient(base_url=served.url, http1=not second, http2=second, timeout=30) as client:
        yield client


async def asked(client: httpx.AsyncClient, content: bytes, headers: tuple[Pair, ...], **rest: Any) -> Answer:
    sent = content.pieces() if isinstance(content, InPieces) else content
    path, method = rest.get("path", GET), rest.get("method", "POST")
    reply = await client.request(method, path, content=sent, headers=list(headers))  # type: ignore[arg-type]
    kept = [(name, value) for name, value in reply.headers.multi_items() if name not in FRAMING]
    if len(reply.content) <= STORED_UP_TO:
        kept = [(name, value) for name, value in kept if name != "content-encoding"]
    return Answer(reply.status_code, sorted(kept), FAULT.sub(b"internal error", reply.content))


async def both(
    monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient, content: bytes, *headers: Pair, **rest: Any
) -> tuple[Answer, bool]:
    """The answer that both ways give, and whether the request is one for the short way."""
    plain: list[bool] = []
    real = unary.plain_head

    def looked(scope: Scope, limit: int) -> Any:
        head = real(scope, limit)
        plain.append(head is not None)
        return head

    monkeypatch.setattr(unary, "plain_head", looked)
    answer = await asked(client, content, headers, **rest)
    monkeypatch.setattr(unary, "plain_head", lambda *_: None)
    assert answer == await asked(client, content, headers, **rest)
    return answer, plain == [True]


@pytest.mark.parametrize("name", SHORT)
async def test_the_short_way_answers_as_connectrpc_does(
    monkeypatch: pytest.MonkeyPatch, served: Served, client: httpx.AsyncClient, name: str
) -> None:
    _, short = await both(monkeypatch, client, *SHORT[name])
    assert short
    assert len(served.service.begun) in (0, 2)
    assert served.service.ended == served.service.begun


@pytest.mark.parametrize("name", LONG)
async def test_what_is_odd_goes_the_long_way(
    monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient, name: str
) -> None:
    _, short = await both(monkeypatch, client, *LONG[name])
    assert not short


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", GET), ("PUT", GET), ("POST", f"{GET}?encoding=json"), ("GET", f"{GET}?message=x"), ("POST", WATCH)],
)
async def test_what_is_no_unary_post_goes_the_long_way(
    monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient, method: str, path: str
) -> None:
    _, short = await both(monkeypatch, client, json("a"), JSON, method=method, path=path)
    assert not short or path == WATCH


async def test_what_announces_too_much_goes_the_long_way(served: Served) -> None:
    reply = await served.post(GET, json("n" * LIMIT))
    assert (reply.status_code, reply.json()["code"]) == (413, "resource_exhausted")
    assert served.service.begun == []


async def test_a_short_reply_is_not_packed_and_a_long_one_is(served: Served) -> None:
    for name, encoding in (("a", "identity"), ("300", "gzip")):
        reply = await served.post(GET, json(name), accept_encoding="gzip,identity")
        assert reply.headers["content-encoding"] == encoding
        assert len(reply.json()["state"]) == (1 if name == "a" else 300)


async def test_a_client_that_goes_away_in_the_middle_of_its_request_is_forgotten(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\nContent-Length: 100\r\n\r\n"
    for part in (b"", proto("a")):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head.encode() + part)
        await asyncio.sleep(0.05)
        writer.close()
    await served.post(GET)
    assert served.service.begun == [""]
    assert not caplog.records


async def test_a_deadline_before_the_first_look_does_not_wait_for_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "PATIENCE", 60.0)
    async with asyncio.timeout(30):
        reply = await served.post(GET, HANG, connect_timeout_ms="50")
    assert reply.json()["code"] == "deadline_exceeded"


async def test_a_body_that_comes_late_gains_its_call_no_time(served: Served) -> None:
    body = json("wait")
    head = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head.encode() + b"\r\nConnect-Timeout-Ms: 200\r\n\r\n")
    await asyncio.sleep(0.3)
    writer.write(body)
    await eventually(lambda: served.service.begun == ["wait"])
    await asyncio.sleep(0.05)
    served.service.release.set()
    assert (await reader.readline()).split()[1] == b"504"
    writer.close()


@pytest.mark.parametrize("seconds", [0.0, 0.4])
async def test_a_call_whose_client_goes_away_ends_before_or_after_the_first_look(
    served: Served, seconds: float
) -> None:
    head = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(HANG)}"
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head.encode() + b"\r\nConnect-Timeout-Ms: 60000\r\n\r\n" + HANG)
    await eventually(lambda: served.service.begun == ["hang"])
    await asyncio.sleep(seconds)
    writer.close()
    await eventually(lambda: served.service.ended == ["hang"], seconds=2)


async def test_a_call_that_was_looked_at_is_answered_as_any_other(served: Served) -> None:
    call = asyncio.create_task(served.post(GET, json("wait"), connect_timeout_ms="60000"))
    await asyncio.sleep(0.6)
    served.service.release.set()
    assert (await call).json()["state"] == "wait"
    assert (await served.post(GET, json("a"))).json()["state"] == "a"
