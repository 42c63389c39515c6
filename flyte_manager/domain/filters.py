"""Filters, order and pages of lists, as data: stores turn them into queries over allow-listed columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from flyte_manager.domain.errors import Invalid

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


class Function(IntEnum):
    """Numbers as in flyteidl2.common.Filter.Function."""

    EQUAL = 0
    NOT_EQUAL = 1
    GREATER_THAN = 2
    GREATER_THAN_OR_EQUAL = 3
    LESS_THAN = 4
    LESS_THAN_OR_EQUAL = 5
    CONTAINS = 6
    VALUE_IN = 7
    VALUE_NOT_IN = 9
    ENDS_WITH = 12
    NOT_ENDS_WITH = 13
    CONTAINS_CASE_INSENSITIVE = 14
    EXISTS = 15
    NOT_EXISTS = 16


@dataclass(frozen=True, slots=True)
class Filter:
    field: str
    function: Function
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Order:
    field: str
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Query:
    """One page of a list. `offset` comes from the page token."""

    filters: Sequence[Filter] = ()
    order: Sequence[Order] = ()
    limit: int = LIMIT_DEFAULT
    offset: int = 0


class UnknownField(Invalid):
    """{field!r} is not a field to {verb} by: use one of {known}."""


class BadValue(Invalid):
    """{value!r} is not a value for field {field!r}: {rule}."""


class BadToken(Invalid):
    """page token {token!r} was not made by this manager: start with an empty one."""


class BadLimit(Invalid):
    """limit {limit} is too large: the most is {most}."""


def page(limit: int, token: str) -> tuple[int, int]:
    """(limit, offset) of a list request. Raises BadLimit, BadToken."""
    if limit > LIMIT_MAX:
        raise BadLimit(limit=limit, most=LIMIT_MAX)
    if token and not (token.isascii() and token.isdigit() and len(token) < 12):
        raise BadToken(token=token[:40])
    return limit or LIMIT_DEFAULT, int(token or 0)


def next_token(query: Query, found: int) -> str:
    """The next page's token; a list asks its store for one row more than the page holds."""
    return str(query.offset + query.limit) if found > query.limit else ""
