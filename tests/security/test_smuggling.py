"""Where one request ends and the next begins: what two readers of HTTP/1.1 could see otherwise is not answered at all.

A proxy in front that takes a request's length from one header, and a manager that took it from another, would let a
client hide a request inside the body of another one, past whatever the proxy checks.
"""

from collections.abc import AsyncIterator

import pytest

from tests.unit.rpc.serving import GET, Served, raw, serve

HIDDEN = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
HEAD = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve() as running:
        yield running


async def test_two_requests_after_each_other_are_two(served: Served) -> None:
    """What the tests below must not see."""
    answered = await raw(served.port, (HIDDEN + HIDDEN).encode())
    assert answered.count(b"HTTP/1.1 200") == 2
    assert len(served.service.ended) == 2


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: 5\r\n{CHUNKED}",
        f"{CHUNKED}Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5\r\n 6\r\n",
        "Content-Length : 5\r\n",
        f"Content-Length: {'9' * 5000}\r\n",
        "Transfer-Encoding: identity, chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\n\x00: x\r\n",
        "X: y\rContent-Length: 5\r\n",
    ],
)
async def test_a_length_that_can_be_read_in_two_ways_hides_no_request(served: Served, headers: str) -> None:
    answered = await raw(served.port, f"{HEAD}{headers}\r\n0\r\n\r\n{HIDDEN}".encode("latin-1"))
    assert b" 200 " not in answered
    assert served.service.ended == []


@pytest.mark.parametrize(
    "body",
    [
        "0x2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "2{}\r\n0\r\n\r\n",
        "2\r\n{}xx0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_chunks_that_can_be_read_in_two_ways_hide_no_request(served: Served, body: str) -> None:
    answered = await raw(served.port, f"{HEAD}{CHUNKED}\r\n{body}{HIDDEN}".encode())
    assert b" 200 " not in answered
    assert served.service.ended == []


@pytest.mark.parametrize("version", ["HTTP/1.2", "HTTP/1.1 HTTP/1.1", "ICY/1.1", ""])
async def test_a_request_line_that_is_none_is_not_answered(served: Served, version: str) -> None:
    answered = await raw(served.port, HIDDEN.replace("HTTP/1.1", version, 1).encode())
    assert b" 200 " not in answered
    assert served.service.ended == []


async def test_what_comes_behind_the_body_of_a_refused_request_is_a_request_of_its_own_or_nothing(
    served: Served,
) -> None:
    refused = HIDDEN.replace("Host: localhost", "Host: evil.example")
    answered = await raw(served.port, (refused + HIDDEN).encode())
    assert answered.startswith(b"HTTP/1.1 403")
    assert answered.count(b"HTTP/1.1 200") == len(served.service.ended) <= 1
