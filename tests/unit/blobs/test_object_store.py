"""The object store on a real S3 server: what it refuses, how it fails, and what it keeps to itself."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import obstore
import pytest

from flyte_manager.blobs import providers
from flyte_manager.blobs.object_store import (
    AccessDenied,
    BucketMissing,
    KeyRefused,
    NoCredentials,
    ObjectStore,
    StorageUnavailable,
    Unfaithful,
)
from flyte_manager.blobs.paths import BadPath, ObjectTooLarge, OutsideStore
from flyte_manager.blobs.providers import Options
from tests.fakes.clock import FakeClock
from tests.s3 import S3Server

Make = Callable[..., ObjectStore]


def options_of(s3: S3Server) -> Options:
    return Options(endpoint=s3.endpoint, access_key_id=s3.access_key, secret_access_key=s3.secret_key)


@pytest.fixture
def make(s3: S3Server, tmp_path: Path) -> Make:
    """Makes a store with a prefix of its own; options differ as they are given."""

    def made(url: str = f"s3://{s3.bucket}/{tmp_path.name}", **options: str) -> ObjectStore:
        return ObjectStore(url, replace(options_of(s3), **options), FakeClock())

    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "SILENCE", timedelta(seconds=0.3))
    monkeypatch.setattr(providers, "RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=2)})


def keys(store: ObjectStore) -> list[str]:
    """All that lies below its prefix, by obstore's own hands."""
    return [found["path"] for page in obstore.list(store._provider.store, store._provider.prefix) for found in page]


async def every_call(store: ObjectStore) -> list[StorageUnavailable]:
    """What the store raises, whatever it is asked."""
    uri = store.join("object")
    raised = []
    for call in (store.read(uri), store.write(uri, b"x"), store.exists(uri), store.probe()):
        with pytest.raises(StorageUnavailable) as caught:
            await call
        raised.append(caught.value)
    return raised


