"""Runs counted by their task, for RunService.WatchGroups."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.attempts import ErrorKind
from flyte_manager.domain.groups import Group, Span
from flyte_manager.domain.ids import ROOT, ProjectId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.listing import duration, where
from flyte_manager.store.run_lists import FIELDS
from flyte_manager.store.tables import actions, runs

BAD = (Phase.FAILED.name, Phase.TIMED_OUT.name)


def groups(connection: sa.Connection, span: Span, names: Collection[str] | None = None) -> Mapping[str, Group]:
    """The groups by their tasks' names; of these tasks alone where they are given."""
    within = _within(span)
    if names is not None:
        within.append(runs.c.task_name.in_(list(names)))
    found = _counted(connection, within)
    for name, kind, count in connection.execute(_errors(within)):
        if name in found:
            found[name].errors[ErrorKind[kind] if kind else ErrorKind.UNKNOWN] = count
    for group in found.values():
        newest = _newest(within, group.task_name, span.recent)
        rows = connection.execute(newest).all()
        group.recent = [(row.name, Phase[row.phase]) for row in rows[: span.recent]]
        root = connection.execute(_root(span.project, rows[0].name)).one()
        group.environment, group.short_name = root.environment, root.short_name
    return found


def _within(span: Span) -> list["sa.ColumnElement[bool]"]:
    conditions = [
        runs.c.project == span.project.project,
        runs.c.domain == span.project.domain,
        runs.c.created_at >= span.since,
    ]
    if span.until is not None:
        conditions.append(runs.c.created_at <= span.until)
    return conditions + where(FIELDS, span.filters)


def _counted(connection: sa.Connection, within: Sequence["sa.ColumnElement[bool]"]) -> dict[str, Group]:
    waiting = duration(runs.c.created_at, runs.c.started_at)
    keys = (runs.c.task_name, runs.c.phase, runs.c.created_by)
    statement = sa.select(
        *keys,
        sa.func.count().label("runs"),
        sa.func.max(runs.c.created_at).label("latest"),
        sa.func.max(runs.c.ended_at).label("latest_ended"),
        sa.func.sum(runs.c.duration_ms).label("duration"),
        sa.func.count(runs.c.duration_ms).label("ended"),
        sa.func.sum(waiting).label("waiting"),
        sa.func.count(runs.c.started_at).label("started"),
    )
    found: dict[str, Group] = {}
    for row in connection.execute(statement.where(*within).group_by(*keys)):
        group = found.setdefault(row.task_name, Group(row.task_name, row.latest))
        group.phases[Phase[row.phase]] += row.runs
        group.latest = max(group.latest, row.latest)
        if row.latest_ended is not None:
            group.latest_ended = max(group.latest_ended or row.latest_ended, row.latest_ended)
        group.duration.add(row.duration, row.ended)
        group.waiting.add(row.waiting, row.started)
        if row.created_by:
            group.created_by.add(bytes(row.created_by))
    return found


def _errors(within: Sequence["sa.ColumnElement[bool]"]) -> "sa.Select[Any]":
    failed = sa.select(runs.c.task_name, actions.c.error_kind, sa.func.count()).join_from(
        runs, actions, _is_root_of_run()
    )
    return failed.where(*within, runs.c.phase.in_(BAD)).group_by(runs.c.task_name, actions.c.error_kind)


def _newest(within: Sequence["sa.ColumnElement[bool]"], task: str, count: int) -> "sa.Select[Any]":
    statement = sa.select(runs.c.name, runs.c.phase).where(*within, runs.c.task_name == task)
    return statement.order_by(runs.c.created_at.desc(), runs.c.name.desc()).limit(max(count, 1))


def _root(project: ProjectId, run: str) -> "sa.Select[Any]":
    return sa.select(actions.c.environment, actions.c.short_name).where(
        actions.c.project == project.project,
        actions.c.domain == project.domain,
        actions.c.run == run,
        actions.c.name == ROOT,
    )


def _is_root_of_run() -> "sa.ColumnElement[bool]":
    return sa.and_(
        actions.c.project == runs.c.project,
        actions.c.domain == runs.c.domain,
        actions.c.run == runs.c.name,
        actions.c.name == ROOT,
    )
