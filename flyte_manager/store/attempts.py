"""Rows of table attempts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt, Event, Place, Transition, Usage
from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.actions import failure
from flyte_manager.store.engine import Transaction
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import attempts

_KEY = ("project", "domain", "run", "action")
_OF_ACTION = sa.and_(*(attempts.c[column] == sa.bindparam(f"key_{column}") for column in _KEY))
_BY_KEY = sa.and_(_OF_ACTION, attempts.c.attempt == sa.bindparam("key_attempt"))
_CHANGING = [column.name for column in attempts.columns if column.name not in (*_KEY, "attempt", "created_at")]
_INSERT = Prepared(attempts.insert())
_UPDATE = Prepared(attempts.update().where(_BY_KEY), *_CHANGING)
_GET = Prepared(attempts.select().where(_BY_KEY))
_ALL = Prepared(attempts.select().where(_OF_ACTION).order_by(attempts.c.attempt))
_AT_ONCE = 1000
"""Names in one query: SQLite takes 32,766 parameters."""


def insert(tx: Transaction, attempt: Attempt) -> None:
    _INSERT.write(tx.connection, _values(attempt))
    tx.known.keep(attempt.id, attempt, live=not attempt.phase.final)


def update(tx: Transaction, *changed: Attempt) -> None:
    for attempt in changed:
        key = _key(attempt.id.action) | {"key_attempt": attempt.id.number}
        _UPDATE.write(tx.connection, _values(attempt) | key)
        tx.known.keep(attempt.id, attempt, live=not attempt.phase.final)


def current(tx: Transaction, attempt: AttemptId) -> Attempt | None:
    """The same as `get`, of a live attempt mostly without a query."""
    known: Attempt | None = tx.known.get(attempt)
    if known is None:
        known = get(tx.connection, attempt)
        if known is not None:
            tx.known.keep(known.id, known, live=not known.phase.final)
    return known


def get(connection: sa.Connection, attempt: AttemptId) -> Attempt | None:
    row = _GET.one(connection, _key(attempt.action) | {"key_attempt": attempt.number})
    return _attempt(row) if row else None


def present(connection: sa.Connection, run: RunId, found: Sequence[Action]) -> Mapping[ActionId, Attempt]:
    """The present attempt of each of these actions of the run."""
    numbers = {each.id.name: each.attempt for each in found}
    names = list(numbers)
    scope = sa.and_(attempts.c.project == run.project, attempts.c.domain == run.domain, attempts.c.run == run.name)
    read: dict[ActionId, Attempt] = {}
    for start in range(0, len(names), _AT_ONCE):
        part = attempts.c.action.in_(names[start : start + _AT_ONCE])
        for row in connection.execute(attempts.select().where(scope, part)):
            if numbers[row.action] == row.attempt:
                attempt = _attempt(row)
                read[attempt.id.action] = attempt
    return read


def of_action(connection: sa.Connection, action: ActionId) -> Sequence[Attempt]:
    return [_attempt(row) for row in _ALL.all(connection, _key(action))]


def _key(action: ActionId) -> dict[str, object]:
    run = action.run
    return {"key_project": run.project, "key_domain": run.domain, "key_run": run.name, "key_action": action.name}


def _values(attempt: Attempt) -> dict[str, object]:
    run, fault, usage = attempt.id.action.run, attempt.failure, attempt.usage
    return {
        "project": run.project,
        "domain": run.domain,
        "run": run.name,
        "action": attempt.id.action.name,
        "attempt": attempt.id.number,
        "phase": attempt.phase.name,
        "created_at": attempt.created_at,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "output_uri": attempt.output_uri,
        "report_uri": attempt.report_uri,
        "error_kind": fault.kind.name if fault else "",
        "error_code": fault.code if fault else "",
        "error_message": fault.message if fault else "",
        "error_recoverable": fault.recoverable if fault else False,
        "cpu_seconds": usage.cpu_seconds if usage else None,
        "peak_memory": usage.peak_memory if usage else None,
        "logs_available": attempt.logs_available,
        "transitions": [{"phase": each.phase.name, "at": each.at.isoformat()} for each in attempt.transitions],
        "events": [_event_values(each) for each in attempt.events],
        "place": asdict(attempt.place) if attempt.place else None,
        "cache_status": attempt.cache_status.value,
        "cache_source": _source_values(attempt.cache_source) if attempt.cache_source else None,
        "told": attempt.told or None,
    }


def _event_values(event: Event) -> dict[str, object]:
    values: dict[str, object] = {"at": event.at.isoformat(), "message": event.message, "reason": event.reason}
    values["warning"] = event.warning
    if event.source or event.count != 1:
        values |= {"source": event.source, "count": event.count}
    if event.gpu_fault:
        values["gpu_fault"] = event.gpu_fault.hex()
    return values


def _event(values: Mapping[str, Any]) -> Event:
    fault = bytes.fromhex(values.get("gpu_fault", ""))
    return Event(**{**values, "at": datetime.fromisoformat(values["at"]), "gpu_fault": fault})


def _source_values(source: AttemptId) -> dict[str, object]:
    """It is of the same project and domain."""
    return {"run": source.action.run.name, "action": source.action.name, "attempt": source.number}


def _source(row: "sa.Row[Any]") -> AttemptId:
    found = row.cache_source
    return AttemptId(ActionId(RunId(row.project, row.domain, found["run"]), found["action"]), found["attempt"])


def _attempt(row: Any) -> Attempt:
    return Attempt(
        id=AttemptId(ActionId(RunId(row.project, row.domain, row.run), row.action), row.attempt),
        phase=Phase[row.phase],
        created_at=row.created_at,
        transitions=tuple(
            Transition(Phase[each["phase"]], datetime.fromisoformat(each["at"])) for each in row.transitions
        ),
        started_at=row.started_at,
        ended_at=row.ended_at,
        failure=failure(row),
        output_uri=row.output_uri,
        report_uri=row.report_uri,
        usage=None if row.cpu_seconds is None else Usage(row.cpu_seconds, row.peak_memory or 0),
        events=tuple(_event(each) for each in row.events),
        logs_available=bool(row.logs_available),
        place=Place(**row.place) if row.place else None,
        cache_status=CacheStatus(row.cache_status),
        cache_source=_source(row) if row.cache_source else None,
        told=row.told or b"",
    )
