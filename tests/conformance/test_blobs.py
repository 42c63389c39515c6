"""What every implementation of ports.Blobs does. A new one is added to `STORES`."""

from pathlib import Path

import pytest

from flyte_manager.blobs.directory import Directory
from flyte_manager.blobs.object_store import ObjectStore
from flyte_manager.blobs.providers import Options
from flyte_manager.domain.errors import Invalid, TooLarge
from flyte_manager.domain.ports import Blobs
from tests.fakes.clock import FakeClock
from tests.s3 import S3Server


def directory(request: pytest.FixtureRequest, folder: Path) -> Blobs:  # noqa: ARG001
    return Directory(folder / "store")


def object_store(request: pytest.FixtureRequest, folder: Path) -> Blobs:
    """A prefix of its own on a real S3 server."""
    s3: S3Server = request.getfixturevalue("s3")
    options = Options(endpoint=s3.endpoint, access_key_id=s3.access_key, secret_access_key=s3.secret_key)
    return ObjectStore(f"s3://{s3.bucket}/{folder.name}/deep", options, FakeClock())


STORES = {"directory": directory, "object store": object_store}


@pytest.fixture(params=STORES)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return STORES[request.param](request, tmp_path)


async def test_what_is_written_is_read_and_written_over(blobs: Blobs) -> None:
    uri = blobs.join("flytesnacks", "development", "r1/a0/1", "outputs.pb")
    assert not await blobs.exists(uri)
    assert await blobs.read(uri) is None
    for content in (b"first", b"", b"x" * 3_000_000):
        await blobs.write(uri, content)
        assert await blobs.exists(uri)
        assert await blobs.read(uri) == content


async def test_what_is_deleted_is_gone_and_deleting_it_again_is_fine(blobs: Blobs) -> None:
    uri, beside = blobs.join("folder/object"), blobs.join("folder/other")
    for each in (uri, beside):
        await blobs.write(each, b"x")
    for _ in range(2):
        await blobs.delete(uri)
    await blobs.delete(blobs.join("folder/other/below"))
    assert await blobs.read(uri) is None
    assert await blobs.read(beside) == b"x"


async def test_a_uri_is_the_same_however_its_path_is_put_together(blobs: Blobs) -> None:
    assert blobs.join("a", "b", "c") == blobs.join("a/b/c") == f"{blobs.join('a')}/b/c"


async def test_more_than_the_limit_is_not_read(blobs: Blobs) -> None:
    uri = blobs.join("object")
    await blobs.write(uri, b"12345")
    assert await blobs.read(uri, limit=5) == b"12345"
    with pytest.raises(TooLarge):
        await blobs.read(uri, limit=4)


async def test_a_folder_is_no_object(blobs: Blobs) -> None:
    await blobs.write(blobs.join("folder/object"), b"x")
    assert not await blobs.exists(blobs.join("folder"))
    assert await blobs.read(blobs.join("folder")) is None
    assert await blobs.read(blobs.join("folder/object/below")) is None


@pytest.mark.parametrize("path", ["", "a//b", "/a", "a/", ".", "a/../b", "a/./b", "..", "a\0b", "a\nb", "x" * 256])
async def test_a_path_with_detours_or_control_characters_is_refused(blobs: Blobs, path: str) -> None:
    with pytest.raises(Invalid):
        blobs.join(path)


async def test_names_of_all_languages_and_with_spaces_are_kept(blobs: Blobs) -> None:
    uri = blobs.join("Bild 3.45\u202fPM.png", "日本語 %2e%2e ~ \\ $HOME 'x' \"y\" *")
    await blobs.write(uri, b"x")
    assert await blobs.read(uri) == b"x"


@pytest.mark.parametrize("uri", ["", "relative", "/etc/passwd", "s3://bucket/object", "file:///etc/passwd", "/"])
async def test_a_uri_outside_the_store_is_refused(blobs: Blobs, uri: str) -> None:
    with pytest.raises(Invalid):
        await blobs.read(uri)
    with pytest.raises(Invalid):
        await blobs.write(uri, b"x")
    with pytest.raises(Invalid):
        await blobs.exists(uri)
    with pytest.raises(Invalid):
        await blobs.delete(uri)
