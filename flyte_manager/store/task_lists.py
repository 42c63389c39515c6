"""Pages of deployed tasks and of their versions, and their newest runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.catalog import DeployedTask, LatestRun
from flyte_manager.domain.filters import Order, Query
from flyte_manager.domain.ids import ProjectId, RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.listing import FLAG, MOMENT, NUMBER, Field, Pages, where
from flyte_manager.store.tables import tasks
from flyte_manager.store.tasks import task_of

_AFTER_DOT = sa.func.substr(tasks.c.name, sa.func.instr(tasks.c.name, ".") + 1)
_NONE = Field(sa.literal(0), NUMBER)
FIELDS = {
    "name": Field(tasks.c.name),
    "task_name": Field(tasks.c.name),
    "version": Field(tasks.c.version),
    "project": Field(tasks.c.project),
    "domain": Field(tasks.c.domain),
    "short_name": Field(tasks.c.short_name),
    "function_name": Field(_AFTER_DOT),
    "environment": Field(tasks.c.environment),
    "environment_name": Field(tasks.c.environment),
    "env_description": Field(tasks.c.environment_description),
    "short_description": Field(tasks.c.description),
    "is_entrypoint": Field(tasks.c.entrypoint, FLAG),
    "deployed_by": Field(tasks.c.deployed_by_subject),
    "created_at": Field(tasks.c.created_at, MOMENT),
    "updated_at": Field(tasks.c.created_at, MOMENT),
    "trigger_name": Field(sa.literal("")),
    "total_triggers": _NONE,
    "active_triggers": _NONE,
}
"""A version is for good, so it is updated when it is made; there are no triggers yet."""

_VERSIONS = Pages(FIELDS, Order("created_at"), Order("version"))
_LATEST = (Order("created_at"), Order("name", descending=False), Order("project"), Order("domain"))


def versions(connection: sa.Connection, name: TaskName, query: Query) -> tuple[Sequence[DeployedTask], str]:
    """A page, newest first unless the query says otherwise, and the next page's token."""
    statement = tasks.select().where(
        tasks.c.project == name.project, tasks.c.domain == name.domain, tasks.c.name == name.name
    )
    rows, token = _VERSIONS.page(connection, [statement], query)
    return [task_of(row) for row in rows], token


def latest(connection: sa.Connection, scope: ProjectId | str, query: Query) -> tuple[Sequence[DeployedTask], str, int]:
    """A page of the newest version of each task that matches, the next page's token, and how many tasks match. The
    scope is a project, or an organisation (empty: all): its tasks and those without one."""
    ranked = sa.func.row_number().over(
        partition_by=(tasks.c.project, tasks.c.domain, tasks.c.name),
        order_by=(tasks.c.created_at.desc(), tasks.c.version.desc()),
    )
    named = [field.column.label(f"field_{number}") for number, field in enumerate(FIELDS.values())]
    inner = sa.select(tasks, *named, ranked.label("place")).where(*where(FIELDS, query.filters))
    if isinstance(scope, ProjectId):
        inner = inner.where(tasks.c.project == scope.project, tasks.c.domain == scope.domain)
    elif scope:
        inner = inner.where(tasks.c.org.in_(("", scope)))
    newest = inner.subquery()
    fields = {
        name: Field(newest.c[f"field_{number}"], field.type) for number, (name, field) in enumerate(FIELDS.items())
    }
    shown = sa.select(*(newest.c[column.name] for column in tasks.c)).where(newest.c.place == 1)
    rows, token = Pages(fields, *_LATEST).page(connection, [shown], replace(query, filters=()))
    count = sa.select(sa.func.count()).select_from(newest).where(newest.c.place == 1)
    return [task_of(row) for row in rows], token, connection.execute(count).scalar_one()


_NEWEST_RUNS = """
SELECT asked.key, runs.project, runs.domain, runs.name, runs.org, runs.created_at, runs.phase
FROM json_each(:asked) AS asked JOIN runs ON runs.rowid = (
    SELECT one.rowid FROM runs AS one
    WHERE one.project = json_extract(asked.value, '$[0]') AND one.domain = json_extract(asked.value, '$[1]')
        AND one.task_name = json_extract(asked.value, '$[2]') {of_version}
    ORDER BY one.created_at DESC, one.name DESC LIMIT 1
)
"""
_OF_TASKS = sa.text(_NEWEST_RUNS.format(of_version=""))
_OF_VERSIONS = sa.text(_NEWEST_RUNS.format(of_version="AND one.task_version = json_extract(asked.value, '$[3]')"))


def newest_runs(
    connection: sa.Connection, names: Sequence[TaskName], *, each_version: bool
) -> Mapping[TaskName, LatestRun]:
    """The newest run of each of these tasks, whatever its version, or of each of these versions: those in the task's
    own project."""
    asked = json.dumps([(name.project, name.domain, name.name, name.version) for name in names])
    rows = connection.execute(_OF_VERSIONS if each_version else _OF_TASKS, {"asked": asked})
    return {names[row.key]: _run(row) for row in rows}


def _run(row: Any) -> LatestRun:
    id = RunId(row.project, row.domain, row.name, row.org)
    return LatestRun(id, datetime.fromisoformat(row.created_at), Phase[row.phase])
