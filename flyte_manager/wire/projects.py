"""Projects, and the small language of their filters: `eq(state,1)+contains(name,foo)+value_in(id,a;b)`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from flyteidl2.common import list_pb2
from flyteidl2.project import project_service_pb2 as pb
from flyteidl2.task import run_pb2

from flyte_manager.domain.catalog import Project
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.filters import Filter, Function, Order, Query, next_token, page
from flyte_manager.domain.ids import check_org

_FUNCTIONS = {
    "eq": Function.EQUAL,
    "ne": Function.NOT_EQUAL,
    "gt": Function.GREATER_THAN,
    "gte": Function.GREATER_THAN_OR_EQUAL,
    "lt": Function.LESS_THAN,
    "lte": Function.LESS_THAN_OR_EQUAL,
    "contains": Function.CONTAINS,
    "value_in": Function.VALUE_IN,
}
_TERM = re.compile(r"\s*(?P<function>\w+)\(\s*(?P<field>\w+)\s*,\s*(?P<values>[^()]*?)\s*\)\s*(?P<plus>\+|$)")
UNLIMITED = (1 << 32) - 1

_NOT_ARCHIVED = Filter("state", Function.NOT_EQUAL, [str(pb.PROJECT_STATE_ARCHIVED)])


class BadFilter(Invalid):
    """filters can't be read from {rest!r} on: write them as eq(state,1)+contains(name,foo), with the functions
    {known}."""


class DomainsGiven(Invalid):
    """a project's domains are the same for all projects ({domains}): leave them out."""


def project(proto: pb.Project, domains: Mapping[str, str], *, at: datetime) -> Project:
    """The project as a client wants it to be. Raises IllegalName, DomainsGiven when it wants other domains."""
    check_org(proto.org)
    if any(domain.id not in domains for domain in proto.domains):
        raise DomainsGiven(domains=", ".join(domains))
    return Project(
        id=proto.id,
        name=proto.name,
        created_at=at,
        updated_at=at,
        description=proto.description,
        labels=dict(proto.labels.values),
        state=proto.state,
        org=proto.org,
    )


def project_proto(record: Project, domains: Mapping[str, str]) -> pb.Project:
    return pb.Project(
        id=record.id,
        name=record.name,
        domains=[pb.Domain(id=domain, name=name) for domain, name in domains.items()],
        description=record.description,
        labels=run_pb2.Labels(values=record.labels),
        state=pb.ProjectState.Name(record.state),
        org=record.org,
    )


def projects_proto(found: Sequence[Project], domains: Mapping[str, str], query: Query) -> pb.Projects:
    """A page of a list, which was asked for one more than it holds."""
    shown = [project_proto(each, domains) for each in found[: query.limit]]
    return pb.Projects(projects=shown, token=next_token(query, len(found)))


def project_query(request: pb.ListProjectsRequest) -> Query:
    """Without filters, archived projects are left out; without a limit, all come. Raises BadFilter, BadToken."""
    _, offset = page(0, request.token)
    limit = request.limit or UNLIMITED
    filters = tuple(_filters(request.filters)) or (_NOT_ARCHIVED,)
    sort = request.sort_by
    order = (Order(sort.key, sort.direction == list_pb2.Sort.DESCENDING),) if sort.key else ()
    return Query(filters, order, limit, offset)


def _filters(text: str) -> Iterator[Filter]:
    at = 0
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or term["function"] not in _FUNCTIONS or (term["plus"] and term.end() == len(text)):
            raise BadFilter(rest=text[at : at + 40], known=", ".join(_FUNCTIONS))
        function = _FUNCTIONS[term["function"]]
        values = term["values"].split(";") if function is Function.VALUE_IN else [term["values"]]
        yield Filter(term["field"], function, [value.strip() for value in values])
        at = term.end()
