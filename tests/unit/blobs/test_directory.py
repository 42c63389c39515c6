"""The directory: whole objects or none, uploads that are never changed, and nothing left behind."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_manager.blobs.directory import (
    INCOMING,
    Directory,
    DiskFull,
    ObjectDiffers,
    WrongContent,
)
from flyte_manager.blobs.paths import BadPath, ObjectTooLarge

CONTENT = os.urandom(2_500_000)
MD5 = hashlib.md5(CONTENT).digest()


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "store")


def left_over(directory: Directory) -> list[str]:
    return os.listdir(Path(directory.root, INCOMING))


async def pieces(content: bytes = CONTENT, size: int = 65536) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def test_an_upload_arrives_in_pieces_and_is_read_in_pieces(directory: Directory) -> None:
    uri = directory.join("uploads/code.tgz")
    await directory.receive(uri, pieces(), md5=MD5, limit=len(CONTENT))
    found = await directory.opened(uri)
    assert found is not None
    assert found.size == len(CONTENT)
    assert b"".join([piece async for piece in found.pieces()]) == CONTENT
    found.close()
    assert left_over(directory) == []


async def test_an_empty_upload_is_an_object(directory: Directory) -> None:
    await directory.receive(directory.join("empty"), pieces(b""))
    assert await directory.read(directory.join("empty")) == b""


async def test_an_upload_with_another_md5_or_too_many_bytes_leaves_nothing(directory: Directory) -> None:
    uri = directory.join("uploads/code.tgz")
    with pytest.raises(WrongContent, match=MD5.hex()):
        await directory.receive(uri, pieces(CONTENT[:-1]), md5=MD5)
    with pytest.raises(ObjectTooLarge):
        await directory.receive(uri, pieces(), limit=len(CONTENT) - 1)
    assert not await directory.exists(uri)
    assert left_over(directory) == []


async def test_the_same_upload_again_only_renews_the_time_of_its_last_use(directory: Directory) -> None:
    uri = directory.join("uploads/code.tgz")
    await directory.receive(uri, pieces())
    before = os.stat(uri)
    os.utime(uri, (1, 1))
    await directory.receive(uri, pieces())
    after = os.stat(uri)
    assert after.st_ino == before.st_ino
    assert after.st_mtime > 1
    assert left_over(directory) == []


async def test_an_upload_never_replaces_other_content(directory: Directory) -> None:
    uri = directory.join("uploads/code.tgz")
    await directory.receive(uri, pieces())
    with pytest.raises(ObjectDiffers):
        await directory.receive(uri, pieces(b"other"))
    assert await directory.read(uri) == CONTENT


async def test_of_many_uploads_of_one_name_the_first_one_stays(directory: Directory) -> None:
    uri = directory.join("uploads/code.tgz")
    calls = [directory.receive(uri, pieces(bytes([number]) * 100)) for number in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    winner = results.index(None)
    assert await directory.read(uri) == bytes([winner]) * 100
    assert [type(result) for result in results].count(ObjectDiffers) == 19


async def test_an_upload_that_breaks_off_leaves_nothing(directory: Directory) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ConnectionResetError

    uri = directory.join("uploads/code.tgz")
    with pytest.raises(ConnectionResetError):
        await directory.receive(uri, broken())
    assert not await directory.exists(uri)
    assert left_over(directory) == []


async def test_a_cancelled_upload_leaves_nothing(directory: Directory) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield CONTENT
            started.set()

    uri = directory.join("uploads/code.tgz")
    task = asyncio.create_task(directory.receive(uri, endless()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await directory.exists(uri)
    assert left_over(directory) == []


async def test_uploads_that_a_crash_cut_off_are_removed_at_the_start(directory: Directory) -> None:
    await directory.write(directory.join("kept"), b"x")
    os.link(directory.join("kept"), f"{directory.root}/{INCOMING}/left")
    again = Directory(Path(directory.root))
    assert left_over(again) == []
    assert await again.read(again.join("kept")) == b"x"


async def test_an_object_is_not_a_folder_and_a_folder_not_an_object(directory: Directory) -> None:
    await directory.write(directory.join("a/b"), b"x")
    for uri in (directory.join("a"), directory.join("a/b/c")):
        with pytest.raises(BadPath):
            await directory.write(uri, b"y")
        with pytest.raises((BadPath, ObjectDiffers)):
            await directory.receive(uri, pieces(b"y"))
    assert left_over(directory) == []


async def test_an_object_that_is_written_over_can_still_be_read_to_its_end(directory: Directory) -> None:
    uri = directory.join("report.html")
    await directory.write(uri, b"old")
    found = await directory.opened(uri)
    assert found is not None
    await directory.write(uri, b"newer")
    assert [piece async for piece in found.pieces()] == [b"old"]
    found.close()


async def test_a_full_disk_is_told_and_leaves_the_old_object(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = directory.join("inputs.pb")
    await directory.write(uri, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="free some space"):
        await directory.write(uri, b"new")
    with pytest.raises(DiskFull):
        await directory.receive(directory.join("upload"), pieces())
    assert await directory.read(uri) == b"old"
    assert left_over(directory) == []


async def test_a_named_pipe_in_the_store_holds_nobody_up(directory: Directory) -> None:
    os.mkfifo(Path(directory.root, "pipe"))
    async with asyncio.timeout(5):
        assert await directory.read(directory.join("pipe")) is None


def test_only_the_managers_user_can_look_into_the_store(directory: Directory) -> None:
    assert os.stat(directory.root).st_mode & 0o077 == 0
