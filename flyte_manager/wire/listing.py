"""List requests."""

from flyteidl2.common import list_pb2

from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.filters import Filter, Function, Order, Query, page


class UnknownFunction(Invalid):
    """filter function {number} is not known: use one of flyteidl2.common.Filter.Function."""


class RawFilters(Invalid):
    """raw_filters are not read: use filters, with field, function and values."""


def query(request: list_pb2.ListRequest) -> Query:
    """Filters, order and page. Raises an Invalid refusal that names what is wrong."""
    if request.raw_filters:
        raise RawFilters
    limit, offset = page(request.limit, request.token)
    sorts = list(request.sort_by_fields) or ([request.sort_by] if request.sort_by.key else [])
    order = tuple(Order(sort.key, sort.direction == list_pb2.Sort.DESCENDING) for sort in sorts)
    return Query(tuple(_filter(each) for each in request.filters), order, limit, offset)


def _filter(proto: list_pb2.Filter) -> Filter:
    try:
        function = Function(proto.function)
    except ValueError:
        raise UnknownFunction(number=proto.function) from None
    return Filter(proto.field, function, tuple(proto.values))
