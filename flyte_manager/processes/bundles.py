"""Small code bundles, read once by the zygote for all its forks, which only write the files.

    zygote: read(argv) -> names, modes, contents in memory -> fork -> unpack(archive, folder): true, or the SDK does it

The SDK would copy the archive into the working directory, lock it there, start `tar` and that `gzip`. Nothing of a
bundle runs here, and each task has files of its own. Only archives of at most 64 KiB are kept that hold nothing but
what the SDK packs: plain files and folders without an owner. All others are left to the SDK.

Standard library only, and nothing newer than Python 3.10.
"""

import os
import stat
import tarfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

ARCHIVE_BYTES = 1 << 16
CONTENT_BYTES = 1 << 20
MOST = 16
"""bundles that are kept"""

Version = tuple[str, int, int, int]
"""path, inode, time of change, size"""


@dataclass(frozen=True)
class Member:
    """A file; a folder when it has no content."""

    name: str
    mode: int
    modified: float
    content: bytes | None


_kept: OrderedDict[Version, list[Member]] = OrderedDict()
"""empty lists for those that are left to the SDK"""


def read(argv: list[str]) -> None:
    """Keeps the bundle that an a0 with these arguments will ask for."""
    if "--tgz" not in argv[:-1]:
        return
    archive = argv[argv.index("--tgz") + 1]
    version = _version(archive)
    if version is None:
        return
    if version not in _kept:
        _kept[version] = _members(archive)
        if len(_kept) > MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(version)


def unpack(archive: str, folder: str) -> bool:
    """Whether the bundle was kept and lies in the folder now."""
    version = _version(archive)
    members = _kept.get(version) if version else None
    try:
        for member in members or ():
            _write(member, folder)
    except OSError:
        return False  # the SDK tries, and tells what is wrong
    return bool(members)


def _write(member: Member, folder: str) -> None:
    path = os.path.join(folder, member.name)
    if member.content is None:
        os.makedirs(path, exist_ok=True)
        return
    if parent := os.path.dirname(member.name):
        os.makedirs(os.path.join(folder, parent), exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(member.content)
        os.fchmod(file.fileno(), member.mode)
    os.utime(path, (member.modified, member.modified))


def _version(archive: str) -> Version | None:
    """None for one that is too large, lies elsewhere, or is no file: a pipe would keep the zygote waiting for ever."""
    try:
        seen = os.stat(archive)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(seen.st_mode) or seen.st_size > ARCHIVE_BYTES:
        return None
    return archive, seen.st_ino, seen.st_mtime_ns, seen.st_size


def _members(archive: str) -> list[Member]:
    """Empty when it is to be left to the SDK."""
    found: list[Member] = []
    try:
        with open(archive, "rb") as packed, tarfile.open(fileobj=BytesIO(_unzipped(packed.read()))) as file:
            for info in file:
                path = PurePosixPath(info.name)
                plain = (info.isreg() or info.isdir()) and not (info.issparse() or info.uid or info.gid)
                if not plain or path.is_absolute() or ".." in path.parts:
                    return []
                taken = file.extractfile(info)
                found.append(Member(str(path), info.mode & 0o755, info.mtime, taken.read() if taken else None))
    except Exception:  # it may be broken in any way, which the SDK tells; the zygote lives on
        return []
    return found


def _unzipped(packed: bytes) -> bytes:
    """Raises ValueError when it is cut off, too large, or goes on behind its end."""
    unzip = zlib.decompressobj(wbits=31)
    content = unzip.decompress(packed, CONTENT_BYTES)
    if not unzip.eof or unzip.unused_data:
        raise ValueError
    return content
