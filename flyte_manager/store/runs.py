"""Rows of table runs."""

from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.actions import Action, Run, TaskName
from flyte_manager.domain.ids import RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.engine import Transaction
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import runs


def insert(tx: Transaction, run: Run) -> None:
    _INSERT.write(tx.connection, {**_values(run), "revision": tx.revision})


_INSERT = Prepared(runs.insert())
_MIRROR = Prepared(
    runs.update()
    .where(
        runs.c.project == sa.bindparam("_project"),
        runs.c.domain == sa.bindparam("_domain"),
        runs.c.name == sa.bindparam("_name"),
    )
    .values(
        kept_bytes=sa.null(),  # it may end once more, with other outputs
        phase=sa.bindparam("_phase"),
        started_at=sa.bindparam("_started"),
        ended_at=sa.bindparam("_ended"),
        updated_at=sa.bindparam("_updated"),
        duration_ms=sa.bindparam("_duration"),
        revision=sa.bindparam("_revision"),
    )
)


def mirror(tx: Transaction, root: Action) -> None:
    """Shows the root action's progress in the run's row."""
    run = root.id.run
    tx.known.pop(run, None)
    _MIRROR.write(
        tx.connection,
        {
            "_project": run.project,
            "_domain": run.domain,
            "_name": run.name,
            "_phase": root.phase.name,
            "_started": root.started_at,
            "_ended": root.ended_at,
            "_updated": root.updated_at,
            "_duration": root.duration_ms,
            "_revision": tx.revision,
        },
    )


_GET = Prepared(
    runs.select().where(*(runs.c[column] == sa.bindparam(f"key_{column}") for column in ("project", "domain", "name")))
)


def get(connection: sa.Connection, run: RunId) -> Run | None:
    key = {"key_project": run.project, "key_domain": run.domain, "key_name": run.name}
    row = _GET.one(connection, key)
    return run_of(row) if row else None


def current(tx: Transaction, run: RunId) -> Run | None:
    """The same as `get`, of a live run mostly without a query."""
    known: Run | None = tx.known.get(run)
    if known is None:
        known = get(tx.connection, run)
        if known is not None:
            tx.known.keep(known.id, known, live=known.ended_at is None)
    return known


def _values(run: Run) -> dict[str, object]:
    return {
        "project": run.id.project,
        "domain": run.id.domain,
        "name": run.id.name,
        "org": run.id.org,
        "phase": run.phase.name,
        "task_name": run.task.name,
        "task_version": run.task.version,
        "input_uri": run.input_uri,
        "base_uri": run.base_uri,
        "source": run.source,
        "relation": run.relation,
        "related_to": run.related_to,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "digest": run.digest,
        "run_spec": run.run_spec,
        "kept_bytes": None,
        "updated_at": run.created_at,
        "duration_ms": None,
        "labels": dict(run.labels) or None,
        "created_by": run.created_by or None,
        "created_by_subject": run.created_by_subject,
    }


def run_of(row: Any) -> Run:
    return Run(
        id=RunId(row.project, row.domain, row.name, row.org),
        phase=Phase[row.phase],
        task=TaskName(row.project, row.domain, row.task_name, row.task_version, row.org),
        input_uri=row.input_uri,
        base_uri=row.base_uri,
        created_at=row.created_at,
        run_spec=row.run_spec or b"",
        digest=row.digest,
        source=row.source,
        relation=row.relation,
        related_to=row.related_to,
        created_by=row.created_by or b"",
        created_by_subject=row.created_by_subject,
        labels=row.labels or {},
        started_at=row.started_at,
        ended_at=row.ended_at,
        revision=row.revision,
    )
