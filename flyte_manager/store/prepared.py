"""The statements of every action's way, as text that goes straight to SQLite: SQLAlchemy's own execution of one costs
ten times what SQLite does for it.

They are written in SQLAlchemy's language all the same, and values are turned by the types of their columns; only all
that can be found out about a statement beforehand is found out once, at its first use.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

_DIALECT = sqlite.dialect(paramstyle="qmark")
_Turn = Callable[[Any], Any]


class Prepared:
    """One statement. `columns`: those that an INSERT or UPDATE sets, where not all. `make`: what makes a row of its
    values, where not a tuple by the names of its columns."""

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert | sa.Update,
        *columns: str,
        make: Callable[[Sequence[Any]], Any] | None = None,
    ) -> None:
        self._statement = statement
        self._columns = columns or None
        self._make = make

    def one(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any | None:
        """The first row."""
        row = self._execute(connection, values).fetchone()
        return None if row is None else self._row(row)

    def all(self, connection: sa.Connection, values: Mapping[str, Any]) -> Sequence[Any]:
        return [self._row(row) for row in self._execute(connection, values).fetchall()]

    def write(self, connection: sa.Connection, values: Mapping[str, Any]) -> None:
        """There may be values that the statement doesn't name."""
        self._execute(connection, values)

    def _execute(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        text, given, turns = self._compiled
        if given:
            values = {**given, **values}
        turned = [values[name] if turn is None else turn(values[name]) for name, turn in turns]
        return driver(connection).execute(text, turned)

    def _row(self, row: Sequence[Any]) -> Any:
        make, turns = self._result
        values = list(row)
        for place, turn in turns:
            values[place] = turn(values[place])
        return make(values)

    @cached_property
    def _compiled(self) -> tuple[str, Mapping[str, Any], Sequence[tuple[str, _Turn | None]]]:
        """Text, values that the statement itself brings, and for each place in it a value's name and what turns it into
        one that SQLite keeps."""
        compiled = self._statement.compile(dialect=_DIALECT, column_keys=self._columns)
        names = compiled.positiontup or ()
        turns = [(name, _impl(compiled.binds[name].type).bind_processor(_DIALECT)) for name in names]
        given = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        return str(compiled), given, turns

    @cached_property
    def _result(self) -> tuple[Callable[[Sequence[Any]], Any], Sequence[tuple[int, _Turn]]]:
        """What makes a row, and what turns its values back."""
        assert isinstance(self._statement, sa.Select)
        columns = self._statement.selected_columns
        turns = [_impl(column.type).result_processor(_DIALECT, None) for column in columns]
        row = namedtuple("row", [column.name for column in columns])  # type: ignore[misc]
        return self._make or row._make, [(place, turn) for place, turn in enumerate(turns) if turn is not None]


def driver(connection: sa.Connection) -> Any:
    """The connection of sqlite3 beneath."""
    return connection.connection.driver_connection


def _impl(kind: "sa.types.TypeEngine[Any]") -> "sa.types.TypeEngine[Any]":
    return kind.dialect_impl(_DIALECT)
