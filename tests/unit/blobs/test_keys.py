"""Key files."""

import logging
import os
from pathlib import Path

import pytest

from flyte_manager.blobs.keys import BadKey, load_key


def test_a_key_is_made_once_for_the_managers_user_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    key = load_key(path)
    assert len(key) == 32
    assert load_key(path) == key == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["secrets.key"]
    assert load_key(tmp_path / "other.key") != key


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_key(tmp_path / "key")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(BadKey, match=f"{len(content)} bytes instead of 32"):
        load_key(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(BadKey, match="can't be read"):
        load_key(tmp_path / "key")


def test_a_key_that_others_can_read_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    key = load_key(path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert load_key(path) == key
    assert f"chmod 600 {path}" in caplog.text
    assert repr(key) not in caplog.text
