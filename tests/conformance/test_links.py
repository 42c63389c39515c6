"""What every implementation of ports.Links does: URLs that clients put and get objects by, over real HTTP."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flyte_manager.blobs.directory import Directory
from flyte_manager.blobs.object_store import ObjectStore
from flyte_manager.blobs.providers import Options
from flyte_manager.blobs.signed import SignedLinks, Signer
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.ports import Blobs, Clock, Links
from flyte_manager.rpc.blobs import BlobRoutes
from flyte_manager.rpc.gate import Gate
from flyte_manager.rpc.routes import build_app
from flyte_manager.rpc.server import Listener, Servers
from tests.fakes.clock import FakeClock
from tests.s3 import S3Server

CONTENT = os.urandom(2_500_000)
MD5 = hashlib.md5(CONTENT).digest()
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class World:
    """A store, its links and how time goes by there."""

    blobs: Blobs
    links: Links
    host: str
    now: Clock
    pass_seconds: Callable[[float], Awaitable[None]]
    http: httpx.AsyncClient

    async def upload(self, uri: str, *, md5: bytes = MD5, lifetime: timedelta | None = MINUTE) -> "Upload":
        signed = await self.links.upload(uri, md5=md5, limit=len(CONTENT), lifetime=lifetime, host=self.host)
        return Upload(self.http, signed.url, dict(signed.headers), signed.expires_at)

    async def download(self, uri: str, *, lifetime: timedelta | None = MINUTE) -> str:
        signed = await self.links.download(uri, lifetime=lifetime, host=self.host)
        assert not signed.headers
        return signed.url


@dataclass(frozen=True)
class Upload:
    http: httpx.AsyncClient
    url: str
    headers: dict[str, str]
    expires_at: datetime

    async def put(self, content: bytes) -> int:
        """The status of the answer; sent as the SDK does."""
        return (await self.http.put(self.url, content=content, headers=self.headers)).status_code


async def directory(request: pytest.FixtureRequest, stack: AsyncExitStack) -> World:
    folder: Path = request.getfixturevalue("tmp_path")
    clock = FakeClock()
    store, signer = Directory(folder / "store"), Signer(b"s" * 32, clock)

    async def ready() -> str | None:
        return None

    async def pass_seconds(seconds: float) -> None:
        clock.advance(seconds)

    app = build_app([], BlobRoutes(signer, store).routes(), ready=ready)
    servers = Servers([Listener("api", "localhost", 0, Gate(app), setting="api.port")], stopping=asyncio.Event())
    await servers.start()
    stack.push_async_callback(servers.stop)
    http = await stack.enter_async_context(httpx.AsyncClient())
    return World(store, SignedLinks(signer), f"localhost:{servers.port_of('api')}", clock, pass_seconds, http)


async def object_store(request: pytest.FixtureRequest, stack: AsyncExitStack) -> World:
    s3: S3Server = request.getfixturevalue("s3")
    folder: Path = request.getfixturevalue("tmp_path")
    options = Options(endpoint=s3.endpoint, access_key_id=s3.access_key, secret_access_key=s3.secret_key)

    def now() -> datetime:
        return datetime.now(UTC)

    store = ObjectStore(f"s3://{s3.bucket}/{folder.name}", options, now)
    http = await stack.enter_async_context(httpx.AsyncClient())
    return World(store, store, "manager:8090", now, asyncio.sleep, http)


WORLDS = {"directory": directory, "object store": object_store}


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield await WORLDS[request.param](request, stack)


async def test_what_is_uploaded_is_read_and_downloaded_byte_by_byte(world: World) -> None:
    for name in ("code.tgz", "Bild 3.45\u202fPM.png", "日本語 %2e%2e ~ \\ $HOME 'x' \"y\" *+&="):
        uri = world.blobs.join("uploads/flytesnacks/development", name)
        upload = await world.upload(uri)
        assert await upload.put(CONTENT) == 200
        assert await world.blobs.read(uri) == CONTENT
        got = await world.http.get(await world.download(uri))
        assert (got.status_code, got.content) == (200, CONTENT)


async def test_the_same_content_may_come_again(world: World) -> None:
    """The SDK tries an upload again when its answer was lost."""
    upload = await world.upload(world.blobs.join("code.tgz"))
    assert [await upload.put(CONTENT) for _ in range(2)] == [200, 200]


async def test_other_content_than_was_announced_is_refused_and_not_kept(world: World) -> None:
    uri = world.blobs.join("code.tgz")
    upload = await world.upload(uri)
    assert await upload.put(CONTENT[:-1] + b"?") == 400
    assert await world.blobs.read(uri) is None


async def test_an_upload_without_md5_takes_any_content(world: World) -> None:
    uri = world.blobs.join("file")
    upload = await world.upload(uri, md5=b"")
    assert "Content-MD5" not in upload.headers
    assert await upload.put(b"anything") == 200
    assert await world.blobs.read(uri) == b"anything"


async def test_an_empty_object_is_uploaded_and_downloaded(world: World) -> None:
    uri = world.blobs.join("empty")
    upload = await world.upload(uri, md5=hashlib.md5(b"").digest())
    assert await upload.put(b"") == 200
    got = await world.http.get(await world.download(uri))
    assert (got.status_code, got.content) == (200, b"")
    assert await world.blobs.exists(uri)


async def test_an_expired_url_is_good_for_nothing(world: World) -> None:
    uri, second = world.blobs.join("object"), timedelta(seconds=1)
    await world.blobs.write(uri, b"old")
    upload, download = await world.upload(uri, lifetime=second), await world.download(uri, lifetime=second)
    assert upload.expires_at <= world.now() + second
    await world.pass_seconds(2.1)
    assert await upload.put(CONTENT) == 403
    answer = await world.http.get(download)
    assert answer.status_code == 403
    assert "Request has expired" in answer.text
    assert await world.blobs.read(uri) == b"old"


async def test_a_url_is_good_as_long_as_it_says_and_a_quarter_of_an_hour_when_nothing_is_said(world: World) -> None:
    uri = world.blobs.join("object")
    for asked, given in ((None, 900), (timedelta(hours=1), 3600)):
        upload = await world.upload(uri, lifetime=asked)
        assert given - 3 <= (upload.expires_at - world.now()).total_seconds() <= given
        assert not upload.expires_at.microsecond


@pytest.mark.parametrize("seconds", [0, -1, 3601])
async def test_an_impossible_lifetime_is_refused(world: World, seconds: int) -> None:
    for link in (world.upload, world.download):
        with pytest.raises(Invalid, match="3600"):
            await link(world.blobs.join("object"), lifetime=timedelta(seconds=seconds))


async def test_a_url_allows_one_verb_on_one_object_and_nothing_when_it_is_altered(world: World) -> None:
    uri = world.blobs.join("object")
    await world.blobs.write(uri, b"old")
    upload, download = await world.upload(uri, md5=b""), await world.download(uri)
    altered = upload.url[:-1] + ("0" if upload.url[-1] != "0" else "1")
    refused = {403, 405}
    assert (await world.http.put(download, content=b"new")).status_code in refused
    assert (await world.http.get(upload.url)).status_code in refused
    assert (await world.http.put(altered, content=b"new", headers=upload.headers)).status_code in refused
    assert (await world.http.delete(upload.url)).status_code in refused
    assert await world.blobs.read(uri) == b"old"


async def test_an_object_that_is_not_there_is_not_found_by_its_url(world: World) -> None:
    answer = await world.http.get(await world.download(world.blobs.join("nothing")))
    assert answer.status_code == 404


@pytest.mark.parametrize("uri", ["/etc/passwd", "s3://other/object", ""])
async def test_nothing_outside_the_store_is_reached(world: World, uri: str) -> None:
    try:
        upload, download = await world.upload(uri), await world.download(uri)
    except Invalid:
        return
    assert await upload.put(CONTENT) == 400
    assert (await world.http.get(download)).status_code == 400
