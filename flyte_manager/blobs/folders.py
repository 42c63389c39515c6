"""Whole folders of files: what lies in one, and taking it away. Links are never followed."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from flyte_manager.domain.ports import Stored

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Folders:
    """Implements ports.Trees below a folder of the machine, which need not exist."""

    root: str

    async def stored(self, folder: str) -> AsyncIterator[Sequence[Stored]]:
        files = _files(folder)
        while page := await asyncio.to_thread(lambda: list(islice(files, PAGE))):
            yield page

    async def remove(self, folder: str) -> None:
        await asyncio.to_thread(_remove, folder)

    async def beginning(self, uri: str, *, limit: int) -> bytes | None:
        return await asyncio.to_thread(_read, uri, limit)


def _files(folder: str) -> Iterator[Stored]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                found = os.lstat(path)
            except FileNotFoundError:  # it has gone since
                continue
            yield Stored(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _read(path: str, limit: int) -> bytes | None:
    if not os.path.isfile(path) or os.path.islink(path):
        return None
    with open(path, "rb") as file:
        return file.read(limit)


def _remove(folder: str) -> None:
    """Raises OSError for what can't be deleted, but not for what others deleted meanwhile."""
    while os.path.isdir(folder):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
