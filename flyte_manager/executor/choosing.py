"""Which finished runs go, in order: the oldest first, but none before those that refer to it.

    too old, or more than may stay?     no ─▶ all that come later stay, too
    referred to by what stays anyway?   held
    by a finished run?                  waits for that one; when it goes, whoever waited is looked at again
    else                                goes

At the end, runs that refer to each other in a circle (a task that starts a run hands it a file, and gives back what
came of it), and to which nobody else refers, go together.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

from flyte_manager.domain.ids import RunId
from flyte_manager.domain.ports import Clock
from flyte_manager.domain.retention import LEAST_AGE_SECONDS, Bounds, FinishedRun, circles, reached
from flyte_manager.executor.references import Others
from flyte_manager.ledger.retention import Retained


@dataclass(slots=True)
class Choosing:
    """One sweep's choice. `gone`: what was chosen; who can't delete one after all takes it out of there."""

    retained: Retained
    clock: Clock
    bounds: Bounds
    others: Others
    over: int
    """bytes that are too many"""
    gone: set[RunId] = field(default_factory=set)
    _stuck: set[RunId] = field(default_factory=set)
    _waiting: defaultdict[RunId, list[FinishedRun]] = field(default_factory=lambda: defaultdict(list))
    """for each run those that it refers to"""

    @property
    def held(self) -> int:
        """Runs that would go if nothing referred to them."""
        return len(self._stuck - self.gone)

    async def runs(self) -> AsyncIterator[FinishedRun]:
        """What the caller does with one is done when the next is asked for."""
        async for candidate in self._candidates():
            if not self._surplus(candidate):
                break
            free = [candidate]
            while free:
                run = free.pop()
                if await self._may_go(run):
                    self.gone.add(run.id)
                    yield run
                    free += self._freed(run)
        async for run in self._circles():
            self.gone.add(run.id)
            yield run
            self._freed(run)

    async def _candidates(self) -> AsyncIterator[FinishedRun]:
        """Finished runs, oldest first."""
        before = self.clock() - timedelta(seconds=LEAST_AGE_SECONDS)
        last: FinishedRun | None = None
        while page := await self.retained.finished(last, before):
            for run in page:
                yield run
            last = page[-1]

    def _surplus(self, run: FinishedRun) -> bool:
        age = self.bounds.age
        too_old = age is not None and (self.clock() - run.ended_at).total_seconds() > age
        return too_old or self.over > 0

    async def _may_go(self, run: FinishedRun) -> bool:
        self._stuck.add(run.id)
        if await self._is_held(run):
            return False
        referrer = next(iter(await self._referrers(run) - self.gone), None)
        if referrer is not None:
            self._waiting[referrer].append(run)
            return False
        self._stuck.discard(run.id)
        return self._surplus(run)

    def _freed(self, run: FinishedRun) -> list[FinishedRun]:
        """Who waited for it, the oldest last; nobody if it could not go."""
        if run.id not in self.gone:
            return []
        self.over -= run.size
        return self._waiting.pop(run.id, [])[::-1]

    async def _is_held(self, run: FinishedRun) -> bool:
        """Whether something refers to it that does not go in this sweep."""
        if not self.bounds.cached and await self.retained.is_cached(run.id):
            return True
        return await self.others.cover(run.base_uri)

    async def _referrers(self, run: FinishedRun) -> set[RunId]:
        found = await self.retained.referring(run.base_uri)
        return {source for source, target in found if reached(run.base_uri, [target])}

    async def _circles(self) -> AsyncIterator[FinishedRun]:
        left = {run.id: run for some in self._waiting.values() for run in some}
        referrers = {run.id: await self._referrers(run) - self.gone for run in left.values()}
        for circle in circles(referrers):
            runs = sorted((left[each] for each in circle), key=lambda run: run.ended_at)
            if not self._surplus(runs[0]) or any([await self._is_held(run) for run in runs]):
                continue
            for run in runs:
                yield run
                if run.id not in self.gone:
                    break
