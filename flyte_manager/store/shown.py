"""What lists and watches show of rows, once these are found.

The columns stand in the order of ShownAction's fields, so that a row is one as it is.
"""

import json
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from flyte_manager.domain.ids import ROOT
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownAction, ShownRun
from flyte_manager.store.prepared import Prepared
from flyte_manager.store.tables import actions, runs


class _Named(TypeDecorator[IntEnum]):
    """A member, kept by its name."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, members: type[IntEnum]) -> None:
        super().__init__()
        self.members = members

    def result_processor(self, _dialect: Dialect, _kind: object) -> Callable[[str], IntEnum]:
        return dict(self.members.__members__).__getitem__


_TURNED = {
    "kind": sa.type_coerce(actions.c.kind, _Named(Kind)).label("kind"),
    "phase": sa.type_coerce(actions.c.phase, _Named(Phase)).label("phase"),
    # what a trace is may be large, and isn't shown
    "condition": sa.case((actions.c.kind == sa.literal_column(f"'{Kind.CONDITION.name}'"), actions.c.spec)).label(
        "condition"
    ),
}
OF_ACTION: Sequence["sa.ColumnElement[Any]"] = [
    _TURNED[name] if name in _TURNED else actions.c[name] for name in ShownAction._fields
]
shown_action = ShownAction._make
_WIDTH = len(OF_ACTION)

# SQLite's own numbers of rows: what finds a page needs no more than an index to name its rows
ROW_OF_ACTION = sa.literal_column("actions.rowid", sa.Integer).label("rowid")
ROW_OF_RUN = sa.literal_column("runs.rowid", sa.Integer).label("rowid")
_ASKED = sa.func.json_each(sa.bindparam("asked", type_=sa.Text)).table_valued("key", "value").alias("asked")
_ACTIONS = Prepared(
    sa.select(*OF_ACTION).join_from(_ASKED, actions, ROW_OF_ACTION.element == _ASKED.c.value).order_by(_ASKED.c.key),
    make=shown_action,
)
_RUNS = Prepared(
    sa.select(*OF_ACTION, runs.c.run_spec, runs.c.source, runs.c.created_by)
    .join_from(_ASKED, runs, ROW_OF_RUN.element == _ASKED.c.value)
    .join(
        actions,
        sa.and_(
            actions.c.project == runs.c.project,
            actions.c.domain == runs.c.domain,
            actions.c.run == runs.c.name,
            actions.c.name == ROOT,
        ),
    )
    .order_by(_ASKED.c.key),
    make=lambda row: ShownRun(shown_action(row[:_WIDTH]), *row[_WIDTH:]),
)


def shown_actions(connection: sa.Connection, rows: Sequence[int]) -> Sequence[ShownAction]:
    return _ACTIONS.all(connection, {"asked": json.dumps(rows)})


def shown_runs(connection: sa.Connection, rows: Sequence[int]) -> Sequence[ShownRun]:
    return _RUNS.all(connection, {"asked": json.dumps(rows)})
