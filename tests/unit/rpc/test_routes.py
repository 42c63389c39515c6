import asyncio
import json
import logging
import struct
from urllib.parse import unquote

import httpx
import pytest
from flyteidl2.workflow.state_service_connect import StateService, StateServiceASGIApplication
from flyteidl2.workflow.state_service_pb2 import GetRequest, GetResponse

from flyte_manager.domain.errors import Overloaded, Unavailable
from flyte_manager.rpc.asgi import Receive, Scope, Send, answer
from flyte_manager.rpc.edge import Context, Edge, connect_app
from flyte_manager.rpc.routes import Route, build_app
from tests.unit.rpc.raw_http2 import connected
from tests.unit.rpc.serving import GET, SECRET, serve


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            break
    await answer(send, 200, f"{scope['method']} {scope['path']} {size}".encode())


async def outer(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await answer(send, 200, b"outer")


async def overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise Overloaded(problem="too many uploads: try again")


async def full(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise Unavailable(problem="the disk is full: free some space")


async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise RuntimeError(SECRET)


async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError(SECRET)


ROUTES = [
    Route(frozenset({"GET", "HEAD"}), "/", outer),
    Route(frozenset({"PUT"}), "/blobs/", echo),
    Route(frozenset({"GET"}), "/overloaded", overloaded),
    Route(frozenset({"GET"}), "/full", full),
    Route(frozenset({"GET"}), "/faulty", faulty),
    Route(frozenset({"GET"}), "/breaking", breaking),
]


async def test_health_answers_on_every_listener_and_address() -> None:
    async with serve() as served, httpx.AsyncClient() as client:
        for name in ("api", "second"):
            for host in ("127.0.0.1", "[::1]", "localhost"):
                for path in ("/healthz", "/readyz"):
                    url = f"http://{host}:{served.servers.port_of(name)}{path}"
                    reply = await client.get(url)
                    assert (reply.status_code, reply.text) == (200, "OK")
                    head = await client.head(url)
                    assert (head.status_code, head.text, head.headers["content-length"]) == (200, "", "2")
                    wrong = await client.post(url)
                    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")


async def test_readyz_tells_what_the_manager_waits_for_while_healthz_is_fine() -> None:
    async def ready() -> str | None:
        return "the store is being migrated"

    async with serve(ready=ready) as served, httpx.AsyncClient(base_url=served.url) as client:
        reply = await client.get("/readyz")
        assert (reply.status_code, reply.text) == (503, "the store is being migrated\n")
        assert (await client.get("/healthz")).status_code == 200


NOT_SERVED = ("/flyteidl2.app.AppService/List", "/flyteidl2.workflow.StateService/Nothing")


@pytest.mark.parametrize("path", NOT_SERVED)
async def test_an_rpc_that_is_not_served_is_unimplemented_and_named(path: str) -> None:
    async with serve(extra=[Route(frozenset({"PUT"}), "/blobs/", echo)]) as served:
        reply = await served.post(path)
        assert (reply.status_code, reply.json()["code"]) == (404, "unimplemented")
        assert path.removeprefix("/") in reply.json()["message"]
        assert "docs/rpc.md" in reply.json()["message"]


async def test_the_port_of_health_tells_where_the_services_are() -> None:
    async def ready() -> str | None:
        return None

    transport = httpx.ASGITransport(build_app([], ready=ready))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.post(GET, content=b"{}", headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (404, "unimplemented")
    assert "flyteidl2.workflow.StateService is at manager.runsService.port" in reply.json()["message"]


async def test_a_stream_that_is_not_served_ends_with_the_sentence_as_its_last_frame() -> None:
    async with serve() as served:
        reply = await served.post("/flyteidl2.app.AppService/Watch", b"", content_type="application/connect+json")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/connect+json")
    flags, size = struct.unpack(">BI", reply.content[:5])
    assert (flags, size) == (2, len(reply.content) - 5)
    error = json.loads(reply.content[5:])["error"]
    assert error["code"] == "unimplemented"
    assert "AppService/Watch needs apps" in error["message"]


async def test_grpc_web_hears_the_sentence_in_the_trailers_of_its_body() -> None:
    kind = "application/grpc-web+proto"
    async with serve() as served:
        reply = await served.post("/flyteidl2.app.AppService/Watch", b"", content_type=kind)
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
    flags, size = struct.unpack(">BI", reply.content[:5])
    assert (flags, size) == (0x80, len(reply.content) - 5)
    status, message = reply.content[5:].decode().splitlines()
    assert status == "grpc-status: 12"
    assert "AppService/Watch needs apps" in unquote(message)


async def test_grpc_hears_the_sentence_in_its_trailers() -> None:
    async with serve() as served, connected(served.port) as client:
        reply = await client.until_over(client.grpc("/flyteidl2.app.AppService/Watch"))
    assert (reply.headers[":status"], reply.headers["content-type"]) == ("200", "application/grpc")
    assert reply.trailers["grpc-status"] == "12"
    assert "AppService/Watch needs apps" in unquote(reply.trailers["grpc-message"])


async def test_a_method_that_its_service_does_not_have_is_not_served() -> None:
    class Half(StateService):
        async def get(self, request: GetRequest, ctx: Context) -> GetResponse:
            raise NotImplementedError

    edge = Edge(stopping=asyncio.Event())
    assert connect_app(StateServiceASGIApplication, Half(), edge=edge).methods == {"Get"}


async def test_an_alias_is_served_by_the_method_that_it_stands_for() -> None:
    async with serve() as served:
        reply = await served.post("/flyteidl2.workflow.StateService/Read", b'{"actionId": {"name": "a"}}')
        assert reply.json()["state"] == "a"


async def test_other_paths_are_not_found_with_a_sentence_and_rpcs_do_not_take_get() -> None:
    async with serve() as served, httpx.AsyncClient(base_url=served.url) as client:
        for path in ("/", "/nothing", "/flyteidl2.workflow.StateService", "/a/b/c", "/healthz/", "//healthz"):
            reply = await client.get(path)
            assert reply.status_code == 404
            assert "docs/rpc.md" in reply.text
        assert (await client.get("/flyteidl2.workflow.StateService/Get")).status_code == 405


async def test_plain_routes_go_by_the_longest_prefix_and_their_methods() -> None:
    async with serve(extra=ROUTES, limit=10) as served, httpx.AsyncClient(base_url=served.url) as client:
        put = await client.put("/blobs/a", content=b"x" * 100_000)
        assert put.text == "PUT /blobs/a 100000"
        assert (await client.get("/blobs/a")).text == "outer"
        refused = await client.delete("/blobs/a")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, PUT")


async def test_what_a_plain_route_raises_is_told_like_an_rpcs_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(extra=ROUTES) as served, httpx.AsyncClient(base_url=served.url) as client:
        refused = await client.get("/overloaded")
        assert (refused.status_code, refused.json()["code"]) == (429, "resource_exhausted")
        fault = await client.get("/faulty")
        assert (fault.status_code, fault.json()["code"]) == (500, "internal")
        assert SECRET not in fault.text
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/breaking")
    assert len([record for record in caplog.records if record.exc_info]) == 2
    assert all(record.levelno == logging.ERROR for record in caplog.records if record.exc_info)


async def test_what_is_no_fault_of_the_client_is_in_the_log_too(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(extra=ROUTES) as served, httpx.AsyncClient(base_url=served.url) as client:
        assert (await client.get("/overloaded")).status_code == 429
        assert caplog.text == ""
        assert (await client.get("/full")).status_code == 503
    assert "GET /full: the disk is full: free some space" in caplog.text


async def test_a_plain_route_that_outlasts_the_grace_is_unavailable() -> None:
    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        reached.set()
        await asyncio.Event().wait()

    reached = asyncio.Event()
    async with serve(extra=[Route(frozenset({"POST"}), "/hang", hang)]) as served:
        call = asyncio.create_task(served.post("/hang"))
        await reached.wait()
        await served.servers.stop(grace=0.1)
        assert (await call).json()["code"] == "unavailable"
