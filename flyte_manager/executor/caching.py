"""What the cache does for an action that is about to start, and for one that has ended.

    about to start ─▶ kept outputs? ─▶ they are copied to the action's own prefix: SUCCEEDED, nothing starts (HIT)
                        │      └ gone or damaged: the entry goes, and it is looked up again
                        ├─ none: it starts (MISS); of a task that is cached one at a time, it has reserved the key
                        ├─ none, and another call has reserved it: waits for that one's end (MISS)
                        └─ the store can't tell: it starts all the same (LOOKUP_FAILURE)
    succeeded ─▶ where its outputs lie is kept, in the transaction of its end (POPULATED)

Copied, because what retention takes from the run that made them must not break another one.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import AttemptReport, Event
from flyte_manager.domain.caching import CacheEntry, CacheKey, CacheStatus, Reservation
from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Blobs, Clock
from flyte_manager.domain.tasks import TaskPlan
from flyte_manager.executor.outcome import LARGEST_OUTPUTS
from flyte_manager.executor.plans import Plans
from flyte_manager.ledger.cache import Cache, key_of
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.wire.caching import metadata_of, outputs_of
from flyte_manager.wire.data import damage

log = logging.getLogger(__name__)

CLIENT_CHECK_SECONDS = 1.0
"""how long to wait before looking again whether a client of CacheService is done"""

SHOWN = 32
"""characters of a key in a reason"""


@dataclass(frozen=True, slots=True)
class Looked:
    """What the cache says of an action that is about to start."""

    status: CacheStatus = CacheStatus.DISABLED
    events: tuple[Event, ...] = ()
    hit: AttemptReport | None = None
    """the report of its success"""
    waits: str = ""
    """for whom it must wait"""
    after: float = 0.0
    """seconds until it should be looked up again; 0: it is woken"""

    def told(self, report: AttemptReport) -> AttemptReport:
        if self.status is CacheStatus.DISABLED:
            return report
        return replace(report, cache_status=self.status, events=(*report.events, *self.events))


UNCACHED = Looked()


class Caching:
    """Looks up, waits, keeps."""

    def __init__(
        self,
        *,
        cache: Cache,
        ledger: Ledger,
        plans: Plans,
        blobs: Blobs,
        clock: Clock,
        wake: Callable[[ActionId], None],
    ) -> None:
        self._cache = cache
        self._plans = plans
        self._blobs = blobs
        self._clock = clock
        self._wake = wake
        self._waiting: dict[CacheKey, set[ActionId]] = {}
        ledger.listen(self._changed)

    async def look_up(self, action: Action, plan: TaskPlan) -> Looked:
        if not action.cache_key:
            return UNCACHED
        _, settings = await self._plans.run(action)
        only_of = action.id.run.name if settings.overwrite_cache else ""
        while isinstance(found := await self._find(action, plan, only_of), CacheEntry):
            try:
                hit = await self._hit(action, plan, found)
            except (Refusal, OSError) as error:  # of the store; without the database nothing would go on
                return self._failed(action, error)
            if hit is not None:
                return Looked(CacheStatus.HIT, hit=hit)
            log.warning("the outputs that the cache kept under %s are gone", found.key)
            await self._cache.drop(found)
        if found is None:
            return Looked(CacheStatus.SKIPPED if settings.overwrite_cache else CacheStatus.MISS)
        if found.holder is None:
            waits = f"waits for {found.owner[:SHOWN]} to fill the cache"
            return Looked(CacheStatus.MISS, waits=waits, after=CLIENT_CHECK_SECONDS)
        waits = f"waits for the same call of run {found.holder.run.name} to fill the cache: {found.holder.name}"
        return Looked(CacheStatus.MISS, waits=waits)

    def ended(self, action: Action, told: AttemptReport, looked: Looked) -> AttemptReport:
        """The last report, with what the cache keeps of a success."""
        if not action.cache_key:
            return told
        told = looked.told(told)
        if told.phase is not Phase.SUCCEEDED:
            known = told.cache_status or action.cache_status or CacheStatus.MISS  # it started: a crash forgot why
            return replace(told, cache_status=known)
        now = self._clock()
        entry = CacheEntry(
            key=key_of(action),
            output_uri=f"{told.output_uri}/outputs.pb",
            metadata=metadata_of(action),
            source=action.attempt_id,
            created_at=now,
            updated_at=now,
        )
        event = Event(now, f"kept in the cache under {action.cache_key}", reason="CachePopulated")
        return replace(told, cache_status=CacheStatus.POPULATED, events=(*told.events, event), keep=entry)

    def _failed(self, action: Action, error: Exception) -> Looked:
        log.warning("%s can't have what the cache keeps: %s", action.id, error)
        message = f"it runs, because what the cache keeps could not be had: {error}"
        event = Event(self._clock(), message, reason="CacheLookupFailure", warning=True)
        return Looked(CacheStatus.LOOKUP_FAILURE, (event,))

    async def _find(self, action: Action, plan: TaskPlan, only_of: str) -> CacheEntry | Reservation | None:
        if not plan.cache_serialize:
            entry = await self._cache.find(key_of(action))
            usable = entry is not None and entry.usable(self._clock(), max_age=plan.cache_max_age, run=only_of)
            return entry if usable else None
        # before it asks: who ends between the answer and now must not find nobody waiting
        self._waiting.setdefault(key_of(action), set()).add(action.id)
        found = await self._cache.take(action, max_age=plan.cache_max_age, run=only_of)
        if not isinstance(found, Reservation) and not self._forget(action):
            self._wake_all(key_of(action))  # it may have ended since it reserved the key, which looked like waiting
        return found

    def _changed(self, action: Action) -> None:
        """Wakes the calls that wait for one that has ended."""
        if not (action.cache_key and action.final):
            return
        if not self._forget(action):
            self._wake_all(key_of(action))

    def _wake_all(self, key: CacheKey) -> None:
        for each in self._waiting.pop(key, ()):
            self._wake(each)

    def _forget(self, action: Action) -> bool:
        """Whether it waited."""
        waiting = self._waiting.get(key_of(action), set())
        if action.id not in waiting:
            return False
        waiting.remove(action.id)
        if not waiting:
            del self._waiting[key_of(action)]
        return True

    async def _read(self, uri: str) -> bytes | None:
        return await self._blobs.read(uri, limit=LARGEST_OUTPUTS)

    async def _hit(self, action: Action, plan: TaskPlan, entry: CacheEntry) -> AttemptReport | None:
        """Copies the outputs; None when they are gone."""
        prefix = action.output_prefix(action.attempt)
        outputs = outputs_of(entry.literals) if not entry.output_uri else await self._read(entry.output_uri)
        if plan.has_outputs and damage(outputs or b"", plan.outputs):
            return None
        if outputs is not None:
            await self._blobs.write(f"{prefix}/outputs.pb", outputs)
        report = None
        if plan.has_report and entry.source is not None:
            report = await self._read(f"{entry.output_uri.rpartition('/')[0]}/report.html")
        if report is not None:
            await self._blobs.write(f"{prefix}/report.html", report)
        now, source = self._clock(), entry.source
        whose = "put there by a client"
        if source is not None:
            whose = f"of run {source.action.run.name}, action {source.action.name}, attempt {source.number}"
        message = f"its outputs are from the cache, {whose} (key {action.cache_key})"
        return AttemptReport(
            action.attempt_id,
            Phase.SUCCEEDED,
            now,
            output_uri=prefix,
            report_uri=f"{prefix}/report.html" if report is not None else "",
            events=(Event(now, message, reason="CacheHit"),),
            cache_status=CacheStatus.HIT,
            cache_source=source,
        )
