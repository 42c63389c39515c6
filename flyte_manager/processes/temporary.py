"""TMPDIR of an attempt: within its folder, by a path short enough for the Unix sockets that multiprocessing puts there.

Such a path may have 107 bytes, and the folder's may use them up. Then a short link to it is made, which lives as long
as the attempt's working directory, because results may name files by it.
"""

import contextlib
import hashlib
import os
import stat

from flyte_manager.processes import folder as disk

ROOM = 107 - len("/pymp-12345678/listener-12345678")


def place(folder: str) -> str:
    """The path to use; makes the link if one is needed."""
    path = os.path.join(folder, disk.TEMPORARY)
    if len(os.fsencode(path)) <= ROOM:
        return path
    short = _link_to(path)
    home = os.path.dirname(short)
    with contextlib.suppress(FileExistsError):
        os.mkdir(home, 0o700)
    seen = os.lstat(home)
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        return path  # somebody else was there first: not to be trusted
    with contextlib.suppress(FileExistsError):
        os.symlink(path, short)
    return short


def remove(folder: str) -> None:
    """Removes the link, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link(folder))


def link(folder: str) -> str:
    """Where the link is, if there is one."""
    return _link_to(os.path.join(folder, disk.TEMPORARY))


def _link_to(path: str) -> str:
    return f"/tmp/flyte-{os.getuid()}/{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
