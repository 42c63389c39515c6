"""What forks of the zygote do otherwise than the SDK would, with the same result."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flyte_manager.processes import preload


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Of one file in a folder, and a script."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tasks.py").write_text("x = 1\n")
    (tmp_path / "code" / "run.sh").write_text("true\n")
    (tmp_path / "code" / "run.sh").chmod(0o755)
    path = tmp_path / "code.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(tmp_path / "code", "code")
    (tmp_path / "here").mkdir()
    return path


def test_a_small_bundle_is_unpacked_with_its_modes(archive: Path, tmp_path: Path) -> None:
    assert preload._unpacked(archive, tmp_path / "here")
    assert (tmp_path / "here" / "code" / "tasks.py").read_text() == "x = 1\n"
    assert os.access(tmp_path / "here" / "code" / "run.sh", os.X_OK)


def test_a_broken_bundle_is_left_to_tar(archive: Path, tmp_path: Path) -> None:
    for broken in (archive.read_bytes()[:-20], b"no archive", b""):
        archive.write_bytes(broken)
        assert not preload._unpacked(archive, tmp_path / "here")


def test_a_large_bundle_is_left_to_tar(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes() + bytes(preload.SMALL_BUNDLE_BYTES))
    assert not preload._unpacked(archive, tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_a_bundle_that_leaves_its_folder_is_left_to_tar(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "code.tgz", "w:gz") as file:
        file.add(tmp_path / "x", "../escaped")
    (tmp_path / "here").mkdir()
    assert not preload._unpacked(tmp_path / "code.tgz", tmp_path / "here")
    assert not (tmp_path / "escaped").exists()


def test_what_is_made_late_is_made_once_and_only_when_used() -> None:
    made: list[Path] = []
    late = preload._Late(lambda: made.append(Path("/x")) or made[-1])  # type: ignore[func-returns-value]
    assert not made
    assert (late.name, late.parent) == ("x", Path("/"))
    assert len(made) == 1


def test_below_a_folder_called_flyte_nothing_is_imported_that_the_sdk_means_to_import_late(tmp_path: Path) -> None:
    """Who clones into `flyte` has one; the SDK takes all files below it for its own, and looks further."""
    place = tmp_path / "flyte" / "manager"
    shutil.copytree(Path(preload.__file__).parent, place / "flyte_manager" / "processes")
    (place / "flyte_manager" / "__init__.py").touch()
    script = place / "script.py"
    script.write_text(
        "import sys\nfrom flyte_manager.processes import preload\npreload.load()\n"
        "print(preload.__file__, 'pandas.core' in sys.modules)\n"
    )
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(place / "flyte_manager" / "processes" / "preload.py"), "False"]
