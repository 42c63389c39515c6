import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from flyteidl2.workflow.state_service_connect import StateServiceClient
from flyteidl2.workflow.state_service_pb2 import GetRequest, WatchRequest
from flyteidl2.workflow.state_service_pb2_grpc import StateServiceStub
from pyqwest import Client, HTTPTransport, HTTPVersion

from flyte_manager.domain.errors import Refusal
from flyte_manager.rpc.tls import load_identity
from tests.certificates import Files, issue
from tests.unit.rpc.serving import GET, Served, eventually, raw, serve


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return issue(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1", "manager.example.com")


@pytest.fixture
async def served(files: Files) -> AsyncIterator[Served]:
    identity = load_identity(str(files.certificate), str(files.key))
    assert identity is not None
    async with serve(tls=identity.context) as running:
        yield running


def named(name: str) -> GetRequest:
    return GetRequest(action_id={"name": name})


def trust(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.authority))


async def test_http_1_and_2_are_chosen_by_alpn(served: Served, files: Files) -> None:
    for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        async with httpx.AsyncClient(http2=http2, verify=trust(files)) as client:
            reply = await client.post(f"https://localhost:{served.port}{GET}", json={"actionId": {"name": "a"}})
            assert (reply.http_version, reply.json()["state"]) == (version, "a")


async def test_a_client_without_alpn_speaks_http_1(served: Served, files: Files) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trust(files))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_the_pages_of_the_manager_itself_are_of_https(served: Served, files: Files) -> None:
    authority = f"localhost:{served.port}"
    async with httpx.AsyncClient(http2=True, verify=trust(files)) as client:
        for scheme, status in (("https", 200), ("http", 403)):
            headers = {"origin": f"{scheme}://{authority}"}
            reply = await client.post(f"https://{authority}{GET}", json={}, headers=headers)
            assert reply.status_code == status


@pytest.mark.parametrize("version", [None, HTTPVersion.HTTP1, HTTPVersion.HTTP2])
async def test_the_sdks_client_is_served(served: Served, files: Files, version: HTTPVersion | None) -> None:
    transport = HTTPTransport(tls_ca_cert=files.authority.read_bytes(), http_version=version)
    async with StateServiceClient(f"https://localhost:{served.port}", http_client=Client(transport)) as client:
        assert (await client.get(named("a"))).state == "a"
        assert len([message async for message in client.watch(WatchRequest())]) == 3


async def test_grpc_is_served_and_its_streams_end_with_the_manager(served: Served, files: Files) -> None:
    credentials = grpc.ssl_channel_credentials(files.authority.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{served.port}", credentials) as channel:
        state = StateServiceStub(channel)
        assert len((await state.Get(named("1000000"))).state) == 1_000_000
        watch = state.Watch(WatchRequest(parent_action_id={"name": "stay"}))
        messages = aiter(watch)
        await anext(messages)
        began = asyncio.get_running_loop().time()
        await served.servers.stop()
        assert asyncio.get_running_loop().time() - began < 1.5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [message async for message in messages]
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_http_and_noise_get_nothing(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for noise in (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100):
        assert b"200" not in await raw(served.port, noise)
    await eventually(lambda: len(asyncio.all_tasks()) <= 2)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_no_files_are_no_tls() -> None:
    assert load_identity("", "") is None


def test_the_identity_tells_its_names(files: Files) -> None:
    identity = load_identity(str(files.certificate), str(files.key))
    assert identity is not None
    assert identity.names == ("localhost", "manager.example.com", "127.0.0.1")


def test_only_plain_names_are_hosts(tmp_path: Path) -> None:
    files = issue(tmp_path, "a.example.com", "*.b.example.com", "::1")
    identity = load_identity(str(files.certificate), str(files.key))
    assert identity is not None
    assert identity.hosts == ("a.example.com",)


def test_the_identity_tells_whether_it_is_an_authority(tmp_path: Path) -> None:
    for authority in (False, True):
        files = issue(tmp_path / str(authority), "localhost", authority=authority)
        identity = load_identity(str(files.certificate), str(files.key))
        assert identity is not None
        assert identity.authority == authority


def told(certificate: Path | str, key: Path | str) -> str:
    with pytest.raises(Refusal) as caught:
        load_identity(str(certificate), str(key))
    return str(caught.value)


def test_what_is_wrong_with_the_files_is_told_with_the_file_and_the_cure(files: Files, tmp_path: Path) -> None:
    missing, text, other = tmp_path / "none.pem", tmp_path / "text", issue(tmp_path / "other", "localhost")
    text.write_text("hello\n")
    assert told(files.certificate, "").startswith("server.tls.certificate is set and server.tls.key is not")
    assert told("", files.key).startswith("server.tls.key is set and server.tls.certificate is not")
    assert told(missing, files.key) == f"server.tls.certificate: {missing} can't be read: No such file or directory"
    assert told(files.certificate, missing) == f"server.tls.key: {missing} can't be read: No such file or directory"
    assert told(files.certificate, tmp_path) == f"server.tls.key: {tmp_path} can't be read: Is a directory"
    assert told(text, files.key).startswith(f"server.tls.certificate: {text} holds no certificate in PEM")
    assert told(files.certificate, text).startswith(f"server.tls.key: {text} holds no private key in PEM")
    assert "is encrypted" in told(files.certificate, files.locked)
    assert told(files.certificate, other.key).startswith(f"the key in {other.key} (server.tls.key) is not that of")
    exchanged = told(files.key, files.certificate)
    assert exchanged.startswith(f"server.tls.certificate: {files.key} holds no certificate")
    assert "cryptography.io" not in exchanged
