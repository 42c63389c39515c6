"""Brings the database file to the present schema, or says what is wrong with it. Nothing is ever dropped.

absent, empty ──▶ all migrations       older ──▶ the missing ones, in one transaction
present schema ─▶ nothing, and alembic isn't even imported
newer, foreign, damaged, not SQLite, not writable ──▶ MigrationsFailed, the file stays as it was
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from flyte_manager.domain.errors import Unready
from flyte_manager.store.faults import meaning

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""All schema revisions, oldest first: the names in migrations/versions."""

log = logging.getLogger(__name__)


class MigrationsFailed(Unready):
    """failed to run migrations: {problem}: {cure}."""


class NotYetMade(Unready):
    """there is no database {file} yet: a manager makes it at its first start; database.sqlite.file names another."""


def inspect_file(file: Path) -> None:
    """Checks what can be told without SQLite. Raises MigrationsFailed."""
    if not file.parent.is_dir():
        raise MigrationsFailed(
            problem=f"the folder {file.parent} of the database {file} does not exist",
            cure="make it, or give database.sqlite.file another path",
        )
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unopened(file, error) from error


def unopened(file: Path, error: OSError) -> MigrationsFailed:
    """The refusal for a file that the system doesn't let us open."""
    return MigrationsFailed(
        problem=f"{error.filename or file} can't be opened for reading and writing ({error.strerror})",
        cure=f"let the manager's user read and write {file} and its folder, or give database.sqlite.file another path",
    )


@contextmanager
def in_words(file: Path) -> Iterator[None]:
    """Turns errors of SQLite at the start into MigrationsFailed."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        reason, cure = meaning(error, file) or (
            f"can't be brought up to date ({getattr(error, 'orig', error)})",
            "nothing was changed, so go on with the version of the manager that made it, and report this",
        )
        raise MigrationsFailed(problem=f"the database {file} {reason}", cure=cure) from error


def upgrade(connection: sa.Connection, file: Path) -> None:
    """Migrates the schema and turns the write-ahead log on. Raises MigrationsFailed."""
    found = _revision(connection, file)
    # Not by SQLAlchemy, which would begin a transaction: the journal mode can't change within one.
    (mode,) = connection.connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise MigrationsFailed(
            problem=f"the file system of {file} does not support SQLite's write-ahead log",
            cure="give database.sqlite.file a path on a local disk",
        )
    if found != REVISIONS[-1]:
        if found is not None:
            log.info("the schema of %s is brought from %s to %s: some 5 s a million runs", file, found, REVISIONS[-1])
        # Alembic takes longer to import than all else at a start takes together: only those pay who need it.
        migrations = import_module("flyte_manager.store.migrations")
        with connection.begin():
            migrations.run(connection)


def present(connection: sa.Connection, file: Path) -> None:
    """Checks that the file has the present schema. Raises MigrationsFailed, NotYetMade."""
    found = _revision(connection, file)
    if found is None:
        raise NotYetMade(file=file)
    if found != REVISIONS[-1]:
        raise MigrationsFailed(
            problem=f"the database {file} has the older schema {found}",
            cure="start this version of the manager once, which brings it up to date",
        )


def _revision(connection: sa.Connection, file: Path) -> str | None:
    """The schema revision that the file holds; None for an empty database."""
    with connection.begin():
        names = {row.name for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
        held = (
            connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            if "alembic_version" in names
            else None
        )
    tables = sorted(name for name in names if not name.startswith("sqlite_") and name != "alembic_version")
    if held is None and tables:
        raise MigrationsFailed(
            problem=f"{file} holds tables that this manager did not make ({', '.join(tables[:5])}), "
            "as the original manager written in Go leaves them",
            cure=f"move the file away (`mv {file} {file}.old`; nothing in it was changed), "
            "or give database.sqlite.file another path",
        )
    if held is not None and held not in REVISIONS:
        raise MigrationsFailed(
            problem=f"{file} was made by another, probably newer version of the manager (schema {held}, "
            f"this version knows up to {REVISIONS[-1]})",
            cure="install that version, or give database.sqlite.file another path",
        )
    return held
