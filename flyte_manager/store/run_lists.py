"""Runs by what one asks for: pages of a list, those that changed, those that wait for an answer.

Newest first is what every index of `runs` ends with, so that a page costs what it holds, however many runs there are.
A project's list of some phases, or of some users, is one walk of `runs_by_phase` or `runs_by_user` for each of them,
merged by SQLite: one walk over them all could pass a million runs of others. No index is of all projects' phases or
users: there one walk passes the others once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.filters import Filter, Function, Order, Query
from flyte_manager.domain.ids import ROOT, ProjectId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownRun
from flyte_manager.store.listing import KIND, LABELS, MOMENT, NUMBER, PHASE, SOURCE, Field, Pages, where
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.shown import ROW_OF_RUN, shown_runs
from flyte_manager.store.tables import actions, runs

PAGE = 500
"""Rows that a watcher reads at once."""


def _of_root(column: str) -> "sa.ColumnElement[Any]":
    """What only the root action's row has."""
    root = sa.select(actions.c[column]).where(
        actions.c.project == runs.c.project,
        actions.c.domain == runs.c.domain,
        actions.c.run == runs.c.name,
        actions.c.name == ROOT,
    )
    return root.correlate(runs).scalar_subquery()  # also in a query that reads actions itself


NO_TRIGGER = {
    "trigger_name": Field(sa.literal("")),
    "trigger_task_name": Field(sa.literal("")),
    "trigger_type": Field(sa.literal("")),
    "trigger_revision": Field(sa.type_coerce(sa.null(), sa.Integer), NUMBER),
}
"""There are no triggers yet: nothing was made by one."""

FIELDS = {
    "name": Field(runs.c.name),
    "run_name": Field(runs.c.name),
    "project": Field(runs.c.project),
    "domain": Field(runs.c.domain),
    "phase": Field(runs.c.phase, PHASE),
    "action_type": Field(sa.literal(Kind.TASK.name), KIND),
    "run_source": Field(runs.c.source, SOURCE),
    "created_by": Field(runs.c.created_by_subject),
    "created_by_subject": Field(runs.c.created_by_subject),
    "labels": Field(runs.c.labels, LABELS),
    "task_project": Field(_of_root("task_project")),
    "task_domain": Field(_of_root("task_domain")),
    "task_name": Field(runs.c.task_name),
    "task_version": Field(runs.c.task_version),
    "function_name": Field(_of_root("function")),
    "environment_name": Field(_of_root("environment")),
    "created_at": Field(runs.c.created_at, MOMENT),
    "updated_at": Field(runs.c.updated_at, MOMENT),
    "started_at": Field(runs.c.started_at, MOMENT),
    "ended_at": Field(runs.c.ended_at, MOMENT),
    "duration_ms": Field(runs.c.duration_ms, NUMBER),
    **NO_TRIGGER,
}
_PAGES = Pages(FIELDS, Order("created_at"), Order("name"), Order("project"), Order("domain"))


@dataclass(frozen=True, slots=True)
class Scope:
    """Which runs a list is about; an empty part means any."""

    project: ProjectId | None = None
    task_name: str = ""
    task_version: str = ""
    paused: bool = False
    """only runs that wait for the answer to a condition"""
    org: str = ""
    """this one's, and those without one"""


_OTHER = runs.alias("waiting")
_WAITING: "sa.Select[Any]" = (
    sa.select(sa.literal_column("waiting.rowid"))
    .select_from(actions)
    .join(
        _OTHER,
        sa.and_(
            _OTHER.c.project == actions.c.project,
            _OTHER.c.domain == actions.c.domain,
            _OTHER.c.name == actions.c.run,
        ),
    )
    .where(actions.c.phase == Phase.PAUSED.name, actions.c.ended_at.is_(None))
)


def page(connection: sa.Connection, scope: Scope, query: Query) -> tuple[Sequence[ShownRun], str]:
    """A page, newest first unless the query says otherwise, and the next page's token."""
    statements, others = _walks(scope, query.filters)
    rows, token = _PAGES.page(connection, statements, replace(query, filters=others), _asked(scope))
    return shown_runs(connection, [row.rowid for row in rows]), token


Cursor = tuple[int, str, str, str]
"""Revision, project, domain and name of the row read last."""


def newest_revision(connection: sa.Connection) -> Cursor:
    """Behind all that there is."""
    revision = connection.execute(sa.select(sa.func.max(runs.c.revision))).scalar_one()
    return (revision or 0, LAST, LAST, LAST)


LAST = "\U0010ffff"
"""Comes after every name."""

