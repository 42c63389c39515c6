"""Rows of tables tasks and task_specs. A spec is kept once, by its digest."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.catalog import DeployedTask
from flyte_manager.domain.filters import Order, Query
from flyte_manager.domain.ids import ProjectId
from flyte_manager.store.engine import Transaction
from flyte_manager.store.listing import FLAG, MOMENT, Field, ordered, paged, where
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import task_specs, tasks

FIELDS = {
    "name": Field(tasks.c.name),
    "task_name": Field(tasks.c.name),
    "version": Field(tasks.c.version),
    "project": Field(tasks.c.project),
    "domain": Field(tasks.c.domain),
    "short_name": Field(tasks.c.short_name),
    "environment": Field(tasks.c.environment),
    "environment_name": Field(tasks.c.environment),
    "is_entrypoint": Field(tasks.c.entrypoint, FLAG),
    "created_at": Field(tasks.c.created_at, MOMENT),
}

_KEEP_SPEC = Prepared(sqlite.insert(task_specs).on_conflict_do_nothing())
_SPEC = Prepared(task_specs.select().where(task_specs.c.digest == sa.bindparam("digest")))


def keep_spec(tx: Transaction, digest: str, spec: bytes) -> None:
    _KEEP_SPEC.write(tx.connection, {"digest": digest, "spec": spec})


def spec(connection: sa.Connection, digest: str) -> bytes | None:
    found = _SPEC.one(connection, {"digest": digest})
    return None if found is None else bytes(found.spec)


def insert(tx: Transaction, task: DeployedTask) -> None:
    tx.connection.execute(tasks.insert(), _values(task))


def get(connection: sa.Connection, name: TaskName) -> DeployedTask | None:
    statement = tasks.select().where(*_scope(name.project, name.domain), tasks.c.name == name.name)
    row = connection.execute(statement.where(tasks.c.version == name.version)).one_or_none()
    return _task(row) if row else None


def versions(connection: sa.Connection, name: TaskName, query: Query) -> Sequence[DeployedTask]:
    """One row more than the page holds, newest first unless the query says otherwise."""
    statement = tasks.select().where(*_scope(name.project, name.domain), tasks.c.name == name.name)
    return [_task(row) for row in connection.execute(paged(statement, FIELDS, ordered(query, *_NEWEST)))]


def latest(connection: sa.Connection, scope: ProjectId | None, query: Query) -> tuple[Sequence[DeployedTask], int]:
    """The newest version of each task that matches (one row more than the page holds), and how many tasks match."""
    ranked = sa.func.row_number().over(
        partition_by=(tasks.c.project, tasks.c.domain, tasks.c.name),
        order_by=(tasks.c.created_at.desc(), tasks.c.version.desc()),
    )
    inner = sa.select(tasks, ranked.label("place"))
    if scope is not None:
        inner = inner.where(*_scope(scope.project, scope.domain))
    newest = inner.where(*where(FIELDS, list(query.filters))).subquery()
    fields = {name: Field(newest.c[field.column.key or name], field.type) for name, field in FIELDS.items()}
    unfiltered = Query((), query.order, query.limit, query.offset)
    statement = paged(newest.select().where(newest.c.place == 1), fields, ordered(unfiltered, *_NEWEST))
    total = sa.select(sa.func.count()).select_from(newest).where(newest.c.place == 1)
    return [_task(row) for row in connection.execute(statement)], connection.execute(total).scalar_one()


_NEWEST = (Order("created_at"), Order("name", descending=False))


def _scope(project: str, domain: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return tasks.c.project == project, tasks.c.domain == domain


def _values(task: DeployedTask) -> dict[str, object]:
    return {
        "project": task.name.project,
        "domain": task.name.domain,
        "name": task.name.name,
        "version": task.name.version,
        "org": task.name.org,
        "short_name": task.short_name,
        "environment": task.environment,
        "description": task.description,
        "entrypoint": task.entrypoint,
        "spec_digest": task.spec_digest,
        "created_at": task.created_at,
    }


def _task(row: "sa.Row[Any]") -> DeployedTask:
    return DeployedTask(
        name=TaskName(row.project, row.domain, row.name, row.version, row.org),
        spec_digest=row.spec_digest,
        created_at=row.created_at,
        short_name=row.short_name,
        environment=row.environment,
        description=row.description,
        entrypoint=bool(row.entrypoint),
    )
