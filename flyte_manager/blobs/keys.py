"""Key files: 32 random bytes, one file for each purpose, readable by the manager's user only."""

import logging
import os
import secrets
import stat
from pathlib import Path

from flyte_manager.domain.errors import Unready

BYTES = 32

log = logging.getLogger(__name__)


class BadKey(Unready):
    """the key file {path} {problem}: put its backup back, or move it away to get a new key (what was encrypted with the
    old one can't be read then)."""


def load_key(path: Path) -> bytes:
    """The key in that file, which is made when it is missing. Blocks; raises BadKey."""
    try:
        key = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise BadKey(path=path, problem=f"can't be read ({error.strerror})") from error
    if len(key) != BYTES:
        raise BadKey(path=path, problem=f"holds {len(key)} bytes instead of {BYTES}")
    if stat.S_IMODE(mode) & 0o077:
        log.warning("the key file %s can be read by others than its owner: `chmod 600 %s`", path, path)
    return key


def _make(path: Path) -> bytes:
    """Makes the file whole or not at all, and on the disk: a lost key is lost data."""
    key = secrets.token_bytes(BYTES)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
