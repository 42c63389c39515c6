"""What becomes of finished runs: they stay, or the oldest go, with their rows, logs and blobs (docs/retention.md).

scan     each run that has ended is looked at once: how much it holds, and what it refers to in the store
choose   oldest first: too old, or more than may stay; never one that a run which stays refers to, a live one, a
         task's spec or the cache (choosing.py, references.py)
delete   run by run (ledger/retention.py), rows first, then folders; then task specs and uploads of nobody
"""

import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.ids import RunId
from flyte_manager.domain.ports import Clock, Trees
from flyte_manager.domain.retention import UPLOAD_SECONDS, Bounds, FinishedRun, reached
from flyte_manager.executor.choosing import Choosing
from flyte_manager.executor.references import Looking, Others, attempts_of
from flyte_manager.ledger.retention import Retained

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


@dataclass(slots=True)
class Pruned:
    """What went, or would go."""

    runs: int = 0
    rows: int = 0
    size: int = 0
    """bytes of runs"""
    uploads: int = 0
    upload_size: int = 0
    held: int = 0
    """runs that would go if nothing referred to them"""
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Retention:
    """Works on one database and its stores. `attempts`: folders of local processes; `tell` gets a line now and then."""

    retained: Retained
    stores: Sequence[Trees]
    attempts: Trees
    domains: Sequence[str]
    clock: Clock

    async def prune(self, bounds: Bounds, *, dry: bool = False, tell: Tell = log.info) -> Pruned:
        """`dry`: only counts, and tells of each run."""
        done = Pruned()
        if not dry:
            await self._finish_begun(done, tell)
        await self._scan(tell)
        over = await self.retained.occupied() - bounds.size if bounds.size is not None else 0
        choice = Choosing(self.retained, self.clock, bounds, await self._others(bounds), over)
        async for run in choice.runs():
            count = await self.retained.count(run.id)
            if dry:
                tell(f"{run.id}  ended {run.ended_at:%Y-%m-%d %H:%M}  {count} rows  {amount(run.size)}")
            elif not await self._delete(run, bounds, done):
                choice.gone.remove(run.id)  # it lives again, or the cache keeps it by now: what it refers to stays, too
                continue
            done.runs += 1
            done.rows += count
            done.size += run.size
            if not dry and done.runs % 100 == 0:
                tell(f"{done.runs} runs are deleted, {amount(done.size)}")
        done.held = choice.held
        if not dry:
            await self.retained.forget_specs()
        others = await self._others(bounds, await self.retained.specs_without(choice.gone) if dry else frozenset())
        await self._prune_uploads(others, choice.gone, done, dry=dry)
        return done

    async def _delete(self, run: FinishedRun, bounds: Bounds, done: Pruned) -> bool:
        if not await self.retained.begin(run.id, cached=bounds.cached):
            return False
        await self._finish(run.id, run.base_uri, done)
        return True

    async def _finish_begun(self, done: Pruned, tell: Tell) -> None:
        for run, base in await self.retained.begun():
            tell(f"the deletion of {run}, which was cut off, is finished")
            await self._finish(run, base, done)

    async def _finish(self, run: RunId, base: str, done: Pruned) -> None:
        try:
            await self._delete_rest(run, base)
        except (OSError, Refusal) as error:  # the next sweep tries it again
            done.failures.append(f"{run}: {error}")

    async def _delete_rest(self, run: RunId, base: str) -> None:
        await self.retained.forget(run)
        store = self._looking.store(base)
        if store is not None and base.endswith(f"/{run.name}"):
            await store.remove(base)
        await self.attempts.remove(attempts_of(self.attempts, run))
        await self.retained.finish(run)

    async def _scan(self, tell: Tell) -> None:
        """Looks at each run that has ended since the last time."""
        count = 0
        while page := await self.retained.unscanned():
            for run in page:
                size, found = await self._looking.run(run.id, run.base_uri)
                own = f"{run.base_uri}/"
                await self.retained.scanned(run.id, size, {each for each in found if not f"{each}/".startswith(own)})
                count += 1
                if count % 1000 == 0:
                    tell(f"{count} runs are looked at")

    async def _referred(self, upload: str, gone: AbstractSet[RunId]) -> bool:
        """Whether a finished run that stays refers to it."""
        found = await self.retained.referring(upload)
        return reached(upload, (target for source, target in found if source not in gone))

    async def _others(self, bounds: Bounds, ignored_specs: AbstractSet[int] = frozenset()) -> Others:
        others = Others(self._looking, ignored_specs)
        await others.begin(cached=bounds.cached)
        return others

    @property
    def _looking(self) -> Looking:
        return Looking(self.retained, self.stores, self.attempts)

    async def _prune_uploads(self, others: Others, gone: AbstractSet[RunId], done: Pruned, *, dry: bool) -> None:
        """Uploads that nothing refers to which stays, and that nobody has used for a while."""
        for store in self.stores:
            folders = [f"{store.root}/uploads"]
            for project in await self.retained.projects():
                folders += [f"{store.root}/{project}/{domain}/_inputs" for domain in self.domains]
            for folder in folders:
                for upload, size, used_at in await _uploads(store, folder):
                    old = (self.clock() - used_at).total_seconds() > UPLOAD_SECONDS
                    if not old or await others.cover(upload) or await self._referred(upload, gone):
                        continue
                    if not dry and not await self._remove_upload(store, upload, done):
                        continue
                    done.uploads += 1
                    done.upload_size += size

    async def _remove_upload(self, store: Trees, upload: str, done: Pruned) -> bool:
        try:
            await store.remove(upload)
        except (OSError, Refusal) as error:
            done.failures.append(f"{upload}: {error}")
            return False
        return True


def amount(size: int) -> str:
    """Bytes in words."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


async def _uploads(store: Trees, folder: str) -> list[tuple[str, int, datetime]]:
    """Each upload below the folder: where, how much, and when it was used last."""
    depth = folder.count("/") + (3 if folder.endswith("/uploads") else 1)
    found: dict[str, tuple[int, datetime]] = {}
    async for page in store.stored(folder):
        for each in page:
            parts = each.uri.split("/")
            if len(parts) <= depth + 1:
                continue  # not where this manager puts one
            upload = "/".join(parts[: depth + 1])
            size, used_at = found.get(upload, (0, each.modified_at))
            found[upload] = size + each.size, max(used_at, each.modified_at)
    return [(upload, size, used_at) for upload, (size, used_at) in found.items()]
