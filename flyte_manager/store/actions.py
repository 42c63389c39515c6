"""Rows of table actions."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from flyte_manager.domain.actions import Action, Resource, TaskName, TaskSummary
from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.store.engine import Transaction
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import actions

PAGE = 500
"""Rows that a watcher reads at once."""

_KEY = ("project", "domain", "run", "name")
_BY_KEY = sa.and_(*(actions.c[column] == sa.bindparam(f"key_{column}") for column in _KEY))
_CHANGING = [
    *("phase", "state", "attempt", "user_failures", "system_failures", "output_uri", "reason", "cache_status"),
    *("error_kind", "error_code", "error_message", "error_recoverable", "value", "spec"),
    *("started_at", "ended_at", "not_before", "attempt_revision", "revision", "resource_name", "resource_uid"),
    *("updated_at", "signalled_by"),
]
_INSERT = Prepared(actions.insert())
_UPDATE = Prepared(actions.update().where(_BY_KEY), *_CHANGING)
_GET = Prepared(actions.select().where(_BY_KEY))
_OF_RUN = sa.and_(*(actions.c[column] == sa.bindparam(f"key_{column}") for column in ("project", "domain", "run")))
_PAST_CURSOR = sa.tuple_(actions.c.revision, actions.c.name) > sa.tuple_(
    sa.bindparam("after_revision", type_=sa.Integer), sa.bindparam("after_name", type_=sa.Text)
)
_CHILDREN = Prepared(
    actions.select()
    .where(_OF_RUN, _PAST_CURSOR, actions.c.parent == sa.bindparam("key_parent"))
    .order_by(actions.c.revision, actions.c.name)
    .limit(PAGE)
)
_BELOW = sa.select(sa.bindparam("key_name", type_=sa.Text).label("name")).cte("below", recursive=True)
_BELOW = _BELOW.union(
    sa.select(actions.c.name).where(_OF_RUN, actions.c.ended_at.is_(None), actions.c.parent == _BELOW.c.name)
)
_LIVE_BELOW = Prepared(
    actions.select()
    .where(_OF_RUN, actions.c.name.in_(sa.select(_BELOW.c.name)), actions.c.name != sa.bindparam("key_name"))
    .order_by(actions.c.name)
)
_LIVE = Prepared(  # parents before their children, also where the clock stood still between them
    actions.select().where(actions.c.ended_at.is_(None)).order_by(actions.c.created_at, sa.literal_column("rowid"))
)


def insert(tx: Transaction, action: Action) -> None:
    _INSERT.write(tx.connection, _values(action))
    tx.known.keep(action.id, action, live=not action.final)


def update(tx: Transaction, *changed: Action) -> None:
    for action in changed:
        _UPDATE.write(tx.connection, _values(action) | _key(action.id))
        tx.known.keep(action.id, action, live=not action.final)


def current(tx: Transaction, action: ActionId) -> Action | None:
    """The same as `get`, of a live action mostly without a query."""
    known: Action | None = tx.known.get(action)
    if known is None:
        known = get(tx.connection, action)
        if known is not None:
            tx.known.keep(known.id, known, live=not known.final)
    return known


def get(connection: sa.Connection, action: ActionId) -> Action | None:
    row = _GET.one(connection, _key(action))
    return action_of(row) if row else None


Cursor = tuple[int, str]
"""Revision and name of the row read last: one transaction may change more rows than a page holds."""

START: Cursor = (0, "")


def children(connection: sa.Connection, parent: ActionId, after: Cursor) -> Sequence[Action]:
    """At most PAGE children changed past the cursor, in the order of their changes."""
    key = _run_key(parent.run) | _cursor(after) | {"key_parent": parent.name}
    return [action_of(row) for row in _CHILDREN.all(connection, key)]


def live_below(connection: sa.Connection, action: ActionId) -> Sequence[Action]:
    """What lives below the action, all levels; an action that has ended has nothing alive below it."""
    return [action_of(row) for row in _LIVE_BELOW.all(connection, _key(action))]


def live(connection: sa.Connection) -> Sequence[Action]:
    """All actions that have not ended, oldest first."""
    return [action_of(row) for row in _LIVE.all(connection, {})]


def _run_key(run: RunId) -> dict[str, object]:
    return {"key_project": run.project, "key_domain": run.domain, "key_run": run.name}


def _cursor(after: Cursor) -> dict[str, object]:
    return {"after_revision": after[0], "after_name": after[1]}


def _key(action: ActionId) -> dict[str, object]:
    return _run_key(action.run) | {"key_name": action.name}


def _values(action: Action) -> dict[str, object]:
    run, task, failure = action.id.run, action.task, action.failure
    return {
        "project": run.project,
        "domain": run.domain,
        "run": run.name,
        "name": action.id.name,
        "org": run.org,
        "parent": action.parent,
        "group": action.group,
        "kind": action.kind.name,
        "phase": action.phase.name,
        "state": action.state,
        "attempt": action.attempt,
        "user_failures": action.user_failures,
        "system_failures": action.system_failures,
        "task_project": task.name.project,
        "task_domain": task.name.domain,
        "task_name": task.name.name,
        "task_version": task.name.version,
        "task_type": task.type,
        "short_name": task.short_name,
        "environment": task.environment,
        "function": task.function,
        "spec_digest": action.spec_digest,
        "spec": action.spec,
        "input_uri": action.input_uri,
        "base_uri": action.base_uri,
        "cache_key": action.cache_key,
        "output_uri": action.output_uri,
        "reason": action.reason,
        "cache_status": action.cache_status.value,
        "error_kind": failure.kind.name if failure else "",
        "error_code": failure.code if failure else "",
        "error_message": failure.message if failure else "",
        "error_recoverable": failure.recoverable if failure else False,
        "value": action.value,
        "created_at": action.created_at,
        "started_at": action.started_at,
        "ended_at": action.ended_at,
        "not_before": action.not_before,
        "attempt_revision": action.attempt_revision,
        "revision": action.revision,
        "updated_at": action.updated_at,
        "signalled_by": action.signalled_by or None,
        "resource_name": action.resource.name if action.resource else "",
        "resource_uid": action.resource.uid if action.resource else "",
        "elsewhere": action.elsewhere,
    }


def action_of(row: Any) -> Action:
    return Action(
        id=ActionId(RunId(row.project, row.domain, row.run, row.org), row.name),
        kind=Kind[row.kind],
        phase=Phase[row.phase],
        created_at=row.created_at,
        parent=row.parent,
        group=row.group,
        state=row.state,
        attempt=row.attempt,
        user_failures=row.user_failures,
        system_failures=row.system_failures,
        task=TaskSummary(
            TaskName(row.task_project, row.task_domain, row.task_name, row.task_version, row.org),
            row.task_type,
            row.short_name,
            row.environment,
            row.function,
        ),
        spec_digest=row.spec_digest,
        spec=row.spec or b"",
        input_uri=row.input_uri,
        base_uri=row.base_uri,
        cache_key=row.cache_key,
        output_uri=row.output_uri,
        reason=row.reason,
        cache_status=CacheStatus(row.cache_status),
        failure=failure(row),
        value=row.value or b"",
        started_at=row.started_at,
        ended_at=row.ended_at,
        not_before=row.not_before,
        attempt_revision=row.attempt_revision,
        revision=row.revision,
        updated_at=row.updated_at,
        signalled_by=row.signalled_by or b"",
        resource=Resource(row.resource_name, row.resource_uid) if row.resource_uid else None,
        elsewhere=bool(row.elsewhere),
    )


def failure(row: Any) -> Failure | None:
    """The failure in a row of actions or attempts."""
    if not row.error_kind:
        return None
    return Failure(ErrorKind[row.error_kind], row.error_code, row.error_message, bool(row.error_recoverable))
