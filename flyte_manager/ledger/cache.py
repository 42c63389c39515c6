"""Kept outputs, and reservations of keys: who makes the outputs while others wait.

entry     put ─▶ taken by equal calls ─▶ replaced (newer outputs), or deleted (by hand, or its outputs are gone)
key       free ─▶ reserved ─▶ free again: released, or its owner is gone
                  by an action of ours: as long as it lives; its end frees the key in the same transaction
                  by a client of CacheService: until it expires, three heartbeats after the last extension
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from flyte_manager.domain.actions import Action
from flyte_manager.domain.caching import CacheEntry, CacheKey, Reservation
from flyte_manager.domain.errors import Exists, Missing
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.ports import Clock
from flyte_manager.store import actions, cache
from flyte_manager.store.engine import Connection, Database, Transaction

GRACE = 3
"""heartbeats that an owner may miss, as upstream"""

LONGEST_HEARTBEAT = 10.0
"""seconds, as upstream"""


class UnknownEntry(Missing):
    """the cache has nothing under key {key!r} in {scope}: put it there, or ask with the scope in which it was put."""


class EntryExists(Exists):
    """the cache has something under key {key!r} already: send overwrite.overwrite, or delete it first."""


class Cache:
    """The writer of entries and reservations, beside the ends of actions, which the ledger writes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, key: CacheKey) -> CacheEntry:
        """Raises UnknownEntry."""
        return _known(await self.find(key), key)

    async def find(self, key: CacheKey) -> CacheEntry | None:
        return await self._database.read(lambda connection: cache.get(connection, key))

    async def put(self, entry: CacheEntry, *, overwrite: bool, max_age: float | None) -> CacheEntry | None:
        """Keeps it; what was kept there before. An entry older than `max_age` seconds may be replaced without
        `overwrite`. Raises EntryExists."""

        def write(tx: Transaction) -> CacheEntry | None:
            found = cache.get(tx.connection, entry.key)
            if found is None:
                cache.put(tx, entry)
                return None
            young = max_age is None or (entry.updated_at - found.updated_at).total_seconds() <= max_age
            if young and not overwrite:
                raise EntryExists(key=entry.key.key)
            is_new = entry.created_at == entry.updated_at  # else the client said when it was made
            cache.put(tx, replace(entry, created_at=found.created_at) if is_new else entry)
            return found

        return await self._database.write(write)

    async def delete(self, key: CacheKey) -> None:
        """Raises UnknownEntry."""

        def write(tx: Transaction) -> None:
            _known(cache.get(tx.connection, key), key)
            cache.delete(tx, key)

        await self._database.write(write)

    async def drop(self, entry: CacheEntry) -> None:
        """Deletes this very entry, not one that came in its place."""

        def write(tx: Transaction) -> None:
            if cache.get(tx.connection, entry.key) == entry:
                cache.delete(tx, entry.key)

        await self._database.write(write)

    async def reserve(self, key: CacheKey, owner: str, heartbeat: float) -> Reservation:
        """Reserves the key, or extends the reservation that the owner has; the one that stands now, maybe another's."""
        now = self._clock()
        asked = heartbeat if 0 < heartbeat < LONGEST_HEARTBEAT else LONGEST_HEARTBEAT
        made = Reservation(key, owner, asked, now + timedelta(seconds=asked * GRACE))

        def write(tx: Transaction) -> Reservation:
            found = _standing(tx.connection, key, now)
            if found is not None and (found.owner != owner or found.holder is not None):
                return found
            cache.reserve(tx, made)
            return made

        return await self._database.write(write)

    async def release(self, key: CacheKey, owner: str) -> None:
        """Frees the key if that owner has it."""
        await self._database.write(lambda tx: cache.release(tx, key, owner))

    async def take(self, action: Action, *, max_age: float, run: str) -> CacheEntry | Reservation | None:
        """What the action may take, or whom it must wait for; None when it is its turn to make the outputs."""
        now = self._clock()
        key, mine = key_of(action), _reservation(action, now)

        def write(tx: Transaction) -> CacheEntry | Reservation | None:
            entry = cache.get(tx.connection, key)
            if entry is not None and entry.usable(now, max_age=max_age, run=run):
                return entry
            found = _standing(tx.connection, key, now)
            if found is None:
                cache.reserve(tx, mine)
                return None
            if found.holder and found.holder in (action.id, *_ancestors(tx.connection, action)):
                return None  # a caller can't go on before its own call
            return found

        return await self._database.write(write)


def key_of(action: Action) -> CacheKey:
    return CacheKey(action.cache_key, action.id.run.project, action.id.run.domain)


def release(tx: Transaction, action: Action) -> None:
    """Frees the key that an action which ended may have held."""
    if action.cache_key:
        cache.release(tx, key_of(action), str(action.id))


def _reservation(action: Action, now: datetime) -> Reservation:
    return _renewed(Reservation(key_of(action), str(action.id), LONGEST_HEARTBEAT, now, holder=action.id), now)


def _renewed(found: Reservation, now: datetime) -> Reservation:
    """An action's, which needs no heartbeat: for clients of CacheService it looks as if it had just sent one."""
    return replace(found, expires_at=now + timedelta(seconds=found.heartbeat * GRACE))


def _standing(connection: Connection, key: CacheKey, now: datetime) -> Reservation | None:
    found = cache.reservation(connection, key)
    if found is None:
        return None
    if found.holder is None:
        return found if found.expires_at > now else None
    holder = actions.get(connection, found.holder)
    return _renewed(found, now) if holder is not None and not holder.final else None


def _ancestors(connection: Connection, action: Action) -> Iterator[ActionId]:
    above: Action | None = action
    while above is not None and above.parent:
        parent = ActionId(action.id.run, above.parent)
        yield parent
        above = actions.get(connection, parent)


def _known(found: CacheEntry | None, key: CacheKey) -> CacheEntry:
    if found is None:
        scope = f"{key.project}/{key.domain}" if key.project else "the scope without project and domain"
        raise UnknownEntry(key=key.key[:80], scope=scope)
    return found
