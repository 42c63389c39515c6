"""Rows of tables tasks and task_specs. A spec is kept once, by its digest."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.catalog import DeployedTask
from flyte_manager.store.engine import Transaction
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import task_specs, tasks

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
    statement = tasks.select().where(
        tasks.c.project == name.project,
        tasks.c.domain == name.domain,
        tasks.c.name == name.name,
        tasks.c.version == name.version,
    )
    row = connection.execute(statement).one_or_none()
    return task_of(row) if row else None


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
        "deployed_by": task.deployed_by or None,
        "deployed_by_subject": task.deployed_by_subject,
        "environment_description": task.environment_description,
    }


def task_of(row: "sa.Row[Any]") -> DeployedTask:
    return DeployedTask(
        name=TaskName(row.project, row.domain, row.name, row.version, row.org),
        spec_digest=row.spec_digest,
        created_at=row.created_at,
        short_name=row.short_name,
        environment=row.environment,
        description=row.description,
        environment_description=row.environment_description,
        entrypoint=bool(row.entrypoint),
        deployed_by=row.deployed_by or b"",
        deployed_by_subject=row.deployed_by_subject,
    )
