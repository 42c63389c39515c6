"""Who refers to what in the stores, as long as something may be deleted.

of a run that has ended    kept in the database when it was looked at
of all else                Others: looked at when a sweep begins, and what changes afterwards before each deletion: what
                           begins, or takes something up, while a long sweep works keeps what it uses
"""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from flyte_manager.domain.ids import ROOT, RunId
from flyte_manager.domain.ports import Trees
from flyte_manager.domain.retention import References, targets
from flyte_manager.ledger.retention import Retained

READ_LIMIT = 64 << 20
"""Bytes of inputs and outputs in which references are looked for."""

AT_ONCE = 4
"""actions whose files are read: each may have as much"""

NAMED = ("/inputs.pb", "/outputs.pb")


@dataclass(frozen=True, slots=True)
class Looking:
    """Reads what refers. `attempts`: folders of local processes."""

    retained: Retained
    stores: Sequence[Trees]
    attempts: Trees

    async def run(self, run: RunId, base: str) -> tuple[int, set[str]]:
        """What a run holds in bytes, and all that it refers to."""
        size, found = 0, set[str]()
        told, spec = await self.retained.told(run)
        found |= self.targets(spec, *(uri.encode() for uri in told))
        read = {uri for uri in told if uri.endswith(NAMED) and not uri.startswith(f"{base}/")}
        store = self.store(base)
        if store is not None:
            async for page in store.stored(base):
                size += sum(each.size for each in page)
                read |= {each.uri for each in page if each.uri.endswith(NAMED)}
        for uri in read:
            found |= await self.file(uri)
        async for page in self.attempts.stored(attempts_of(self.attempts, run)):
            size += sum(each.size for each in page)
        return size, found

    async def file(self, uri: str) -> set[str]:
        holder = self.store(uri)
        content = await holder.beginning(uri, limit=READ_LIMIT) if holder else None
        return self.targets(content or b"")

    def targets(self, *contents: bytes) -> set[str]:
        roots = [store.root for store in self.stores]
        return set[str]().union(*(targets(content, roots) for content in contents))

    def store(self, uri: str) -> Trees | None:
        return next((store for store in self.stores if uri.startswith(f"{store.root}/")), None)


@dataclass(slots=True)
class Others:
    """What live runs, task specs and, unless it may forget, the cache refer to; whatever was here once, stays."""

    looking: Looking
    ignored: AbstractSet[int] = frozenset()
    """numbers of task specs that are about to go"""
    _found: References = field(default_factory=References)
    _revision: int = 0
    _spec: int = 0
    """the last one that was read"""

    async def begin(self, *, cached: bool) -> None:
        """`cached`: what the cache keeps may go."""
        retained = self.looking.retained
        self._revision = await retained.newest_revision()  # first: what changes meanwhile is looked at twice
        found: set[str] = set()
        for run, base in await retained.unrecorded():
            found |= (await self.looking.run(run, base))[1]
        for uri in () if cached else await retained.cached_uris():
            found |= self.looking.targets(uri.encode())
        self._found.add(found)
        await self._read_specs()

    async def cover(self, folder: str) -> bool:
        """Whether one of them, as they are now, refers to the folder or to what is in it."""
        if self._found.cover(folder):
            return True
        await self._read_changes()
        await self._read_specs()
        return self._found.cover(folder)

    async def _read_changes(self) -> None:
        retained, until = self.looking.retained, await self.looking.retained.newest_revision()
        changed = await retained.changed(self._revision, until) if until > self._revision else ()
        for first in range(0, len(changed), AT_ONCE):
            some = changed[first : first + AT_ONCE]
            named = {uri for _, *told in some for uri in told if uri}
            files = {uri if uri.endswith(NAMED) else f"{uri}/outputs.pb" for uri in named}
            self._found.add(self.looking.targets(*(uri.encode() for uri in named)))
            for found in await asyncio.gather(*(self.looking.file(uri) for uri in files)):
                self._found.add(found)
        for run in {action.run for action, *_ in changed if action.name == ROOT}:
            self._found.add(self.looking.targets((await retained.told(run))[1]))
        self._revision = max(until, self._revision)

    async def _read_specs(self) -> None:
        while page := await self.looking.retained.specs(self._spec):
            self._found.add(self.looking.targets(*(spec for number, spec in page if number not in self.ignored)))
            self._spec = page[-1][0]


def attempts_of(folders: Trees, run: RunId) -> str:
    return f"{folders.root}/{run.project}/{run.domain}/{run.name}"
