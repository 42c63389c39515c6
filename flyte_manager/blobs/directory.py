"""The store as a directory. A uri is a plain absolute path below its root; tasks open it by themselves.

    write(uri)    new file in .incoming ─▶ fsync ─▶ rename over the object
    receive(uri)  the same in pieces; MD5 and size are checked on the way, and what is there is never replaced by other
                  content: an uploaded object is for good
    read, opened  one open file, whatever happens to its name meanwhile

No path leads out of the root: it must be spelled without detours, and after all symlinks are followed it must still lie
below. .incoming is emptied at the start; what lies there belongs to uploads that a crash cut off.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

from flyte_manager.blobs.paths import BadPath, ObjectTooLarge, OutsideStore, checked_path
from flyte_manager.domain.errors import Exists, Invalid, Unavailable

INCOMING = ".incoming"
PIECE = 1 << 20
"""Bytes that are read or written at once."""

LONGEST_PATH = 3000

P = ParamSpec("P")
T = TypeVar("T")


class WrongContent(Invalid):
    """the content's MD5 is {found}, not {expected} as the signed URL says: it was altered or cut on the way; upload it
    again."""


class ObjectDiffers(Exists):
    """{uri} exists already with other content: uploaded objects are never changed; choose another name or prefix."""


class DiskFull(Unavailable):
    """the disk of the store {root} is full: free some space there and try again."""


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a call that blocks. When the caller is cancelled, that waits for the call: a file is never closed, and its
    descriptor never used again, under a thread that still works with it."""
    task = asyncio.create_task(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


@dataclass(frozen=True, slots=True)
class Opened:
    """An object that is open for reading."""

    size: int
    file: FileIO

    async def pieces(self) -> AsyncIterator[bytes]:
        """The `size` bytes that it had when it was opened, or fewer if it was cut since."""
        left = self.size
        while left and (piece := await in_thread(self.file.read, min(left, PIECE))):
            left -= len(piece)
            yield piece

    def close(self) -> None:
        self.file.close()


class Directory:
    """Implements ports.Blobs below `root`, which is made when it is missing."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = os.path.realpath(root)
        self._incoming = os.path.join(self._root, INCOMING)
        self._placing = threading.Lock()
        os.makedirs(self._incoming, mode=0o700, exist_ok=True)
        for left in os.scandir(self._incoming):
            os.unlink(left.path)

    @property
    def root(self) -> str:
        return self._root

    def join(self, *parts: str) -> str:
        """The uri of the object at this path; a part may hold several segments. Raises BadPath."""
        path = checked_path(*parts)
        if len(path) > LONGEST_PATH:
            raise BadPath(path=path[:60], problem=f"it is longer than {LONGEST_PATH} characters")
        return f"{self._root}/{path}"

    def checked(self, uri: str) -> str:
        """The uri, when it is one of this store's. Raises OutsideStore, BadPath."""
        inside = uri.removeprefix(f"{self._root}/")
        if inside == uri or inside.split("/")[0] == INCOMING:
            raise OutsideStore(uri=uri[:200], root=self._root)
        return self.join(inside)

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        return await in_thread(self._read, uri, limit)

    async def write(self, uri: str, content: bytes) -> None:
        """Replaces the object. Raises DiskFull."""
        await in_thread(self._write, uri, content)

    async def exists(self, uri: str) -> bool:
        return await in_thread(self._exists, uri)

    async def delete(self, uri: str) -> None:
        await in_thread(self._delete, uri)

    async def opened(self, uri: str) -> Opened | None:
        """The object, open; the caller closes it. None when it isn't there."""
        return await in_thread(self._open, uri)

    async def receive(self, uri: str, chunks: AsyncIterator[bytes], *, limit: int = 0, md5: bytes = b"") -> None:
        """Stores an object that arrives in pieces, whole or not at all. `limit`: bytes, 0 = no limit; `md5`: of the
        content, empty = any. Raises ObjectTooLarge, WrongContent, ObjectDiffers, DiskFull, and what `chunks` raises."""
        new = await in_thread(self._begin, uri)
        try:
            found, size = _new_md5(), 0
            async for piece in _gathered(chunks):
                size += len(piece)
                if limit and size > limit:
                    raise ObjectTooLarge(uri=uri, limit=limit)
                found.update(piece)
                await in_thread(self._append, new, piece, uri=uri)
            if md5 and found.digest() != md5:
                raise WrongContent(found=found.hexdigest(), expected=md5.hex())
            await in_thread(self._place, new, uri=uri, md5=found.digest())
        finally:
            await in_thread(_discard, new)

    def _real(self, uri: str) -> str:
        """Where the object really lies. Raises OutsideStore, BadPath."""
        real = os.path.realpath(self.checked(uri))
        if not real.startswith(f"{self._root}/"):
            raise OutsideStore(uri=uri[:200], root=self._root)
        return real

    def _open(self, uri: str) -> Opened | None:
        try:
            # Without O_NONBLOCK the open of a named pipe that a task left there would wait for ever.
            descriptor = os.open(self._real(uri), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ELOOP):
                return None
            raise
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            return None
        return Opened(found.st_size, FileIO(descriptor))

    def _read(self, uri: str, limit: int) -> bytes | None:
        found = self._open(uri)
        if found is None:
            return None
        with found.file:
            content = found.file.read(limit + 1 if limit else -1)
        if limit and len(content) > limit:
            raise ObjectTooLarge(uri=uri, limit=limit)
        return content

    def _exists(self, uri: str) -> bool:
        return os.path.isfile(self._real(uri))

    def _delete(self, uri: str) -> None:
        target = self._real(uri)
        with self._explained(uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(target)

    def _write(self, uri: str, content: bytes) -> None:
        new = self._begin(uri)
        try:
            self._append(new, content, uri=uri)
            with self._explained(uri):
                os.fsync(new.fileno())
                target = self._real(uri)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.rename(new.name, target)
        finally:
            _discard(new)

    def _begin(self, uri: str) -> FileIO:
        """A new file in .incoming, unless the uri is refused."""
        self._real(uri)
        with self._explained(uri):
            return FileIO(os.path.join(self._incoming, secrets.token_hex(16)), "x")

    def _append(self, new: FileIO, content: bytes, *, uri: str) -> None:
        view = memoryview(content)
        with self._explained(uri):
            while view:
                view = view[new.write(view) :]

    def _place(self, new: FileIO, *, uri: str, md5: bytes) -> None:
        """Gives the file its name unless an object has it. An equal one only gets the time of its last use."""
        with self._explained(uri):
            os.fsync(new.fileno())
            target = self._real(uri)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with self._placing:
                if not os.path.lexists(target):
                    os.rename(new.name, target)
                    return
        if not os.path.isfile(target) or _md5(target) != md5:
            raise ObjectDiffers(uri=uri)
        os.utime(target)

    @contextlib.contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(root=self._root) from error
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                raise BadPath(path=uri, problem="a part of it is an object, or the whole is a folder") from error
            raise


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of about PIECE."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= PIECE:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def _discard(new: FileIO) -> None:
    """Closes the file, and deletes it if it still lies in .incoming."""
    new.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new.name)


def _new_md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)


def _md5(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _new_md5).digest()
