"""The writer thread, the readers, and what their callers see, on real files."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import sqlalchemy as sa

from flyte_manager.domain.errors import Ended
from flyte_manager.store import engine
from flyte_manager.store.engine import Database, Transaction
from flyte_manager.store.faults import DatabaseClosed, DatabaseMoved, DatabaseUnusable
from flyte_manager.store.instance import AlreadyServed
from flyte_manager.store.tables import runs

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def open_database(file: Path) -> Database:
    return Database.open(file, clock=lambda: NOW)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flyte.db"


@pytest.fixture
def database(file: Path) -> Iterator[Database]:
    opened = open_database(file)
    yield opened
    opened.close()


def insertion(name: str, *, spec: bytes = b"") -> Callable[[Transaction], int]:
    """An operation that adds one run and returns its revision."""

    def insert(tx: Transaction) -> int:
        row = {"project": "p", "domain": "d", "name": name, "created_at": NOW, "run_spec": spec}
        tx.connection.execute(runs.insert(), {**row, "revision": tx.revision})
        return tx.revision

    return insert


async def names(database: Database) -> set[str]:
    return await database.read(lambda connection: set(connection.execute(sa.select(runs.c.name)).scalars()))


class Gate:
    """Holds the writer thread inside an operation, so that what is written meanwhile forms one batch."""

    def __init__(self, database: Database) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()
        self._held = asyncio.create_task(database.write(self._wait))

    def _wait(self, _tx: Transaction) -> None:
        self._entered.set()
        assert self._open.wait(10)

    async def closed(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 10)

    async def open(self) -> None:
        self._open.set()
        await self._held


async def written_together(database: Database, operations: list[Callable[[Transaction], Any]]) -> list[Any]:
    """The outcomes of operations that the writer finds waiting all at once."""
    gate = Gate(database)
    await gate.closed()
    waiting = asyncio.gather(*(database.write(operation) for operation in operations), return_exceptions=True)
    await asyncio.sleep(0)  # lets every write queue up
    await gate.open()
    return await waiting


async def test_a_write_returns_what_its_operation_returns_and_is_there_after_a_restart(file: Path) -> None:
    first = open_database(file)
    revision = await first.write(insertion("r1"))
    first.close()
    second = open_database(file)
    assert await names(second) == {"r1"}
    assert await second.write(insertion("r2")) > revision
    assert second.instance_id == first.instance_id
    second.close()


async def test_a_failing_operation_fails_alone_and_leaves_no_trace(database: Database) -> None:
    ran = dict.fromkeys(range(50), 0)

    def numbered(number: int) -> Callable[[Transaction], int]:
        def operation(tx: Transaction) -> int:
            ran[number] += 1
            insertion(f"r{number}")(tx)
            if number == 25:
                raise Ended(what="it")
            return number

        return operation

    outcomes = await written_together(database, [numbered(number) for number in range(50)])
    assert isinstance(outcomes.pop(25), Ended)
    assert outcomes == [number for number in range(50) if number != 25]
    assert await names(database) == {f"r{number}" for number in range(50) if number != 25}
    assert ran[0] == ran[25] == 2, "together once, then alone"


async def test_an_operation_that_refuses_before_it_changed_anything_costs_the_others_nothing(
    database: Database,
) -> None:
    ran: list[str] = []

    def counted(tx: Transaction) -> int:
        ran.append("counted")
        return insertion("r1")(tx)

    def refusing(_tx: Transaction) -> None:
        raise Ended(what="it")

    revision, refusal, duplicate = await written_together(database, [counted, refusing, insertion("r1")])
    assert isinstance(refusal, Ended)
    assert isinstance(duplicate, sa.exc.IntegrityError)
    assert isinstance(revision, int)
    assert ran == ["counted"]
    assert await names(database) == {"r1"}


async def test_revisions_grow_in_commit_order_under_a_hundred_concurrent_callers(database: Database) -> None:
    async def caller(number: int) -> list[int]:
        return [await database.write(insertion(f"r{number}-{turn}")) for turn in range(5)]

    by_caller = await asyncio.gather(*(caller(number) for number in range(100)))
    in_order = sa.select(runs.c.revision).order_by(sa.text("rowid"))
    stored = await database.read(lambda connection: list(connection.execute(in_order).scalars()))
    assert stored == sorted(set(stored))
    assert sorted(revision for revisions in by_caller for revision in revisions) == stored
    assert all(revisions == sorted(revisions) for revisions in by_caller)


async def test_a_rolled_back_run_of_an_operation_does_not_share_its_revision(database: Database) -> None:
    seen: list[int] = []

    def failing_once(tx: Transaction) -> int:
        seen.append(tx.revision)
        insertion("r1")(tx)
        if len(seen) == 1:
            raise Ended(what="it")
        return tx.revision

    first, second = await written_together(database, [failing_once, insertion("r2")])
    assert [first] == seen[1:]
    assert seen[0] < first < second


async def test_a_reader_sees_only_what_is_committed(database: Database) -> None:
    inserted, may_end = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        insertion("r1")(tx)
        inserted.set()
        assert may_end.wait(10)

    writing = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(inserted.wait, 10)
    assert await names(database) == set()
    may_end.set()
    await writing
    assert await names(database) == {"r1"}


async def test_a_reader_keeps_one_snapshot_for_all_its_queries(database: Database) -> None:
    counted, may_go_on = threading.Event(), threading.Event()
    count = sa.select(sa.func.count()).select_from(runs)

    def twice(connection: sa.Connection) -> tuple[int, int]:
        first = connection.execute(count).scalar_one()
        counted.set()
        assert may_go_on.wait(10)
        return first, connection.execute(count).scalar_one()

    reading = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(counted.wait, 10)
    await database.write(insertion("r1"))
    may_go_on.set()
    assert await reading == (0, 0)


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnusable, match="may only be read"):
        await database.read(lambda connection: connection.execute(runs.delete()).rowcount)


async def test_cancelled_callers_leave_neither_noise_nor_a_stuck_writer(database: Database) -> None:
    noise: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))

    def failing(tx: Transaction) -> None:
        insertion("gone")(tx)
        raise Ended(what="it")

    gate = Gate(database)
    await gate.closed()
    waiting = [asyncio.create_task(database.write(operation)) for operation in (insertion("r1"), failing)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await gate.open()
    await database.write(insertion("r2"))
    assert await names(database) == {"r1", "r2"}
    assert noise == []


async def test_callers_on_another_event_loop_are_woken_there(database: Database) -> None:
    elsewhere = asyncio.to_thread(lambda: asyncio.run(database.write(insertion("there"))))
    await asyncio.gather(elsewhere, database.write(insertion("here")))
    assert await names(database) == {"here", "there"}


async def test_a_caller_whose_event_loop_is_gone_does_not_stop_the_writer(database: Database) -> None:
    gate = Gate(database)
    await gate.closed()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(database.write(insertion("left")), 0.01)

    await asyncio.to_thread(lambda: asyncio.run(give_up()))
    await gate.open()
    await database.write(insertion("r1"))
    assert await names(database) == {"left", "r1"}


async def test_a_stop_iteration_reaches_its_caller_instead_of_hanging_it(database: Database) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(lambda _tx: next(iter(())))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.read(lambda _connection: next(iter(())))


async def test_a_full_disk_is_told_in_a_sentence_and_the_writer_goes_on(database: Database, file: Path) -> None:
    def pages(limit: int) -> Callable[[Transaction], int]:
        return lambda tx: tx.connection.exec_driver_sql(f"PRAGMA max_page_count={limit}").scalar_one()

    used = await database.write(pages(1))
    large = [insertion(f"large{number}", spec=bytes(20_000)) for number in range(3)]
    await database.write(pages(used + 8))
    outcomes = await written_together(database, [*large, insertion("small")])
    fitting = {
        name
        for name, outcome in zip(["large0", "large1", "large2", "small"], outcomes, strict=True)
        if isinstance(outcome, int)
    }
    refusals = [outcome for outcome in outcomes if not isinstance(outcome, int)]
    assert refusals
    assert {type(refusal) for refusal in refusals} == {DatabaseUnusable}
    assert str(refusals[0]) == f"the database {file} has no space left: free some on the disk of {file.parent}."
    assert await names(database) == fitting
    await database.write(pages(100_000))
    await database.write(large[2])
    assert await names(database) == fitting | {"large2"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)


@pytest.fixture
def intruder(file: Path, database: Database) -> Iterator[sqlite3.Connection]:
    """Another program that has begun to write and does not end."""
    assert database
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


@pytest.mark.usefixtures("impatient")
class TestWhileAnotherProgramHoldsTheLock:
    async def test_a_write_waits_for_it_and_says_so_in_the_log(
        self,
        intruder: sqlite3.Connection,
        database: Database,
        file: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(engine, "BUSY_TRIES", 200)
        told: SimpleQueue[str] = SimpleQueue()
        monkeypatch.setattr(engine.log, "warning", lambda text, *facts: told.put(text % facts))
        writing = asyncio.create_task(database.write(insertion("r1")))
        said = await asyncio.to_thread(told.get, timeout=10)
        intruder.execute("ROLLBACK")
        await writing
        assert await names(database) == {"r1"}
        assert said == f"another program has kept the database {file} locked for 0.05 s, waiting on"

    async def test_a_write_is_refused_in_a_sentence_when_it_lasts(
        self, intruder: sqlite3.Connection, database: Database, file: Path
    ) -> None:
        with pytest.raises(DatabaseUnusable) as refused:
            await database.write(insertion("r1"))
        assert str(refused.value) == (
            f"the database {file} is locked by another program: "
            f"end the program that holds it (`fuser {file}` names it)."
        )
        intruder.execute("ROLLBACK")
        await database.write(insertion("r1"))


async def test_ping_answers_until_the_file_is_moved_away(database: Database, file: Path) -> None:
    await database.ping()
    moved = file.with_suffix(".moved")
    await asyncio.to_thread(file.rename, moved)
    with pytest.raises(DatabaseMoved, match="moved, replaced or deleted"):
        await database.ping()
    with pytest.raises(DatabaseMoved):
        await database.write(insertion("lost"))
    await asyncio.to_thread(moved.rename, file)
    await database.ping()
    assert await names(database) == set()


async def test_closing_writes_what_waits_and_refuses_what_comes_later(file: Path) -> None:
    database = open_database(file)
    gate = Gate(database)
    await gate.closed()
    waiting = [asyncio.create_task(database.write(insertion(f"r{number}"))) for number in range(300)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(database.close))
    await gate.open()
    await asyncio.gather(*waiting, closing)
    with pytest.raises(DatabaseClosed, match="the manager is stopping"):
        await database.write(insertion("late"))
    reopened = open_database(file)
    assert len(await names(reopened)) == 300
    reopened.close()


def test_a_second_manager_is_refused_with_the_pid_of_the_first(file: Path) -> None:
    first = open_database(file)
    with pytest.raises(AlreadyServed) as refused:
        open_database(file)
    assert str(refused.value) == (
        f"the database {file} is served by the manager with pid {os.getpid()}: stop it first, "
        "or give this one another database.sqlite.file."
    )
    first.close()
    open_database(file).close()


def test_a_second_manager_is_refused_by_another_path_to_the_same_file_too(file: Path, database: Database) -> None:
    assert database
    link = file.with_name("link.db")
    link.symlink_to(file)
    with pytest.raises(AlreadyServed):
        open_database(link)


def test_only_the_managers_user_can_read_a_new_database(file: Path, database: Database) -> None:
    assert database
    assert file.stat().st_mode & 0o077 == 0


async def test_what_follows_a_commit_happens_on_the_loop_also_when_the_caller_is_gone(database: Database) -> None:
    told: list[int] = []
    thread = threading.get_ident()

    def then(result: int) -> None:
        assert threading.get_ident() == thread
        told.append(result)

    assert await database.write(lambda _: 1, then=then) == 1
    gone = asyncio.create_task(database.write(lambda _: 2, then=then))
    await asyncio.sleep(0)
    gone.cancel()
    await database.write(lambda _: 3, then=then)
    assert told == [1, 2, 3]


async def test_what_fails_after_a_commit_is_told_to_its_caller_alone(database: Database) -> None:
    def then(_: int) -> None:
        raise ValueError("after")

    failing = asyncio.create_task(database.write(lambda _: 1, then=then))
    beside = asyncio.create_task(database.write(lambda _: 2))
    with pytest.raises(ValueError, match="after"):
        await failing
    assert await beside == 2
