"""What SQLite's failures mean to the person who runs the manager, and what to do about each."""

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from flyte_manager.domain.errors import Refusal, Unavailable


class DatabaseUnusable(Unavailable):
    """the database {file} {reason}: {cure}."""


class DatabaseMoved(Unavailable):
    """the database {file} was moved, replaced or deleted while this manager serves it: put it back, or start the
    manager again."""


class DatabaseClosed(Unavailable):
    """the manager is stopping: try again in a moment."""


_LOCKED = ("is locked by another program", "end the program that holds it (`fuser {file}` names it)")
_READ_ONLY = ("may only be read", "let the manager's user write {file} and its folder")

_MEANINGS = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: ("can't be opened", "let the manager's user read and write {file} and its folder"),
    sqlite3.SQLITE_FULL: ("has no space left", "free some on the disk of {folder}"),
    sqlite3.SQLITE_IOERR: ("can't be read or written", "look after the disk of {folder} (space, quota, health)"),
    sqlite3.SQLITE_NOTADB: (
        "is not an SQLite database",
        "move the file away, or give database.sqlite.file another path",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "is damaged",
        "stop the manager, then put a backup in its place or save what `sqlite3 {file} .recover` can read",
    ),
}


def busy(error: BaseException) -> bool:
    """Whether the error says no more than that another program holds the database's lock."""
    return _MEANINGS.get(_code(error)) is _LOCKED


def meaning(error: BaseException, file: Path) -> tuple[str, str] | None:
    """(what the file is or does, cure) of an error that comes from the file or its disk; None for any other error."""
    known = _MEANINGS.get(_code(error))
    if known is None:
        return None
    return known[0], known[1].format(file=file, folder=file.parent)


def explained(error: BaseException, file: Path) -> BaseException:
    """The error as its caller shall see it: a sentence when the file or its disk is at fault, else unchanged."""
    found = None if isinstance(error, Refusal) else meaning(error, file)
    if found is None:
        return error
    refusal = DatabaseUnusable(file=file, reason=found[0], cure=found[1])
    refusal.__cause__ = error
    return refusal


def _code(error: BaseException) -> int:
    """SQLite's primary result code, 0 for what isn't SQLite's error."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return (getattr(origin, "sqlite_errorcode", None) or 0) & 0xFF