class Relay:
    """Passes bytes on to the S3 server, and counts those that come back."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = urlsplit(target).netloc.partition(":")
        self.endpoint = ""
        self.received = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, int(self._port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool) -> None:
            try:
                while piece := await source.read(65536):
                    self.received += len(piece) * counted
                    sink.write(piece)
                    await sink.drain()
            except ConnectionError:
                pass  # one side has had enough: so has the other
            finally:
                sink.close()

        await asyncio.gather(pump(reader, back, counted=False), pump(there, writer, counted=True))


async def test_the_probe_writes_reads_and_leaves_nothing_behind(make: Make) -> None:
    store = make()
    await store.probe()
    assert keys(store) == []


async def test_objects_lie_below_the_prefix_only(make: Make, s3: S3Server, tmp_path: Path) -> None:
    store = make(f"s3://{s3.bucket}/{tmp_path.name}/deep/er/")
    await store.write(store.join("a/b"), b"x")
    assert store.root == f"s3://{s3.bucket}/{tmp_path.name}/deep/er"
    assert keys(make()) == [f"{tmp_path.name}/deep/er/a/b"]
    for outside in (f"s3://{s3.bucket}/{tmp_path.name}/deep/error/x", f"s3://{s3.bucket}/x", store.root, "/deep/er/x"):
        with pytest.raises(OutsideStore, match="lies outside"):
            await store.read(outside)
    with pytest.raises(BadPath):
        await store.read(f"{store.root}/../../x")


async def test_a_whole_bucket_is_a_store_too(make: Make, s3: S3Server, tmp_path: Path) -> None:
    store = make(f"s3://{s3.bucket}")
    uri = store.join(tmp_path.name, "object")
    assert uri == f"s3://{s3.bucket}/{tmp_path.name}/object"
    await store.write(uri, b"x")
    assert await store.read(uri) == b"x"


@pytest.mark.parametrize("name", ["a?b", "a#b"])
def test_a_name_that_the_sdk_cant_open_is_refused(make: Make, name: str) -> None:
    with pytest.raises(BadPath, match="the SDK can't open"):
        make().join("uploads", name)


def test_a_key_that_is_too_long_for_some_store_is_refused(make: Make) -> None:
    store = make("s3://bucket/" + "p" * 200)
    parts = "/".join(["x" * 200] * 4)
    assert len(store.join(parts, "y" * 19).encode()) == len("s3://bucket/") + 1024
    with pytest.raises(BadPath, match="1024 bytes"):
        store.join(parts, "y" * 20)
    with pytest.raises(BadPath, match="1024 bytes"):
        store.join(parts, "ü" * 10)


async def test_of_an_object_above_the_limit_hardly_anything_is_downloaded(make: Make, s3: S3Server) -> None:
    size = 64 << 20
    direct = make()
    await direct.write(direct.join("big"), bytes(size))
    async with Relay(s3.endpoint).listening() as relay:
        store = make(endpoint=relay.endpoint)
        with pytest.raises(ObjectTooLarge, match="more than the 1000 bytes"):
            await store.read(store.join("big"), limit=1000)
        assert await store.exists(store.join("big"))
        await asyncio.sleep(0.2)
        assert relay.received < size / 4
        assert len(await store.read(store.join("big"), limit=size) or b"") == size


async def test_clients_get_urls_of_the_endpoint_that_they_reach(make: Make, s3: S3Server) -> None:
    async with Relay(s3.endpoint).listening() as relay, httpx.AsyncClient() as client:
        store = make(signed_endpoint=relay.endpoint)
        await store.write(store.join("object"), b"content")
        assert relay.received == 0
        link = await store.download(store.join("object"), lifetime=None, host="manager:8090")
        assert link.url.startswith(f"{relay.endpoint}/{s3.bucket}/")
        assert (await client.get(link.url)).content == b"content"
        assert relay.received > 0


async def test_the_environments_own_token_and_endpoint_dont_disturb_given_ones(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKother")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await make().probe()


async def test_keys_of_the_environment_are_used_when_none_are_given(
    make: Make, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    await make(access_key_id="", secret_access_key="").probe()


async def test_a_missing_bucket_is_told(make: Make) -> None:
    for refusal in await every_call(make("s3://nobody-made-this/prefix")):
        assert type(refusal) is BucketMissing
        assert "s3://nobody-made-this/prefix doesn't exist: make it" in str(refusal)


async def test_a_wrong_key_is_told_by_its_id(make: Make) -> None:
    for refusal in await every_call(make(access_key_id="AKother")):
        assert type(refusal) is KeyRefused
        assert "doesn't accept access key AKother (InvalidAccessKeyId" in str(refusal)
        assert "correct key and secret" in str(refusal)


async def test_no_secret_is_shown_anywhere(make: Make, s3: S3Server) -> None:
    canary = "canary-4b1d"
    store = make(secret_access_key=canary)
    for refusal in await every_call(store):
        assert type(refusal) is KeyRefused
        assert s3.access_key in str(refusal)
        assert canary not in "".join(traceback.format_exception(refusal))
    options = Options(access_key_id="k", secret_access_key=canary, account_key=canary)
    for shown in (options, store, providers.provider("s3://bucket", options)):
        assert canary not in repr(shown)


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_is_down_is_told(make: Make) -> None:
    for refusal in await every_call(make(endpoint="http://127.0.0.1:1")):
        assert type(refusal) is StorageUnavailable
        assert "now: Connection refused. It is tried again" in str(refusal)


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_speaks_no_tls_is_told(make: Make, s3: S3Server) -> None:
    for refusal in await every_call(make(endpoint=s3.endpoint.replace("http:", "https:"))):
        assert "it speaks http, not https" in str(refusal)


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_hangs_is_not_waited_for() -> None:
    with S3Server() as own:
        store = ObjectStore(f"s3://{own.bucket}", options_of(own), FakeClock())
        await store.probe()
        own.pause()
        try:
            began = time.monotonic()
            for refusal in await every_call(store):
                assert "it doesn't answer in time" in str(refusal)
            assert time.monotonic() - began < 10
        finally:
            own.resume()
        await store.probe()


async def test_a_store_that_is_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = {"max_retries": 100, "retry_timeout": timedelta(seconds=60)}
    monkeypatch.setattr(providers, "RETRIES", patient | {"backoff": {"max_backoff": timedelta(seconds=0.5)}})
    with S3Server() as own:
        store = ObjectStore(f"s3://{own.bucket}", options_of(own), FakeClock())
        await store.write(store.join("object"), b"x")
        await asyncio.to_thread(own.stop)
        read = asyncio.create_task(store.read(store.join("object")))
        await asyncio.to_thread(own.start)
        assert await read == b"x"


async def answering(status: str, body: str) -> asyncio.Server:
    """A server that says the same to everybody."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        content = body.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_a_missing_permission_is_told_with_the_one_that_is_needed(make: Make) -> None:
    said = "User: arn:aws:iam::1:user/flyte is not authorized to perform: s3:PutObject"
    server = await answering("403 Forbidden", f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>")
    async with server:
        store = make(endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for call, verb, permission in (
            (store.write(store.join("a"), b"x"), "write", "give it s3:PutObject"),
            (store.read(store.join("a")), "read", "give it s3:GetObject (and s3:ListBucket"),
            (store.exists(store.join("a")), "read", "give it s3:GetObject (and s3:ListBucket"),
        ):
            with pytest.raises(AccessDenied) as caught:
                await call
            assert type(caught.value) is AccessDenied
            assert f"{verb} objects (AccessDenied: {said})" in str(caught.value)
            assert permission in str(caught.value)


async def test_another_region_is_told_in_the_stores_words(make: Make) -> None:
    said = "the region &apos;us-east-1&apos; is wrong; expecting &apos;eu-west-1&apos;"
    body = f"<Error><Code>AuthorizationHeaderMalformed</Code><Message>{said}</Message></Error>"
    server = await answering("400 Bad Request", body)
    async with server:
        store = make(endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(StorageUnavailable, match="'us-east-1' is wrong; expecting 'eu-west-1'"):
            await store.write(store.join("a"), b"x")


async def test_an_identity_of_the_cloud_that_isnt_there_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    server = await answering("404 Not Found", "no role is attached")
    async with server:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        store = make(access_key_id="", secret_access_key="")
        for refusal in await every_call(store):
            assert type(refusal) is NoCredentials
            assert "name a key in the storage settings, or give the manager's pod an identity" in str(refusal)


async def test_a_store_that_gives_back_other_bytes_fails_the_probe(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()

    async def forgetful(_uri: str, *, limit: int = 0) -> bytes:  # noqa: ARG001
        return b"other"

    monkeypatch.setattr(store, "read", forgetful)
    with pytest.raises(Unfaithful, match="gave back other bytes"):
        await store.probe()
    monkeypatch.undo()
    assert keys(store) == []
