"""Filters, order and pages of lists, as data: stores turn them into queries over allow-listed columns.

A list that grows is paged by key: its token holds what the last row of the page was sorted by, so that rows which come
between two pages neither repeat one nor hide one. A token that is a number is an offset, as upstream's are.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from flyte_manager.domain.errors import Invalid

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
LONGEST_TOKEN = 8192


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
    """One page of a list. `offset` or `after` comes from the page token."""

    filters: Sequence[Filter] = ()
    order: Sequence[Order] = ()
    limit: int = LIMIT_DEFAULT
    offset: int = 0
    after: str = ""
    """a token by key; `key_of` reads it"""


class UnknownField(Invalid):
    """{field!r} is not a field to {verb} by: use one of {known}."""


class BadValue(Invalid):
    """{value!r} is not a value for field {field!r}: {rule}."""


class BadToken(Invalid):
    """page token {token!r} was not made by this manager for this list and order: start with an empty one."""


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


Key = Sequence[str | None]
"""What one row is sorted by, as texts."""


def key_token(order: Sequence[Order], key: Key) -> str:
    """The token of the page behind the row with that key."""
    content = json.dumps([_names(order), list(key)], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def key_of(token: str, order: Sequence[Order]) -> Key:
    """What `key_token` wrote. Raises BadToken, also for a token of a list in another order."""
    try:
        if len(token) > LONGEST_TOKEN:
            raise ValueError
        found = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        names, key = found
        if names != _names(order) or len(key) != len(order):
            raise ValueError
        if not all(value is None or isinstance(value, str) for value in key):
            raise ValueError
        "".join(value or "" for value in key).encode()  # half of a surrogate pair is no text for a store
    except (ValueError, TypeError, RecursionError):
        raise BadToken(token=token[:40]) from None
    return list(key)


def _names(order: Sequence[Order]) -> list[str]:
    return [("-" if each.descending else "+") + each.field for each in order]
