"""Rows of table secrets. Values are sealed before they come here."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.catalog import SealedSecret, SecretName
from flyte_manager.store.engine import Transaction
from flyte_manager.store.tables import secrets


def insert(tx: Transaction, secret: SealedSecret) -> None:
    tx.connection.execute(secrets.insert(), _values(secret))


def update(tx: Transaction, secret: SealedSecret) -> None:
    tx.connection.execute(secrets.update().where(_is(secret.id)), _values(secret))


def delete(tx: Transaction, name: SecretName) -> bool:
    """Whether there was one."""
    return tx.connection.execute(secrets.delete().where(_is(name))).rowcount > 0


def get(connection: sa.Connection, name: SecretName) -> SealedSecret | None:
    row = connection.execute(secrets.select().where(_is(name))).one_or_none()
    return _secret(row) if row else None


def page(connection: sa.Connection, scope: SecretName, limit: int, offset: int) -> Sequence[SealedSecret]:
    """One row more than `limit`, by name: all that tasks in the scope can see (an empty part of it means any)."""
    statement = secrets.select().order_by(secrets.c.name, secrets.c.domain, secrets.c.project)
    if scope.domain:
        statement = statement.where(secrets.c.domain.in_(("", scope.domain)))
    if scope.project:
        statement = statement.where(secrets.c.project.in_(("", scope.project)))
    return [_secret(row) for row in connection.execute(statement.limit(limit + 1).offset(offset))]


def _is(name: SecretName) -> sa.ColumnElement[bool]:
    return sa.and_(secrets.c.project == name.project, secrets.c.domain == name.domain, secrets.c.name == name.name)


def _values(secret: SealedSecret) -> dict[str, object]:
    return {
        "project": secret.id.project,
        "domain": secret.id.domain,
        "name": secret.id.name,
        "org": secret.id.org,
        "type": secret.type,
        "sealed": secret.sealed,
        "created_at": secret.created_at,
        "updated_at": secret.updated_at,
    }


def _secret(row: "sa.Row[Any]") -> SealedSecret:
    return SealedSecret(
        id=SecretName(row.name, row.project, row.domain, row.org),
        type=row.type,
        sealed=row.sealed,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
