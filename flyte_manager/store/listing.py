"""Turns filters, orders and pages into SQL over an allow-list of columns."""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.actions import RunSource
from flyte_manager.domain.filters import BadValue, Filter, Function, Order, Query, UnknownField, key_of, key_token
from flyte_manager.domain.phases import Kind, Phase

Column = sa.ColumnElement[Any]
Parse = Callable[[str], object]
Row = Any
"""A named tuple of the statement's columns."""

LONGEST_VALUE = 1000
"""Characters; the longest name has 255, and SQLite refuses patterns that are much longer."""


@dataclass(frozen=True, slots=True)
class Type:
    """What a field's values are. `ranks` tells the order of values that are kept as names."""

    parse: Parse
    rule: str
    textual: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)


def _named(names: type[IntEnum], prefix: str) -> Parse:
    def parse(value: str) -> str:
        return names(int(value)).name if value.isdecimal() else names[value.removeprefix(prefix)].name

    return parse


def _ranks(names: type[IntEnum]) -> Mapping[str, int]:
    return {each.name: each.value for each in names}


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(value: str) -> int:
    number = int(value)
    if abs(number) >= 1 << 63:  # SQLite has no larger ones
        raise ValueError(value)
    return number


def _source(value: str) -> int:
    return RunSource[value.removeprefix("RUN_SOURCE_")] if value[:1].isalpha() else _number(value)


TEXT = Type(str, "a text", textual=True)
NUMBER = Type(_number, "a whole number")
MOMENT = Type(_moment, "a time such as 2026-11-23T09:00:00Z")
PHASE = Type(_named(Phase, "ACTION_PHASE_"), "a phase's number or name", ranks=_ranks(Phase))
KIND = Type(_named(Kind, "ACTION_TYPE_"), "an action type's number or name", ranks=_ranks(Kind))
SOURCE = Type(_source, "a run source's number or name")
FLAG = Type(lambda value: {"true": 1, "false": 0}[value.lower()], "true or false")
LABELS = Type(str, "a text", textual=True)
"""A column of JSON, whose entries are the fields `<name>.<key>`."""


@dataclass(frozen=True, slots=True)
class Field:
    column: Column
    type: Type = TEXT

    @property
    def sorted_by(self) -> Column:
        return sa.case(self.type.ranks, value=self.column) if self.type.ranks else self.column

    def comparable(self, parsed: object) -> object:
        """What `sorted_by` gives for this value."""
        return self.type.ranks[str(parsed)] if self.type.ranks else parsed


Fields = Mapping[str, Field]


def where(fields: Fields, filters: Sequence[Filter]) -> list[Column]:
    """One condition for each filter. Raises UnknownField, BadValue."""
    return [_condition(fields, each) for each in filters]


