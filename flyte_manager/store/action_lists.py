"""Pages of a run's actions."""

from collections.abc import Sequence

import sqlalchemy as sa

from flyte_manager.domain.filters import Order, Query
from flyte_manager.domain.ids import RunId
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.shown import ShownAction
from flyte_manager.store.actions import PAGE, Cursor
from flyte_manager.store.listing import KIND, MOMENT, NUMBER, PHASE, SOURCE, Field, Pages, duration
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.run_lists import NO_TRIGGER
from flyte_manager.store.shown import OF_ACTION, ROW_OF_ACTION, shown_action, shown_actions
from flyte_manager.store.tables import actions, runs

_OF_ITS_RUN = sa.and_(
    runs.c.project == actions.c.project, runs.c.domain == actions.c.domain, runs.c.name == actions.c.run
)
_BEGAN = sa.case(
    (actions.c.kind == Kind.TRACE.name, sa.func.coalesce(actions.c.started_at, actions.c.created_at)),
    else_=actions.c.created_at,
)
"""From when `Action.duration_ms` counts."""
FIELDS = {
    "name": Field(actions.c.name),
    "project": Field(actions.c.project),
    "domain": Field(actions.c.domain),
    "run_name": Field(actions.c.run),
    "run_source": Field(sa.select(runs.c.source).where(_OF_ITS_RUN).scalar_subquery(), SOURCE),
    "created_by": Field(sa.select(runs.c.created_by_subject).where(_OF_ITS_RUN).scalar_subquery()),
    "created_by_subject": Field(sa.select(runs.c.created_by_subject).where(_OF_ITS_RUN).scalar_subquery()),
    "parent": Field(actions.c.parent),
    "parent_name": Field(actions.c.parent),
    "group": Field(actions.c.group),
    "phase": Field(actions.c.phase, PHASE),
    "action_type": Field(actions.c.kind, KIND),
    "task_project": Field(actions.c.task_project),
    "task_domain": Field(actions.c.task_domain),
    "task_name": Field(actions.c.task_name),
    "task_version": Field(actions.c.task_version),
    "task_type": Field(actions.c.task_type),
    "short_name": Field(actions.c.short_name),
    "function_name": Field(actions.c.function),
    "environment_name": Field(actions.c.environment),
    "attempts": Field(actions.c.attempt, NUMBER),
    "created_at": Field(actions.c.created_at, MOMENT),
    "updated_at": Field(actions.c.updated_at, MOMENT),
    "started_at": Field(actions.c.started_at, MOMENT),
    "ended_at": Field(actions.c.ended_at, MOMENT),
    "duration_ms": Field(duration(_BEGAN, actions.c.ended_at), NUMBER),
    **NO_TRIGGER,
}
_PAGES = Pages(FIELDS, Order("created_at", descending=False), Order("name", descending=False))
_OF_RUN = sa.and_(*(actions.c[column] == sa.bindparam(f"key_{column}") for column in ("project", "domain", "run")))
_FIND = sa.select(ROW_OF_ACTION).select_from(actions).where(_OF_RUN)
_NEWS = (actions.c.revision, actions.c.name)
_PAST = sa.tuple_(*_NEWS) > sa.tuple_(sa.bindparam("revision", type_=sa.Integer), sa.bindparam("name", type_=sa.Text))
_CHANGED = Prepared(sa.select(*OF_ACTION).where(_OF_RUN, _PAST).order_by(*_NEWS).limit(PAGE), make=shown_action)


def page(connection: sa.Connection, run: RunId, query: Query) -> tuple[Sequence[ShownAction], str]:
    """A page, oldest first unless the query says otherwise, and the next page's token."""
    rows, token = _PAGES.page(connection, [_FIND], query, _key(run))
    return shown_actions(connection, [row.rowid for row in rows]), token


def changed(connection: sa.Connection, run: RunId, after: Cursor) -> Sequence[ShownAction]:
    """At most PAGE actions of the run changed past the cursor, in the order of their changes."""
    return _CHANGED.all(connection, {**_key(run), "revision": after[0], "name": after[1]})


def _key(run: RunId) -> dict[str, object]:
    return {"key_project": run.project, "key_domain": run.domain, "key_run": run.name}
