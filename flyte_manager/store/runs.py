"""Rows of table runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.actions import Action, Run, TaskName
from flyte_manager.domain.filters import Order, Query
from flyte_manager.domain.ids import ProjectId, RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.engine import Transaction
from flyte_manager.store.listing import MOMENT, NUMBER, PHASE, Field, ordered, paged
from flyte_manager.store.tables import actions, runs

FIELDS = {
    "name": Field(runs.c.name),
    "run_name": Field(runs.c.name),
    "project": Field(runs.c.project),
    "domain": Field(runs.c.domain),
    "phase": Field(runs.c.phase, PHASE),
    "task_name": Field(runs.c.task_name),
    "task_version": Field(runs.c.task_version),
    "run_source": Field(runs.c.source, NUMBER),
    "created_at": Field(runs.c.created_at, MOMENT),
    "started_at": Field(runs.c.started_at, MOMENT),
    "ended_at": Field(runs.c.ended_at, MOMENT),
}
NEWEST = (Order("created_at"), Order("name"))


def insert(tx: Transaction, run: Run) -> None:
    tx.connection.execute(runs.insert(), {**_values(run), "revision": tx.revision})


_MIRROR = (
    runs.update()
    .where(
        runs.c.project == sa.bindparam("_project"),
        runs.c.domain == sa.bindparam("_domain"),
        runs.c.name == sa.bindparam("_name"),
    )
    .values(
        phase=sa.bindparam("_phase"),
        started_at=sa.bindparam("_started"),
        ended_at=sa.bindparam("_ended"),
        revision=sa.bindparam("_revision"),
    )
)


def mirror(tx: Transaction, root: Action) -> None:
    """Shows the root action's progress in the run's row."""
    run = root.id.run
    tx.connection.execute(
        _MIRROR,
        {
            "_project": run.project,
            "_domain": run.domain,
            "_name": run.name,
            "_phase": root.phase.name,
            "_started": root.started_at,
            "_ended": root.ended_at,
            "_revision": tx.revision,
        },
    )


_GET = runs.select().where(
    *(runs.c[column] == sa.bindparam(f"key_{column}") for column in ("project", "domain", "name"))
)


def get(connection: sa.Connection, run: RunId) -> Run | None:
    key = {"key_project": run.project, "key_domain": run.domain, "key_name": run.name}
    row = connection.execute(_GET, key).one_or_none()
    return _run(row) if row else None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which runs a list is about; an empty part means any."""

    project: ProjectId | None = None
    task_name: str = ""
    task_version: str = ""
    paused: bool = False
    """only runs that wait for the answer to a condition"""


_PAUSED = sa.exists().where(
    actions.c.project == runs.c.project,
    actions.c.domain == runs.c.domain,
    actions.c.run == runs.c.name,
    actions.c.phase == Phase.PAUSED.name,
)


def page(connection: sa.Connection, scope: Scope, query: Query) -> Sequence[Run]:
    """One row more than the page holds, newest first unless the query says otherwise."""
    statement = runs.select()
    if scope.project is not None:
        statement = statement.where(runs.c.project == scope.project.project, runs.c.domain == scope.project.domain)
    if scope.task_name:
        statement = statement.where(runs.c.task_name == scope.task_name)
    if scope.task_version:
        statement = statement.where(runs.c.task_version == scope.task_version)
    if scope.paused:
        statement = statement.where(_PAUSED)
    return [_run(row) for row in connection.execute(paged(statement, FIELDS, ordered(query, *NEWEST)))]


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
    }


def _run(row: "sa.Row[Any]") -> Run:
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
        started_at=row.started_at,
        ended_at=row.ended_at,
        revision=row.revision,
    )
