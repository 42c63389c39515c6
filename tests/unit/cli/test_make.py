"""The Makefile's own decisions, without doing what they ask for (`make -n`)."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As `make build` leaves it, in a folder with a space and a letter that is not ASCII."""
    place = tmp_path / "my clöne"
    (place / ".venv").mkdir(parents=True)
    (place / "bin").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, place)
    (place / ".venv" / ".installed").touch()
    (place / "bin" / "flyte-manager").write_text(f'#!/bin/sh\nexec "{place}/.venv/bin/flyte-manager" "$@"\n')
    return place


def steps(place: Path) -> str:
    return subprocess.run(["make", "-n", "build"], cwd=place, capture_output=True, text=True, check=True).stdout


def test_what_is_built_is_not_built_again(clone: Path) -> None:
    assert "-m venv" not in steps(clone)


def test_a_clone_that_was_moved_is_built_anew(clone: Path) -> None:
    moved = clone.rename(clone.with_name("elsewhere"))
    assert "-m venv" in steps(moved)
