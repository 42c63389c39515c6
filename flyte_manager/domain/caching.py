"""Kept outputs of tasks, and who may fill the cache next."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from flyte_manager.domain.ids import ActionId, AttemptId


class CacheStatus(IntEnum):
    """What the cache did for an attempt (numbers as in flyteidl2.core.CatalogCacheStatus)."""

    DISABLED = 0
    MISS = 1
    HIT = 2
    POPULATED = 3
    LOOKUP_FAILURE = 4
    PUT_FAILURE = 5
    SKIPPED = 6
    EVICTED = 7


@dataclass(frozen=True, slots=True)
class CacheKey:
    """One call of one task. Project and domain are empty for keys of the first CacheService, which knows no scopes."""

    key: str
    project: str = ""
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.project}/{self.domain}/{self.key}" if self.project else self.key


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What is kept under a key: where the outputs lie, or the outputs themselves."""

    key: CacheKey
    updated_at: datetime
    created_at: datetime
    output_uri: str = ""
    literals: bytes = b""
    """flyteidl2.core.LiteralMap; empty when there is a uri"""
    metadata: bytes = b""
    """flyteidl2.cacheservice.Metadata, but for its times"""
    source: AttemptId | None = None
    """the attempt that made the outputs; None when a client of CacheService put them"""

    def usable(self, now: datetime, *, max_age: float, run: str) -> bool:
        """Whether an action may take it. `max_age`: seconds, 0 = any; `run`: only what that run itself made, "" = any
        (a run that overwrites the cache)."""
        if run and (self.source is None or self.source.action.run.name != run):
            return False
        return not max_age or (now - self.updated_at).total_seconds() <= max_age


@dataclass(frozen=True, slots=True)
class Reservation:
    """Who is making the outputs of a key. One of an action (`holder`) stands as long as the action lives, the others
    until `expires_at`."""

    key: CacheKey
    owner: str
    heartbeat: float
    """seconds"""
    expires_at: datetime
    holder: ActionId | None = None
