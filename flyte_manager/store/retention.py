"""Rows of tables run_references and prunings, and what retention asks of runs."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.domain.retention import LAST, FinishedRun, ancestors
from flyte_manager.store.engine import Transaction
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import (
    actions,
    attempts,
    cache_entries,
    prunings,
    run_references,
    runs,
    task_specs,
    tasks,
)

_FINISHED = sa.select(
    runs.c.project, runs.c.domain, runs.c.name, runs.c.org, runs.c.base_uri, runs.c.ended_at, runs.c.kept_bytes
).where(runs.c.ended_at.is_not(None))
_BEGUN = Prepared(
    prunings.select().where(*(prunings.c[name] == sa.bindparam(name) for name in ("project", "domain", "run")))
)
_ORDER = (runs.c.ended_at, runs.c.project, runs.c.domain, runs.c.name)


def finished(connection: sa.Connection, after: FinishedRun | None, before: datetime, limit: int) -> list[FinishedRun]:
    """Runs that ended before that moment, the first to end first, behind one that was read last."""
    statement = _FINISHED.where(runs.c.ended_at < before).order_by(*_ORDER).limit(limit)
    if after is not None:
        last = (after.ended_at, after.id.project, after.id.domain, after.id.name)
        statement = statement.where(
            runs.c.ended_at >= after.ended_at,
            sa.tuple_(*_ORDER)
            > sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(last, _ORDER, strict=True))),
        )
    return [_run(row) for row in connection.execute(statement)]


def unscanned(connection: sa.Connection, limit: int) -> list[FinishedRun]:
    """Some that have ended and of which nobody has looked what they hold and refer to."""
    statement = _FINISHED.where(runs.c.kept_bytes.is_(None)).limit(limit)
    return [_run(row) for row in connection.execute(statement)]


def unrecorded(connection: sa.Connection) -> list[tuple[RunId, str]]:
    """Runs of which nobody has kept what they refer to, with their folders: live ones, and those that ended since."""
    names = (runs.c.project, runs.c.domain, runs.c.name, runs.c.base_uri)
    rows = connection.execute(sa.select(*names).where(runs.c.kept_bytes.is_(None)))
    return [(RunId(row.project, row.domain, row.name), row.base_uri) for row in rows]


def changed(connection: sa.Connection, after: int, until: int) -> list[tuple[ActionId, str, str]]:
    """Actions that changed behind the one revision and up to the other: where their inputs lie, and the outputs of
    those that have ended."""
    outputs = sa.case((actions.c.ended_at.is_(None), ""), else_=actions.c.output_uri)
    names = (actions.c.project, actions.c.domain, actions.c.run, actions.c.name, actions.c.input_uri)
    between = (actions.c.revision > after, actions.c.revision <= until)
    return [
        (ActionId(RunId(row.project, row.domain, row.run), row.name), row.input_uri, row.outputs)
        for row in connection.execute(sa.select(*names, outputs.label("outputs")).where(*between))
    ]


def newest_revision(connection: sa.Connection) -> int:
    """Of all actions."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(actions.c.revision), 0))).scalar_one())


def occupied(connection: sa.Connection) -> int:
    """Bytes that the finished runs hold together."""
    found: int = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(runs.c.kept_bytes), 0))).scalar_one()
    return found


def uris(connection: sa.Connection, run: RunId) -> list[str]:
    """Where the run's rows say that inputs and outputs lie."""
    rows = connection.execute(
        sa.union(
            sa.select(runs.c.input_uri).where(_is(runs, "name", run)),
            sa.select(actions.c.input_uri).where(_is(actions, "run", run)),
            sa.select(actions.c.output_uri).where(_is(actions, "run", run)),
        )
    )
    return [uri for (uri,) in rows if uri]


