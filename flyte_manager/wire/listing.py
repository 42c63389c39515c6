"""List requests."""

from flyteidl2.common import list_pb2

from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.filters import Filter, Function, Order, Query, page

MOST_FILTERS = 50
MOST_VALUES = 1000
MOST_SORTS = 10


class UnknownFunction(Invalid):
    """filter function {number} is not known: use one of flyteidl2.common.Filter.Function."""


class RawFilters(Invalid):
    """raw_filters are not read: use filters, with field, function and values."""


class TooMuch(Invalid):
    """a list takes at most {most} {what}, not {given}: ask for less at a time."""


def query(request: list_pb2.ListRequest) -> Query:
    """Filters, order and page. Raises an Invalid refusal that names what is wrong."""
    if request.raw_filters:
        raise RawFilters
    sorts = list(request.sort_by_fields) or ([request.sort_by] if request.sort_by.key else [])
    for what, most, given in (
        ("filters", MOST_FILTERS, len(request.filters)),
        ("values of filters", MOST_VALUES, sum(len(each.values) for each in request.filters)),
        ("fields to sort by", MOST_SORTS, len(sorts)),
    ):
        if given > most:
            raise TooMuch(what=what, most=most, given=given)
    by_key = bool(request.token) and not request.token.isdigit()
    limit, offset = page(request.limit, "" if by_key else request.token)
    order = tuple(Order(sort.key, sort.direction == list_pb2.Sort.DESCENDING) for sort in sorts)
    filters = tuple(_filter(each) for each in request.filters)
    return Query(filters, order, limit, offset, request.token if by_key else "")


def _filter(proto: list_pb2.Filter) -> Filter:
    try:
        function = Function(proto.function)
    except ValueError:
        raise UnknownFunction(number=proto.function) from None
    return Filter(proto.field, function, tuple(proto.values))