def duration(started: Column, ended: Column) -> Column:
    """Milliseconds between two columns of times, as `Action.duration_ms` counts them; NULL where one is."""

    def microseconds(column: Column) -> Column:
        text = sa.type_coerce(column, sa.Text)
        seconds = sa.cast(sa.func.strftime("%s", sa.func.substr(text, 1, 19)), sa.Integer)
        return seconds * 1_000_000 + sa.cast(sa.func.substr(text, 21, 6), sa.Integer)

    spent = microseconds(ended) - microseconds(started)
    return sa.type_coerce(sa.func.max(0, (spent + 500) // 1000), sa.Integer)


def paged(statement: "sa.Select[Any]", fields: Fields, query: Query) -> "sa.Select[Any]":
    """The statement with the query's filters, order and page; it selects one row more than the page holds."""
    statement = statement.where(*where(fields, list(query.filters)))
    for each in query.order:
        column = _field(fields, each.field, "sort").column
        statement = statement.order_by(column.desc() if each.descending else column.asc())
    return statement.limit(query.limit + 1).offset(query.offset)


def ordered(query: Query, *default: Order) -> Query:
    """The query with its own order, or the default, and the last of the default to break ties."""
    return Query(query.filters, (*query.order, default[-1]) if query.order else default, query.limit, query.offset)


class Pages:
    """A list that is paged by key. `default` is its order, down to the whole key of a row, which breaks ties."""

    def __init__(self, fields: Fields, *default: Order) -> None:
        self._fields = fields
        self._default = default

    def page(
        self,
        connection: sa.Connection,
        statements: Sequence["sa.Select[Any]"],
        query: Query,
        parameters: Mapping[str, object] | None = None,
    ) -> tuple[Sequence[Row], str]:
        """The page of all rows that the statements select (no row twice), and the next page's token. Raises
        UnknownField, BadValue, BadToken."""
        named = {each.field for each in query.order}
        order = (*query.order, *(each for each in self._default if each.field not in named))
        columns = [_field(self._fields, each.field, "sort") for each in order]
        conditions = where(self._fields, query.filters)
        if query.after:
            conditions.append(self._behind(query.after, order, columns))
        names = [f"sorted_by_{number}" for number in range(len(order))]
        labels = [each.sorted_by.label(name) for each, name in zip(columns, names, strict=True)]
        parts = [statement.add_columns(*labels).where(*conditions) for statement in statements]
        directions: list[sa.UnaryExpression[Any]] = [
            sa.desc(name) if each.descending else sa.asc(name) for each, name in zip(order, names, strict=True)
        ]
        whole = parts[0] if len(parts) == 1 else sa.union_all(*parts)
        limited = whole.order_by(*directions).limit(query.limit + 1).offset(query.offset)
        if not parts:
            return [], ""
        result = connection.execute(limited, parameters or {})
        make = _row_type(tuple(result.keys()))._make
        rows = [make(row) for row in result]
        if len(rows) <= query.limit:
            return rows, ""
        last = rows[query.limit - 1]
        return rows[: query.limit], key_token(order, [_text(getattr(last, name)) for name in names])

    def _behind(self, token: str, order: Sequence[Order], columns: Sequence[Field]) -> Column:
        """True of the rows that come after the key: each field decides where those before it are equal."""
        key = key_of(token, order)
        behind: Column = sa.false()
        for each, column, value in reversed(list(zip(order, columns, key, strict=True))):
            own = column.sorted_by
            if value is None:  # they come first in ascending order
                behind = sa.and_(own.is_(None), behind) if each.descending else sa.or_(own.is_not(None), behind)
                continue
            known = column.comparable(_parse(column, each.field, value))
            further = own < known if each.descending else own > known
            if each.descending and getattr(own, "nullable", True):
                behind = sa.or_(further, own.is_(None), sa.and_(own == known, behind))
            else:  # the same as "further, or equal and behind", but an index can begin there
                behind = sa.and_(own <= known if each.descending else own >= known, sa.or_(further, behind))
        return behind


@lru_cache(64)
def _row_type(names: tuple[str, ...]) -> Any:
    """SQLAlchemy's own rows look a name up at each access; a list's rows have thirty."""
    return namedtuple("row", names)


def _text(value: object) -> str | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if value is None else str(value)


def _field(fields: Fields, name: str, verb: str) -> Field:
    if name in fields and fields[name].type is not LABELS:
        return fields[name]
    prefix, _, key = name.partition(".")
    if key and '"' not in key and prefix in fields and fields[prefix].type is LABELS:
        return Field(sa.func.json_extract(fields[prefix].column, f'$."{key}"'), LABELS)
    known = (f"{each}.<key>" if found.type is LABELS else each for each, found in fields.items())
    raise UnknownField(field=name[:60], verb=verb, known=", ".join(sorted(known)))


def _condition(fields: Fields, asked: Filter) -> Column:
    found = _field(fields, asked.field, "filter")
    column = found.column
    match asked.function:
        case Function.EXISTS:
            return ~_missing(found)
        case Function.NOT_EXISTS:
            return _missing(found)
        case Function.VALUE_IN:
            return column.in_([_parse(found, asked.field, value) for value in asked.values])
        case Function.VALUE_NOT_IN:
            values = [_parse(found, asked.field, value) for value in asked.values]
            return sa.or_(column.is_(None), column.not_in(values))
    if len(asked.values) != 1:
        raise BadValue(value=list(asked.values)[:5], field=asked.field, rule=f"{asked.function.name} takes one value")
    if asked.function in _TEXTUAL:
        if not found.type.textual:
            raise BadValue(value=asked.function.name, field=asked.field, rule="only texts are searched")
        return _TEXTUAL[asked.function](column, str(_parse(found, asked.field, asked.values[0])))
    parsed = _parse(found, asked.field, asked.values[0])
    if asked.function in _EQUATING:
        return _EQUATING[asked.function](column, parsed)
    return _COMPARING[asked.function](found.sorted_by, found.comparable(parsed))


def _missing(found: Field) -> Column:
    return found.column == "" if found.type is TEXT else found.column.is_(None)


def _parse(found: Field, name: str, value: str) -> object:
    if len(value) > LONGEST_VALUE:
        raise BadValue(value=value[:60], field=name, rule=f"it takes at most {LONGEST_VALUE} characters")
    try:
        return found.type.parse(value)
    except (ValueError, KeyError, OverflowError):
        raise BadValue(value=value[:60], field=name, rule=f"it takes {found.type.rule}") from None


def _ends_with(column: Column, value: str) -> Column:
    return sa.func.substr(column, sa.func.length(column) - len(value) + 1) == value


_TEXTUAL: dict[Function, Callable[[Column, str], Column]] = {
    # LIKE ignores case in SQLite, so the case-sensitive forms look for the text itself
    Function.CONTAINS: lambda column, value: sa.func.instr(column, value) > 0,
    Function.CONTAINS_CASE_INSENSITIVE: lambda column, value: column.contains(value, autoescape=True),
    Function.ENDS_WITH: _ends_with,
    Function.NOT_ENDS_WITH: lambda column, value: ~_ends_with(column, value),
}
_EQUATING: dict[Function, Callable[[Column, object], Column]] = {
    Function.EQUAL: lambda column, value: column == value,
    # unlike !=, also true for what is not set
    Function.NOT_EQUAL: lambda column, value: column.is_distinct_from(value),
}
_COMPARING: dict[Function, Callable[[Column, object], Column]] = {
    Function.GREATER_THAN: lambda column, value: column > value,
    Function.GREATER_THAN_OR_EQUAL: lambda column, value: column >= value,
    Function.LESS_THAN: lambda column, value: column < value,
    Function.LESS_THAN_OR_EQUAL: lambda column, value: column <= value,
}
