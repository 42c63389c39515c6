"""Rows of tables cache_entries and cache_reservations."""

from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.caching import CacheEntry, CacheKey, Reservation
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.store.engine import Transaction
from flyte_manager.store.tables import cache_entries, cache_reservations


def _is(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(*(table.c[column] == sa.bindparam(f"key_{column}") for column in ("project", "domain", "key")))


_GET = cache_entries.select().where(_is(cache_entries))
_PUT = cache_entries.insert().prefix_with("OR REPLACE")
_DELETE = cache_entries.delete().where(_is(cache_entries))
_RESERVATION = cache_reservations.select().where(_is(cache_reservations))
_RESERVE = cache_reservations.insert().prefix_with("OR REPLACE")
_RELEASE = cache_reservations.delete().where(
    _is(cache_reservations), cache_reservations.c.owner == sa.bindparam("key_owner")
)


def get(connection: sa.Connection, key: CacheKey) -> CacheEntry | None:
    row = connection.execute(_GET, _key(key)).one_or_none()
    return _entry(row) if row else None


def put(tx: Transaction, entry: CacheEntry) -> None:
    """In the place of what was kept under that key."""
    source = entry.source
    values: dict[str, object] = {
        "project": entry.key.project,
        "domain": entry.key.domain,
        "key": entry.key.key,
        "output_uri": entry.output_uri,
        "literals": entry.literals,
        "metadata": entry.metadata,
        "run": source.action.run.name if source else "",
        "action": source.action.name if source else "",
        "attempt": source.number if source else 0,
        "created_at": entry.created_at,
        "updated_at": entry.updated_at,
    }
    tx.connection.execute(_PUT, values)


def delete(tx: Transaction, key: CacheKey) -> bool:
    """Whether there was one."""
    return tx.connection.execute(_DELETE, _key(key)).rowcount > 0


def forget_run(tx: Transaction, run: RunId) -> None:
    """Deletes what was kept of the run's outputs."""
    made_by = (cache_entries.c.project == run.project, cache_entries.c.domain == run.domain)
    tx.connection.execute(cache_entries.delete().where(*made_by, cache_entries.c.run == run.name))


def reservation(connection: sa.Connection, key: CacheKey) -> Reservation | None:
    row = connection.execute(_RESERVATION, _key(key)).one_or_none()
    return _reservation(row) if row else None


def reserve(tx: Transaction, made: Reservation) -> None:
    """In the place of the one that was there."""
    holder = made.holder
    values: dict[str, object] = {
        "project": made.key.project,
        "domain": made.key.domain,
        "key": made.key.key,
        "owner": made.owner,
        "run": holder.run.name if holder else "",
        "action": holder.name if holder else "",
        "heartbeat": made.heartbeat,
        "expires_at": made.expires_at,
    }
    tx.connection.execute(_RESERVE, values)


def release(tx: Transaction, key: CacheKey, owner: str) -> None:
    """Frees the key if that owner has it."""
    tx.connection.execute(_RELEASE, {**_key(key), "key_owner": owner})


def _key(key: CacheKey) -> dict[str, object]:
    return {"key_project": key.project, "key_domain": key.domain, "key_key": key.key}


def _entry(row: "sa.Row[Any]") -> CacheEntry:
    action = ActionId(RunId(row.project, row.domain, row.run), row.action)
    return CacheEntry(
        key=CacheKey(row.key, row.project, row.domain),
        output_uri=row.output_uri,
        literals=row.literals or b"",
        metadata=row.metadata or b"",
        source=AttemptId(action, row.attempt) if row.run else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _reservation(row: "sa.Row[Any]") -> Reservation:
    return Reservation(
        key=CacheKey(row.key, row.project, row.domain),
        owner=row.owner,
        heartbeat=row.heartbeat,
        expires_at=row.expires_at,
        holder=ActionId(RunId(row.project, row.domain, row.run), row.action) if row.run else None,
    )
