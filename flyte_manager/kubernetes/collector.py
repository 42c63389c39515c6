"""Deletes finished TaskActions after a while; the record of their actions stays.

One goes when it is older than the age, or beyond the count of the newest, and nothing unfinished is below it: who owns
an unfinished one, at any depth, stays, because the cluster deletes all that an object owns with it. Below a parent that
still runs only what succeeded goes: what failed may be tried again by it. Where owner and owned both go, only the owner
is deleted, and the cluster does the rest.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

from flyte_manager.domain.ports import Clock
from flyte_manager.kubernetes.objects import Kept

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 60.0
PER_SECOND = 20.0
"""deletions; each may bring many by the cluster's own collector"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many stay, and how long."""

    age: float = 3600.0
    """seconds after the end"""
    count: int = 10_000


class Deleting(Protocol):
    """What deletes one TaskAction as it was seen, with all that it owns."""

    async def __call__(self, found: Kept, /) -> None:
        """One that is gone, or has changed since, is no error."""


class Collector:
    """Looks at intervals. `objects` gives all TaskActions that are known."""

    def __init__(
        self,
        objects: Callable[[], Iterable[Kept]],
        delete: Deleting,
        *,
        limits: Limits,
        clock: Clock,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._objects = objects
        self._delete = delete
        self._limits = limits
        self._clock = clock
        self._interval = interval

    async def run(self, all_known: Callable[[], Awaitable[None]]) -> NoReturn:
        """Works until it is cancelled; not before all are known: one of which nobody knows yet may own, or be owned."""
        await all_known()
        while True:
            await self.sweep()
            await asyncio.sleep(self._interval)

    async def sweep(self) -> int:
        """Deletes what has to go now; how many it was. The first error ends it till the next time."""
        gone = 0
        for found in collectable(list(self._objects()), limits=self._limits, now=self._clock()):
            try:
                await self._delete(found)
            except Exception as error:
                log.warning("finished TaskActions stay for now, %s could not be deleted: %s", found.name, error)
                break
            gone += 1
            await asyncio.sleep(1 / PER_SECOND)
        if gone:
            log.info("%d finished TaskActions were deleted", gone)
        return gone


def collectable(objects: Sequence[Kept], *, limits: Limits, now: datetime) -> Sequence[Kept]:
    """What has to go, oldest first, without what goes along with its owner."""
    by_uid = {each.uid: each for each in objects}
    busy = {owner.uid for each in objects if not each.final for owner in _owners(each, by_uid)}
    finished = sorted((each for each in objects if each.final), key=_ended, reverse=True)
    oldest = now - timedelta(seconds=limits.age)
    surplus = (each for place, each in enumerate(finished) if place >= limits.count or _ended(each) < oldest)
    going = {each.uid: each for each in surplus if each.uid not in busy and _nobody_needs(each, by_uid)}
    first = (each for each in reversed(going.values()) if each.owner not in going or each.owner == each.uid)
    return [each for each in first if not each.leaving]


def _nobody_needs(found: Kept, by_uid: Mapping[str, Kept]) -> bool:
    return found.succeeded or all(owner.final for owner in _owners(found, by_uid))


def _owners(found: Kept, by_uid: Mapping[str, Kept]) -> Iterator[Kept]:
    """Its owner, that one's owner, and so on; each once, whatever owner references say."""
    seen = {found.uid}
    while (owner := by_uid.get(found.owner)) is not None and owner.uid not in seen:
        yield owner
        seen.add(owner.uid)
        found = owner


def _ended(found: Kept) -> datetime:
    return found.ended_at or found.created_at