def specs(connection: sa.Connection, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Task specs of deployed tasks and actions, in the order in which they came; with a number that tells it."""
    number = sa.literal_column("rowid", sa.Integer)
    statement = sa.select(number, task_specs.c.spec).where(number > after).order_by(number).limit(limit)
    return [(row.rowid, row.spec) for row in connection.execute(statement)]


def run_spec(connection: sa.Connection, run: RunId) -> bytes:
    return connection.execute(sa.select(runs.c.run_spec).where(_is(runs, "name", run))).scalar() or b""


def cached_uris(connection: sa.Connection) -> list[str]:
    """Where kept outputs lie."""
    return list(connection.execute(sa.select(cache_entries.c.output_uri).distinct()).scalars())


def is_cached(connection: sa.Connection, run: RunId) -> bool:
    found = sa.select(sa.literal(1)).where(_is(cache_entries, "run", run)).limit(1)
    return connection.execute(found).first() is not None


def referring(connection: sa.Connection, folder: str) -> list[tuple[RunId, str]]:
    """Who refers to what around the folder: what begins like it, or holds it."""
    target = run_references.c.target
    around = sa.and_(target >= folder, target < folder + LAST)
    rows = connection.execute(run_references.select().where(sa.or_(around, target.in_(ancestors(folder)))))
    return [(RunId(row.project, row.domain, row.run), row.target) for row in rows]


def scanned(tx: Transaction, run: RunId, size: int, targets: Iterable[str]) -> None:
    tx.connection.execute(runs.update().where(_is(runs, "name", run)).values(kept_bytes=size))
    rows = [{**_key(run), "target": target} for target in targets]
    if rows:
        tx.connection.execute(run_references.insert().prefix_with("OR IGNORE"), rows)


def begin(tx: Transaction, run: RunId) -> bool:
    """Takes the run out of sight, and notes that the rest has to go. False: it lives, or is gone."""
    connection = tx.connection
    found = connection.execute(
        sa.select(runs.c.base_uri).where(_is(runs, "name", run), runs.c.ended_at.is_not(None))
    ).first()
    lives = sa.select(sa.literal(1)).where(_is(actions, "run", run), actions.c.ended_at.is_(None)).limit(1)
    if found is None or connection.execute(lives).first() is not None:
        return False
    connection.execute(prunings.insert().prefix_with("OR IGNORE"), {**_key(run), "base_uri": found.base_uri})
    connection.execute(runs.delete().where(_is(runs, "name", run)))
    tx.known.clear()
    return True


def begun(connection: sa.Connection) -> list[tuple[RunId, str]]:
    """Runs that are being deleted, with their folders."""
    rows = connection.execute(prunings.select())
    return [(RunId(row.project, row.domain, row.run), row.base_uri) for row in rows]


def is_begun(connection: sa.Connection, run: RunId) -> bool:
    return _BEGUN.one(connection, _key(run)) is not None


def forget(tx: Transaction, run: RunId, limit: int) -> int:
    """Deletes at most so many of each of the run's rows; how many it were."""
    tx.known.clear()
    gone = 0
    for table in (actions, attempts, run_references):
        some: sa.Select[tuple[int]] = (
            sa.select(sa.literal_column("rowid", sa.Integer))
            .select_from(table)
            .where(_is(table, "run", run))
            .limit(limit)
        )
        gone += tx.connection.execute(table.delete().where(sa.literal_column("rowid").in_(some))).rowcount
    return gone


def finish(tx: Transaction, run: RunId) -> None:
    tx.connection.execute(prunings.delete().where(_is(prunings, "run", run)))


def rows_of(connection: sa.Connection, run: RunId) -> int:
    counts = (
        sa.select(sa.func.count()).select_from(table).where(_is(table, "run", run)) for table in (actions, attempts)
    )
    return 1 + sum(connection.execute(count).scalar_one() for count in counts)


def unused_specs(connection: sa.Connection) -> tuple[int, list[str]]:
    """Task specs that no row names, as of the revision that comes first."""
    revision = newest_revision(connection)
    named = sa.union(sa.select(actions.c.spec_digest), sa.select(tasks.c.spec_digest))
    found = sa.select(task_specs.c.digest).where(task_specs.c.digest.not_in(named))
    return revision, list(connection.execute(found).scalars())


def specs_without(connection: sa.Connection, gone: Collection[RunId]) -> set[int]:
    """Numbers of the task specs that no row would name if these runs were gone."""
    names = (actions.c.project, actions.c.domain, actions.c.run, actions.c.spec_digest)
    rows = connection.execute(sa.select(*names).distinct())
    named = {row.spec_digest for row in rows if RunId(row.project, row.domain, row.run) not in gone}
    named.update(connection.execute(sa.select(tasks.c.spec_digest)).scalars())
    numbers = connection.execute(sa.select(sa.literal_column("rowid", sa.Integer), task_specs.c.digest))
    return {row.rowid for row in numbers if row.digest not in named}


def delete_specs(tx: Transaction, digests: Sequence[str], since: int) -> int:
    """Deletes those that no row has named since that revision."""
    named = sa.union(sa.select(actions.c.spec_digest).where(actions.c.revision > since), sa.select(tasks.c.spec_digest))
    return tx.connection.execute(
        task_specs.delete().where(task_specs.c.digest.in_(digests), task_specs.c.digest.not_in(named))
    ).rowcount


def _is(table: sa.Table, name: str, run: RunId) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.project == run.project, table.c.domain == run.domain, table.c[name] == run.name)


def _key(run: RunId) -> dict[str, object]:
    return {"project": run.project, "domain": run.domain, "run": run.name}


def _run(row: "sa.Row[tuple[object, ...]]") -> FinishedRun:
    run = RunId(row.project, row.domain, row.name, row.org)
    return FinishedRun(run, row.base_uri, row.ended_at, row.kept_bytes or 0)
