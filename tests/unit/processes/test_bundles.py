"""Small code bundles, read by the zygote and written by its forks."""

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from flyte_manager.processes import bundles


@pytest.fixture(autouse=True)
def _none_kept() -> Iterator[None]:
    with mock.patch.object(bundles, "_kept", type(bundles._kept)()):
        yield


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def pack(path: Path, *members: tarfile.TarInfo, content: bytes = b"x = 1\n") -> str:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return str(path)


def named(name: str, mode: int = 0o644, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = mode, 86400 * 4018
    for key, value in more.items():
        setattr(info, key, value)
    return info


def asked(archive: str) -> list[str]:
    return ["a0", "--inputs", "i", "--tgz", archive, "--dest", "."]


def test_a_bundle_that_was_read_is_written_with_modes_and_times(tmp_path: Path, here: Path) -> None:
    folder = named("code/empty", 0o755, type=tarfile.DIRTYPE)
    archive = pack(tmp_path / "c.tgz", named("code/tasks.py"), named("code/run.sh", 0o775), folder)
    bundles.read(asked(archive))
    assert bundles.unpack(archive, str(here))
    assert (here / "code" / "tasks.py").read_text() == "x = 1\n"
    assert (here / "code" / "tasks.py").stat().st_mtime == 86400 * 4018
    assert (here / "code" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (here / "code" / "empty").is_dir()


def test_each_fork_has_files_of_its_own(tmp_path: Path, here: Path) -> None:
    archive = pack(tmp_path / "c.tgz", named("tasks.py"))
    bundles.read(asked(archive))
    bundles.unpack(archive, str(here))
    (here / "tasks.py").write_text("changed")
    (tmp_path / "there").mkdir()
    assert bundles.unpack(archive, str(tmp_path / "there"))
    assert (tmp_path / "there" / "tasks.py").read_text() == "x = 1\n"


def test_a_bundle_that_was_not_read_is_left_to_the_sdk(tmp_path: Path, here: Path) -> None:
    archive = pack(tmp_path / "c.tgz", named("tasks.py"))
    assert not bundles.unpack(archive, str(here))
    bundles.read(["a0", "--inputs", "i", "--tgz"])
    bundles.read(asked("s3://bucket/c.tgz"))
    assert not bundles._kept


def test_a_bundle_that_was_replaced_is_read_anew(tmp_path: Path, here: Path) -> None:
    archive = pack(tmp_path / "c.tgz", named("tasks.py"))
    bundles.read(asked(archive))
    pack(tmp_path / "new.tgz", named("tasks.py"), content=b"x = 2\n")
    os.replace(tmp_path / "new.tgz", archive)
    assert not bundles.unpack(archive, str(here))
    bundles.read(asked(archive))
    assert bundles.unpack(archive, str(here))
    assert (here / "tasks.py").read_text() == "x = 2\n"


@pytest.mark.parametrize(
    "member",
    [
        named("../escaped"),
        named("/escaped"),
        named("link", type=tarfile.SYMTYPE, linkname="/etc"),
        named("hard", type=tarfile.LNKTYPE, linkname="tasks.py"),
        named("pipe", type=tarfile.FIFOTYPE),
        named("owned", uid=1000),
    ],
    ids=lambda member: member.name,
)
def test_a_bundle_with_anything_but_plain_files_is_left_to_the_sdk(
    member: tarfile.TarInfo, tmp_path: Path, here: Path
) -> None:
    archive = pack(tmp_path / "c.tgz", named("tasks.py"), member)
    bundles.read(asked(archive))
    assert not bundles.unpack(archive, str(here))
    assert not list(here.iterdir())


def test_a_large_bundle_is_left_to_the_sdk(tmp_path: Path, here: Path) -> None:
    large = pack(tmp_path / "c.tgz", named("tasks.py"), content=os.urandom(bundles.ARCHIVE_BYTES + 1))
    swollen = pack(tmp_path / "d.tgz", named("tasks.py"), content=bytes(bundles.CONTENT_BYTES + 1))
    for archive in (large, swollen):
        bundles.read(asked(archive))
        assert not bundles.unpack(archive, str(here))
    assert not list(here.iterdir())


def test_a_broken_bundle_is_left_to_the_sdk(tmp_path: Path, here: Path) -> None:
    archive = Path(pack(tmp_path / "c.tgz", named("tasks.py"), content=os.urandom(5000)))
    whole = archive.read_bytes()
    for broken in (whole[:-20], whole[:600], whole + gzip.compress(b"more"), b"no archive", b""):
        archive.write_bytes(broken)
        bundles.read(asked(str(archive)))
        assert not bundles.unpack(str(archive), str(here))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, here: Path) -> None:
    pipe = tmp_path / "c.tgz"
    os.mkfifo(pipe)
    with mock.patch.object(bundles, "_members", side_effect=AssertionError("it is opened")):
        bundles.read(asked(str(pipe)))
        bundles.read(asked("/dev/zero"))
    assert not bundles.unpack(str(pipe), str(here))


def test_a_file_that_can_not_be_written_leaves_all_to_the_sdk(tmp_path: Path, here: Path) -> None:
    archive = pack(tmp_path / "c.tgz", named("tasks.py"), named("tasks.py/inner"))
    bundles.read(asked(archive))
    assert not bundles.unpack(archive, str(here))


def test_the_bundle_that_was_asked_for_longest_ago_is_forgotten(tmp_path: Path, here: Path) -> None:
    archives = [pack(tmp_path / f"{number}.tgz", named("tasks.py")) for number in range(bundles.MOST + 1)]
    for archive in (*archives[:-1], archives[0], archives[-1]):
        bundles.read(asked(archive))
    assert [bundles.unpack(archive, str(here)) for archive in archives[:3]] == [True, False, True]
