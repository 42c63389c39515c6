"""Turns filters and orders into SQL over an allow-list of columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.filters import BadValue, Filter, Function, Order, Query, UnknownField
from flyte_manager.domain.phases import Kind, Phase

Column = sa.ColumnElement[Any]
Parse = Callable[[str], object]


def _phase(value: str) -> str:
    return Phase(int(value)).name if value.isdecimal() else Phase[value.removeprefix("ACTION_PHASE_")].name


def _kind(value: str) -> str:
    return Kind(int(value)).name if value.isdecimal() else Kind[value.removeprefix("ACTION_TYPE_")].name


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(value: str) -> int:
    number = int(value)
    if abs(number) >= 1 << 63:  # SQLite has no larger ones
        raise ValueError(value)
    return number


TEXT: tuple[Parse, str] = (str, "a text")
NUMBER: tuple[Parse, str] = (_number, "a whole number")
MOMENT: tuple[Parse, str] = (_moment, "a time such as 2026-11-23T09:00:00Z")
PHASE: tuple[Parse, str] = (_phase, "a phase's number or name")
KIND: tuple[Parse, str] = (_kind, "an action type's number or name")
FLAG: tuple[Parse, str] = (lambda value: {"true": True, "false": False}[value.lower()], "true or false")


@dataclass(frozen=True, slots=True)
class Field:
    column: Column
    type: tuple[Parse, str] = TEXT


Fields = Mapping[str, Field]


def where(fields: Fields, filters: "tuple[Filter, ...] | list[Filter]") -> list[Column]:
    """One condition for each filter. Raises UnknownField, BadValue."""
    return [_condition(fields, each) for each in filters]


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


def _field(fields: Fields, name: str, verb: str) -> Field:
    if name not in fields:
        raise UnknownField(field=name[:60], verb=verb, known=", ".join(sorted(fields)))
    return fields[name]


def _condition(fields: Fields, asked: Filter) -> Column:
    field = _field(fields, asked.field, "filter")
    column = field.column
    match asked.function:
        case Function.EXISTS:
            return ~_missing(field)
        case Function.NOT_EXISTS:
            return _missing(field)
        case Function.VALUE_IN:
            return column.in_([_parse(field, asked.field, value) for value in asked.values])
        case Function.VALUE_NOT_IN:
            values = [_parse(field, asked.field, value) for value in asked.values]
            return sa.or_(column.is_(None), column.not_in(values))
    if len(asked.values) != 1:
        raise BadValue(value=list(asked.values), field=asked.field, rule=f"{asked.function.name} takes one value")
    if asked.function in _TEXTUAL:
        if field.type is not TEXT:
            raise BadValue(value=asked.function.name, field=asked.field, rule="only texts are searched")
        return _TEXTUAL[asked.function](column, asked.values[0])
    return _COMPARING[asked.function](column, _parse(field, asked.field, asked.values[0]))


def _missing(field: Field) -> Column:
    return field.column == "" if field.type is TEXT else field.column.is_(None)


def _parse(field: Field, name: str, value: str) -> object:
    parse, rule = field.type
    try:
        return parse(value)
    except (ValueError, KeyError, OverflowError):
        raise BadValue(value=value[:60], field=name, rule=f"it takes {rule}") from None


_TEXTUAL: dict[Function, Callable[[Column, str], Column]] = {
    # LIKE ignores case in SQLite, so the case-sensitive form looks for the text itself
    Function.CONTAINS: lambda column, value: sa.func.instr(column, value) > 0,
    Function.CONTAINS_CASE_INSENSITIVE: lambda column, value: column.icontains(value, autoescape=True),
    Function.ENDS_WITH: lambda column, value: column.endswith(value, autoescape=True),
    Function.NOT_ENDS_WITH: lambda column, value: ~column.endswith(value, autoescape=True),
}
_COMPARING: dict[Function, Callable[[Column, object], Column]] = {
    Function.EQUAL: lambda column, value: column == value,
    # unlike !=, also true for what is not set
    Function.NOT_EQUAL: lambda column, value: column.is_distinct_from(value),
    Function.GREATER_THAN: lambda column, value: column > value,
    Function.GREATER_THAN_OR_EQUAL: lambda column, value: column >= value,
    Function.LESS_THAN: lambda column, value: column < value,
    Function.LESS_THAN_OR_EQUAL: lambda column, value: column <= value,
}
