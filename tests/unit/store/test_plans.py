"""A list costs what its page holds: SQLite goes through an index in the list's own order and passes nothing else.

W30: upstream's default order reads every run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.filters import Filter, Function, Query
from flyte_manager.domain.ids import ProjectId
from flyte_manager.store import run_lists, shown, task_lists
from flyte_manager.store.engine import Database
from flyte_manager.store.prepared import driver
from flyte_manager.store.run_lists import Scope

PROJECT = ProjectId("flytesnacks", "development")
DAY = "2026-11-23T00:00:00Z"
SHOWN = "SCAN asked"
"""Here begins the reading of what was found."""
CASES: Sequence[tuple[Scope, Sequence[Filter], str]] = [
    (Scope(PROJECT), (), "runs_newest (project=? AND domain=?"),
    (Scope(), (), "runs_by_time"),
    (Scope(PROJECT), [Filter("phase", Function.EQUAL, ["4"])], "runs_by_phase (project=? AND domain=? AND phase=?"),
    (Scope(PROJECT), [Filter("phase", Function.VALUE_IN, ["5", "6"])], "runs_by_phase (project=? AND domain=? AND"),
    (Scope(PROJECT), [Filter("phase", Function.NOT_EQUAL, ["5"])], "runs_by_phase (project=? AND domain=? AND"),
    (Scope(PROJECT, "t"), (), "runs_by_task (project=? AND domain=? AND task_name=?"),
    (Scope(PROJECT), [Filter("task_name", Function.EQUAL, ["t"])], "runs_by_task (project=? AND domain=? AND"),
    (Scope(PROJECT, "t", "v"), (), "runs_by_version (project=? AND domain=? AND task_name=? AND task_version=?"),
    (Scope(PROJECT), [Filter("created_at", Function.GREATER_THAN, [DAY])], "domain=? AND created_at>?"),
    (
        Scope(PROJECT),
        [Filter("run_name", Function.CONTAINS, ["x"])],
        "COVERING INDEX runs_newest (project=? AND domain=?",
    ),
    (Scope(PROJECT), [Filter("created_by", Function.EQUAL, ["u"])], "runs_by_user (project=? AND domain=? AND"),
    (Scope(PROJECT), [Filter("created_by", Function.VALUE_IN, ["u", "v"])], "runs_by_user (project=? AND domain=? AND"),
]


class Plans:
    """How SQLite went about each statement of a connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self._sqlite = driver(connection)
        self._seen: list[str] = []
        self._sqlite.set_trace_callback(self._seen.append)

    def lines(self) -> str:
        """All steps of all statements so far."""
        self._sqlite.set_trace_callback(None)
        found = []
        for text in self._seen:
            if text.lstrip().startswith("SELECT"):
                found += [row[3] for row in self._sqlite.execute(f"EXPLAIN QUERY PLAN {text}")]
        return "\n".join(found)


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    opened = Database.open(tmp_path / "flyte.db", clock=lambda: datetime.now(UTC))
    yield opened
    opened.close()


@pytest.mark.parametrize(("scope", "filters", "index"), CASES)
async def test_runs_are_found_by_an_index_in_their_order(
    database: Database, scope: Scope, filters: Sequence[Filter], index: str
) -> None:
    def read(connection: sa.Connection) -> str:
        plans = Plans(connection)
        run_lists.page(connection, scope, Query(filters))
        return plans.lines().partition(SHOWN)[0]

    plan = await database.read(read)
    assert index in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan
    assert "SCAN runs" not in plan.replace("SCAN runs USING INDEX runs_by_time", "")


@pytest.mark.parametrize(
    "asked",
    [Filter("created_by", Function.VALUE_IN, ["u", "v"]), Filter("phase", Function.NOT_EQUAL, ["5"])],
    ids=lambda asked: str(asked.field),
)
async def test_runs_of_all_projects_that_no_index_finds_are_passed_once(database: Database, asked: Filter) -> None:
    def read(connection: sa.Connection) -> str:
        plans = Plans(connection)
        run_lists.page(connection, Scope(), Query([asked]))
        return plans.lines().partition(SHOWN)[0]

    assert (await database.read(read)).count("runs_by_time") == 1


async def test_what_is_kept_of_a_list_for_the_next_one_holds_no_name_that_a_client_sent(database: Database) -> None:
    def read(connection: sa.Connection) -> int:
        for name in ("a", "b", "x" * 1_000_000):
            scope = Scope(ProjectId("p", "d", name), task_name=name, org=name)
            run_lists.page(connection, scope, Query())
            run_lists.changed(connection, scope, (5, "a", "b", "c"))
        return run_lists._scoped.cache_info().currsize

    run_lists._scoped.cache_clear()
    run_lists._changed.cache_clear()
    assert await database.read(read) == 2


async def test_those_that_wait_for_an_answer_are_found_by_what_waits(database: Database) -> None:
    def read(connection: sa.Connection) -> str:
        plans = Plans(connection)
        run_lists.page(connection, Scope(PROJECT, paused=True), Query())
        return plans.lines().partition(SHOWN)[0]

    plan = await database.read(read)
    assert "SEARCH actions USING INDEX actions_live (phase=?)" in plan
    assert "SCAN" not in plan.replace("SCAN CONSTANT", "")


async def test_changes_newest_runs_of_tasks_and_roots_are_found_by_their_keys(database: Database) -> None:
    def read(connection: sa.Connection) -> str:
        plans = Plans(connection)
        run_lists.changed(connection, Scope(PROJECT), (5, "a", "b", "c"))
        run_lists.changed(connection, Scope(PROJECT, "t", "v"), (5, "a", "b", "c"))
        names = [TaskName("flytesnacks", "development", "t", "v")]
        task_lists.newest_runs(connection, names, each_version=False)
        task_lists.newest_runs(connection, names, each_version=True)
        shown.shown_runs(connection, [1])
        shown.shown_actions(connection, [1])
        return plans.lines()

    plan = await database.read(read)
    assert plan.count("SEARCH runs USING INDEX runs_by_revision (revision>?") == 2
    assert "runs_by_task (project=? AND domain=? AND task_name=?)" in plan
    assert "runs_by_version (project=? AND domain=? AND task_name=? AND task_version=?)" in plan
    assert "SCAN runs" not in plan
    assert "SCAN one" not in plan
    assert "SEARCH runs USING INTEGER PRIMARY KEY" in plan
    assert "SEARCH actions USING INTEGER PRIMARY KEY" in plan
    assert "SEARCH actions USING INDEX sqlite_autoindex_actions_1 (project=? AND domain=? AND run=? AND name=?)" in plan
