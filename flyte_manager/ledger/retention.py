"""Forgetting runs: small transactions, of which each leaves a state that the next sweep goes on from.

begin    the run's row goes, so nobody sees it any more; a row in prunings says that the rest has to go
forget   its actions, attempts and references, some at a time
         (then its folders)
finish   the row in prunings goes
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.domain.retention import FinishedRun
from flyte_manager.store import cache, projects, retention
from flyte_manager.store.engine import Database, Transaction

PAGE = 500
"""Rows that one transaction deletes of a table: other writers wait for it."""

SPECS = 200


class Retained:
    """The rows that retention reads and deletes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unscanned(self) -> Sequence[FinishedRun]:
        return await self._database.read(lambda connection: retention.unscanned(connection, PAGE))

    async def finished(self, after: FinishedRun | None, before: datetime) -> Sequence[FinishedRun]:
        """A page of runs that ended before that moment, the first to end first."""
        return await self._database.read(lambda connection: retention.finished(connection, after, before, PAGE))

    async def begun(self) -> Sequence[tuple[RunId, str]]:
        """Runs whose deletion has begun, with their folders."""
        return await self._database.read(retention.begun)

    async def projects(self) -> Sequence[str]:
        return await self._database.read(projects.ids)

    async def occupied(self) -> int:
        """Bytes that the finished runs hold together."""
        return await self._database.read(retention.occupied)

    async def unrecorded(self) -> Sequence[tuple[RunId, str]]:
        """Runs of which nobody has kept what they refer to, with their folders: live ones, and those that ended
        since."""
        return await self._database.read(retention.unrecorded)

    async def newest_revision(self) -> int:
        """Of all actions."""
        return await self._database.read(retention.newest_revision)

    async def changed(self, after: int, until: int) -> Sequence[tuple[ActionId, str, str]]:
        """Actions that changed behind the one revision and up to the other: where their inputs lie, and the outputs of
        those that have ended."""
        return await self._database.read(lambda connection: retention.changed(connection, after, until))

    async def told(self, run: RunId) -> tuple[Sequence[str], bytes]:
        """Where the run's rows say that inputs and outputs lie, and its run spec."""
        return await self._database.read(
            lambda connection: (retention.uris(connection, run), retention.run_spec(connection, run))
        )

    async def count(self, run: RunId) -> int:
        """Its rows."""
        return await self._database.read(lambda connection: retention.rows_of(connection, run))

    async def is_cached(self, run: RunId) -> bool:
        return await self._database.read(lambda connection: retention.is_cached(connection, run))

    async def cached_uris(self) -> Sequence[str]:
        return await self._database.read(retention.cached_uris)

    async def specs(self, after: int) -> Sequence[tuple[int, bytes]]:
        """A page of task specs in the order in which they came, with a number that tells it."""
        return await self._database.read(lambda connection: retention.specs(connection, after, SPECS))

    async def referring(self, folder: str) -> Sequence[tuple[RunId, str]]:
        """Which finished runs refer to what around the folder."""
        return await self._database.read(lambda connection: retention.referring(connection, folder))

    async def scanned(self, run: RunId, size: int, targets: Iterable[str]) -> None:
        await self._database.write(lambda tx: retention.scanned(tx, run, size, targets))

    async def begin(self, run: RunId, *, cached: bool) -> bool:
        """False: it lives, or is gone. `cached`: what the cache keeps of it goes, too."""

        def write(tx: Transaction) -> bool:
            if not cached and retention.is_cached(tx.connection, run):
                return False
            if not retention.begin(tx, run):
                return False
            cache.forget_run(tx, run)
            return True

        return await self._database.write(write)

    async def forget(self, run: RunId) -> int:
        """Deletes all rows of a run whose deletion has begun; how many there were."""
        gone = 0
        while some := await self._database.write(lambda tx: retention.forget(tx, run, PAGE)):
            gone += some
        return gone

    async def finish(self, run: RunId) -> None:
        await self._database.write(lambda tx: retention.finish(tx, run))

    async def specs_without(self, gone: Collection[RunId]) -> set[int]:
        """Numbers of the task specs that `forget_specs` would delete if these runs were gone."""
        return await self._database.read(lambda connection: retention.specs_without(connection, gone))

    async def forget_specs(self) -> int:
        """Deletes task specs that nothing names any more."""
        since, digests = await self._database.read(retention.unused_specs)
        gone = 0
        for first in range(0, len(digests), PAGE):
            some = digests[first : first + PAGE]
            gone += await self._delete_specs(some, since)
        return gone

    async def _delete_specs(self, digests: Sequence[str], since: int) -> int:
        return await self._database.write(lambda tx: retention.delete_specs(tx, digests, since))
