"""Rows that the writer knows without a query, and when it must ask again."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from flyte_manager.domain.actions import Action
from flyte_manager.domain.errors import Ended
from flyte_manager.domain.ids import ROOT, ActionId, RunId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.store import actions, known
from flyte_manager.store.engine import Database, Transaction
from flyte_manager.store.known import Known

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
ID = ActionId(RunId("p", "d", "r"), ROOT)
QUEUED = Action(id=ID, kind=Kind.TASK, phase=Phase.QUEUED, created_at=NOW)
RUNNING = replace(QUEUED, phase=Phase.RUNNING)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path / "flyte.db", clock=lambda: NOW)
    yield opened
    opened.close()


def insert(tx: Transaction) -> None:
    actions.insert(tx, QUEUED)


def run(tx: Transaction) -> None:
    actions.update(tx, RUNNING)


def phase(tx: Transaction) -> Phase:
    found = actions.current(tx, ID)
    assert found is not None
    return found.phase


def delete_unseen(tx: Transaction) -> None:
    """As nothing in this process does it."""
    tx.connection.execute(sa.text("DELETE FROM actions"))


async def test_a_row_that_was_written_is_known_without_a_query(database: Database) -> None:
    await database.write(insert)
    await database.write(delete_unseen)
    assert await database.write(phase) is Phase.QUEUED


async def test_a_row_that_was_read_is_known_without_a_query(database: Database) -> None:
    await database.write(insert)
    await database.write(lambda tx: tx.known.clear())
    assert await database.write(phase) is Phase.QUEUED
    await database.write(delete_unseen)
    assert await database.write(phase) is Phase.QUEUED


async def test_a_row_is_known_by_its_own_id_and_not_by_what_a_client_called_it(database: Database) -> None:
    await database.write(insert)
    await database.write(lambda tx: tx.known.clear())
    asked = ActionId(replace(ID.run, org="x" * 1_000_000), ROOT)
    assert await database.write(lambda tx: actions.current(tx, asked)) == QUEUED
    assert await database.write(lambda tx: [key.run.org for key in tx.known]) == [""]  # type: ignore[attr-defined]


async def test_what_was_rolled_back_is_not_known(database: Database) -> None:
    await database.write(insert)

    def fail_late(tx: Transaction) -> None:
        run(tx)
        raise Ended(what="it")

    outcomes = await asyncio.gather(
        database.write(fail_late), database.write(phase), database.write(phase), return_exceptions=True
    )
    assert isinstance(outcomes[0], Ended)
    assert outcomes[1] is outcomes[2] is Phase.QUEUED


async def test_what_another_program_wrote_is_seen(database: Database, tmp_path: Path) -> None:
    other = Database.beside(tmp_path / "flyte.db")
    try:
        await database.write(insert)
        await other.write(run)
        assert await database.write(phase) is Phase.RUNNING
        await database.write(lambda tx: actions.update(tx, QUEUED))
        assert await other.write(phase) is Phase.QUEUED
    finally:
        other.close()


async def test_a_row_that_has_ended_is_not_kept(database: Database) -> None:
    await database.write(insert)
    await database.write(lambda tx: actions.update(tx, replace(QUEUED, phase=Phase.SUCCEEDED, ended_at=NOW)))
    assert await database.write(phase) is Phase.SUCCEEDED
    assert await database.write(lambda tx: len(tx.known)) == 0


def test_of_too_many_rows_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST", 3)
    rows = Known()
    for number in range(5):
        rows.keep(number, f"row {number}", live=True)
    assert list(rows) == [2, 3, 4]