_KEY = ("revision", "project", "domain", "name")


def changed(connection: sa.Connection, scope: Scope, after: Cursor) -> tuple[Sequence[ShownRun], Cursor]:
    """At most PAGE runs changed past the cursor, in the order of their changes; and the cursor behind all that was
    looked at, runs of other scopes too."""
    asked = {**_asked(scope), **dict(zip(_KEY, after, strict=True)), "most": PAGE}
    rows = _changed(frozenset(_asked(scope)), paused=scope.paused).all(connection, asked)
    cursor = rows[-1][1:] if len(rows) == PAGE else newest_revision(connection)
    return shown_runs(connection, [row.rowid for row in rows]), cursor


@lru_cache
def _changed(parts: frozenset[str], *, paused: bool) -> Prepared:
    """Each watcher of the scope asks this after each change of any run."""
    key = [runs.c[name] for name in _KEY]
    after = [sa.bindparam(name, type_=column.type) for name, column in zip(_KEY, key, strict=True)]
    past = sa.and_(runs.c.revision >= after[0], sa.tuple_(*key) > sa.tuple_(*after))
    found = _scoped(parts, paused=paused, few=True).add_columns(*key).where(past)
    return Prepared(found.order_by(*key).limit(sa.bindparam("most", type_=sa.Integer)))


def _asked(scope: Scope) -> Mapping[str, str]:
    """The parts that are given, by their names in the statement, which is kept and so holds no client's text."""
    parts = {"of_task": scope.task_name, "of_version": scope.task_version, "of_org": scope.org}
    if scope.project is not None:
        parts |= {"of_project": scope.project.project, "of_domain": scope.project.domain}
    return {name: value for name, value in parts.items() if value}


@lru_cache
def _scoped(parts: frozenset[str], *, paused: bool, few: bool = False) -> "sa.Select[Any]":
    """Finds the runs by their numbers. `few`: another condition leaves so few that SQLite shall begin with it, and not
    with an index of the project."""
    statement = sa.select(ROW_OF_RUN).select_from(runs)
    of = {name: sa.bindparam(name, type_=sa.Text) for name in parts}
    if "of_project" in of:
        project: sa.ColumnElement[str] = runs.c.project
        domain: sa.ColumnElement[str] = runs.c.domain
        if few or paused:
            project, domain = project.concat(""), domain.concat("")
        statement = statement.where(project == of["of_project"], domain == of["of_domain"])
    if "of_task" in of:
        statement = statement.where(runs.c.task_name == of["of_task"])
    if "of_version" in of:
        statement = statement.where(runs.c.task_version == of["of_version"])
    if paused:
        statement = statement.where(ROW_OF_RUN.in_(_WAITING))
    if "of_org" in of:
        statement = statement.where(sa.or_(runs.c.org == "", runs.c.org == of["of_org"]))  # a Prepared can't have IN
    return statement


MOST_WALKS = 50
_USERS = ("created_by", "created_by_subject")


def _walks(scope: Scope, filters: Sequence[Filter]) -> tuple[Sequence["sa.Select[Any]"], Sequence[Filter]]:
    """The statement for each user, or else for each phase, that the filters leave; and the filters that are left."""
    statement = _scoped(frozenset(_asked(scope)), paused=scope.paused)
    if scope.project is None:
        return [statement], filters
    for each in filters:
        if each.field in _USERS and each.function is Function.VALUE_IN and len(each.values) <= MOST_WALKS:
            where(FIELDS, [each])  # refuses what is no name
            walks = [statement.where(runs.c.created_by_subject == user) for user in sorted(set(each.values))]
            return walks, [other for other in filters if other is not each]
    phases, others = _phases(filters)
    if phases is None:
        return [statement], others
    return [statement.where(runs.c.phase == phase.name) for phase in sorted(phases)], others


_NAMING = {Function.EQUAL: True, Function.VALUE_IN: True, Function.NOT_EQUAL: False, Function.VALUE_NOT_IN: False}


def _phases(filters: Sequence[Filter]) -> tuple[set[Phase] | None, Sequence[Filter]]:
    """The phases that the filters leave (None: no filter names any), and the other filters."""
    left: set[Phase] | None = None
    others = []
    for each in filters:
        if each.field != "phase" or each.function not in _NAMING:
            others.append(each)
            continue
        where(FIELDS, [each])  # refuses what no phase is
        named = {Phase[str(PHASE.parse(value))] for value in each.values}
        kept = named if _NAMING[each.function] else set(Phase) - named
        left = kept if left is None else left & kept
    return left, others
