"""Rows of table projects."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.catalog import Project
from flyte_manager.domain.filters import Order, Query
from flyte_manager.store.engine import Transaction
from flyte_manager.store.listing import MOMENT, NUMBER, Field, ordered, paged
from flyte_manager.store.tables import projects

FIELDS = {
    "id": Field(projects.c.id),
    "identifier": Field(projects.c.id),
    "name": Field(projects.c.name),
    "description": Field(projects.c.description),
    "state": Field(projects.c.state, NUMBER),
    "created_at": Field(projects.c.created_at, MOMENT),
    "updated_at": Field(projects.c.updated_at, MOMENT),
}


def insert(tx: Transaction, project: Project) -> None:
    tx.connection.execute(projects.insert(), _values(project))


def update(tx: Transaction, project: Project) -> None:
    tx.connection.execute(projects.update().where(projects.c.id == project.id), _values(project))


def get(connection: sa.Connection, project_id: str) -> Project | None:
    row = connection.execute(projects.select().where(projects.c.id == project_id)).one_or_none()
    return _project(row) if row else None


def ids(connection: sa.Connection) -> Sequence[str]:
    """Of all projects."""
    return list(connection.execute(sa.select(projects.c.id)).scalars())


def page(connection: sa.Connection, query: Query) -> Sequence[Project]:
    """One row more than the page holds, by id unless the query says otherwise."""
    statement = paged(projects.select(), FIELDS, ordered(query, Order("id", descending=False)))
    return [_project(row) for row in connection.execute(statement)]


def _values(project: Project) -> dict[str, object]:
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "labels": dict(project.labels),
        "state": project.state,
        "org": project.org,
        "created_at": project.created_at,
        "updated_at": project.updated_at,
    }


def _project(row: "sa.Row[Any]") -> Project:
    return Project(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        description=row.description,
        labels=row.labels,
        state=row.state,
        org=row.org,
    )
