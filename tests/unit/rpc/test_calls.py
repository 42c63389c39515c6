import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from connectrpc.code import Code
from connectrpc.codec import proto_json_codec
from connectrpc.errors import ConnectError
from flyteidl2.workflow.state_service_pb2 import GetRequest, GetResponse, PutRequest

from tests.unit.rpc.serving import GET, SECRET, WATCH, Served, eventually, serve

PROTO = {"content_type": "application/proto"}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve() as running:
        yield running


def named(name: str) -> GetRequest:
    return GetRequest(action_id={"name": name})


async def failure(served: Served, name: str) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await served.client().get(named(name))
    return caught.value


async def test_the_generated_client_gets_its_reply_in_proto_json_and_without_compression(served: Served) -> None:
    for settings in ({}, {"codec": proto_json_codec()}, {"send_compression": None, "accept_compression": ()}):
        for name in ("a", "300", "100000"):
            reply = await served.client(**settings).get(named(name))
            assert len(reply.state) == (int(name) if name.isdecimal() else 1)


async def test_curl_with_an_empty_json_object_is_answered_in_json(served: Served) -> None:
    reply = await served.post(GET)
    assert (reply.status_code, reply.json()) == (200, {"actionId": {}})


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("missing", Code.NOT_FOUND, "the action was not found."),
        ("refused", Code.FAILED_PRECONDITION, "not today"),
    ],
)
async def test_a_refusal_arrives_with_its_code_and_sentence(
    served: Served, name: str, code: Code, sentence: str
) -> None:
    error = await failure(served, name)
    assert (error.code, error.message) == (code, sentence)


@pytest.mark.parametrize("name", ["fault", "cancelled-inside", "no-message"])
async def test_a_fault_shows_the_client_an_id_and_the_log_the_rest_once(
    served: Served, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure(served, name)
    assert error.code is Code.INTERNAL
    assert SECRET not in error.message
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    assert error.message.split()[2].rstrip(":") in told[0].getMessage()
    assert told[0].exc_info


async def test_a_deadline_ends_the_handler_and_is_told_as_such(served: Served) -> None:
    body = b'{"actionId": {"name": "hang"}}'
    reply = await served.post(GET, body, connect_timeout_ms="100")
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    assert served.service.ended == ["hang"]


async def test_a_deadline_that_has_passed_ends_the_call_at_once(served: Served) -> None:
    reply = await served.post(GET, b'{"actionId": {"name": "hang"}}', connect_timeout_ms="0")
    assert reply.json()["code"] == "deadline_exceeded"


async def test_a_unary_handler_ends_when_its_client_goes_away(served: Served) -> None:
    body = b'{"actionId": {"name": "hang"}}'
    head = f"POST {GET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head.encode() + b"\r\n\r\n" + body)
    await asyncio.sleep(0.1)
    writer.close()
    await eventually(lambda: served.service.ended == ["hang"], seconds=1)


async def test_unknown_fields_are_ignored_in_proto_and_refused_by_name_in_json(served: Served) -> None:
    newer = named("a").SerializeToString() + b"\xfa\x3f\x03abc"
    reply = await served.post(GET, newer, **PROTO)
    assert GetResponse.FromString(reply.content).state == "a"
    refused = await served.post(GET, b'{"nosuchfield": 1}')
    assert refused.status_code == 400
    assert "nosuchfield" in refused.json()["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/proto", b"\xff\xff\xff"),
        ("application/proto", b"\x0a\x7f"),
        ("application/proto", PutRequest(state="x").SerializeToString()[:-1] + b"\xff"),
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"[1]"),
        ("application/json", b"\xff\xfe"),
        ("application/json", b'{"actionId": 7}'),
        ("application/json", b'{"state": "\\ud800"}'),
        ("application/json", b'{"actionId":' * 5000),
        ("application/json", b'{"a":1,"a":2}'),
    ],
)
async def test_a_malformed_message_is_an_invalid_argument_and_no_fault(
    served: Served, content_type: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await served.post("/flyteidl2.workflow.StateService/Put", body, content_type=content_type)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_argument")
    assert len(reply.content) < 2000
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "headers",
    [
        {"connect_timeout_ms": "soon"},
        {"connect_protocol_version": "9"},
        {"content_type": "application/grpc"},
        {"x_note": "caf\xe9".encode("latin-1")},
    ],
)
async def test_a_malformed_head_is_an_invalid_argument_and_no_fault(
    served: Served, headers: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    reply = await served.post(GET, **headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_argument")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_malformed_head_of_grpc_web_is_told_in_its_trailers(served: Served) -> None:
    reply = await served.post(GET, content_type="application/grpc-web+proto", grpc_timeout="7 days")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/grpc-web+proto")
    assert reply.content.startswith(b"\x80")
    assert b"grpc-status: 3\r\ngrpc-message: grpc-timeout is not" in reply.content


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_what_a_web_form_can_send_is_not_taken_for_a_message(served: Served, kind: str) -> None:
    reply = await served.post(GET, content_type=kind)
    assert (reply.status_code, reply.headers["accept-post"]) == (415, "application/json, application/proto")
    assert "`Content-Type: application/json`" in reply.text


async def test_a_call_that_is_no_post_and_a_stream_in_plain_json_are_refused_in_words(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url) as client:
        for call in (client.get(GET), client.put(GET), client.post(WATCH, json={})):
            reply = await call
            assert reply.status_code in (405, 415)
            assert "calls are POSTs" in reply.text


async def test_replies_are_compressed_only_for_clients_that_accept_it(served: Served) -> None:
    body = b'{"actionId": {"name": "5000"}}'
    plain = await served.post(GET, body, accept_encoding="identity")
    packed = await served.post(GET, gzip.compress(body), content_encoding="gzip", accept_encoding="gzip")
    assert plain.headers["content-encoding"] == "identity"
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.json() == packed.json()
