"""The door to SQLite: one thread that writes, a few that read.

    write(f) ─▶ waiting ─▶ writer thread: BEGIN IMMEDIATE · f1 f2 … f200 · COMMIT (fsync) ─▶ one wake-up per event loop
    read(q) ──▶ waiting ─▶ reader threads: BEGIN · q1 q2 … · a snapshot of what is committed

While one commit waits for the disk, the next batch gathers: many callers share an fsync, a single one waits for none
but its own. If an operation raises after it has changed something, or the COMMIT fails, all is rolled back and each
operation runs again alone; so operations must be repeatable and have no effect outside the database. One that raises
before it changed anything left no trace and fails by itself. There are no savepoints: they halve the speed and don't
survive a full disk. Queries that wait share a transaction too, which takes most of what one costs.

Revisions come from a counter of the writer thread that starts above the highest one in the tables. A run of an
operation never uses one again, so rolled back ones leave gaps, and what commits later has the higher revision.

pysqlite's own idea of transactions is off (isolation_level=None): BEGIN is ours. So are the BEGIN and COMMIT of writes
and reads, which SQLAlchemy would take ten times as long for; it joins the transaction that it finds.
"""

import asyncio
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa

from flyte_manager.domain.ports import Clock
from flyte_manager.store.faults import DatabaseClosed, DatabaseMoved, DatabaseUnusable, busy, explained
from flyte_manager.store.instance import InstanceLock, identify
from flyte_manager.store.known import Known
from flyte_manager.store.prepared import driver
from flyte_manager.store.tables import instance, metadata
from flyte_manager.store.upgrade import NotYetMade, in_words, inspect_file, present, unopened, upgrade

T = TypeVar("T")

Connection = sa.Connection
"""What a query reads from."""

BATCH = 200
READERS = 4
BUSY_SECONDS = 5.0
BUSY_TRIES = 6

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a write works with. Rows that it changes are stamped with `revision`, which grows in commit order over the
    whole database."""

    connection: sa.Connection
    revision: int
    known: Known = field(default_factory=Known)
    """for those who read and write the rows of one table"""


class _Job(Generic[T]):
    """One write or read: what to do, who waits for it, and how it ended."""

    __slots__ = ("done", "error", "loop", "operation", "result", "then")

    def __init__(
        self, operation: Callable[[Any], T], loop: asyncio.AbstractEventLoop, then: Callable[[T], None] | None
    ) -> None:
        self.operation = operation
        self.then = then
        self.loop = loop
        self.done: asyncio.Future[None] = loop.create_future()
        self.result: T | None = None
        self.error: BaseException | None = None


class _Line:
    """Jobs that wait for a thread."""

    def __init__(self) -> None:
        self.closing = False
        self._waiting: deque[_Job[Any]] = deque()
        self._arrival = threading.Condition()

    def put(self, job: _Job[Any]) -> None:
        with self._arrival:
            if self.closing:
                raise DatabaseClosed
            self._waiting.append(job)
            if len(self._waiting) == 1:  # whom the first one woke takes the others along
                self._arrival.notify()

    def take(self) -> Sequence[_Job[Any]]:
        """The jobs that wait, at least one; none at the end."""
        with self._arrival:
            while not self._waiting and not self.closing:
                self._arrival.wait()
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
            if self._waiting:
                self._arrival.notify()
            return taken

    def close(self) -> None:
        """What waits is still taken."""
        with self._arrival:
            self.closing = True
            self._arrival.notify_all()


class _Writer:
    """The one thread that writes."""

    def __init__(self, engine: sa.Engine, connection: sa.Connection, *, file: Path, revision: int) -> None:
        self._engine = engine
        self._connection = connection
        self._file = file
        self._revision = revision
        self._inode = _inode(file)
        self._known = Known()
        self._others = -1
        self.failed = False
        """whether the file or its disk was at fault when something could not be written"""
        self.line = _Line()
        self._thread = threading.Thread(target=self._serve, name="database-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when all that waited is written."""
        self.line.close()
        self._thread.join()
        self._connection.close()
        self._engine.dispose()

    def _serve(self) -> None:
        while batch := self.line.take():
            self._process(batch)

    def _process(self, batch: Sequence[_Job[Any]]) -> None:
        """Runs the jobs in one transaction, or each in its own where that fails, and wakes their callers."""
        try:
            self._begin()
        except Exception as error:  # nothing has run, and alone nothing would either
            self._undo()
            self._fail(batch, error)
            return
        try:
            for job in batch:
                self._run(job)
            self._connection.commit()  # if SQLAlchemy was there
            driver(self._connection).commit()
        except BaseException as error:  # whatever an operation raises, the writer lives on
            self._undo()
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                for job in batch:
                    self._process([job])
            return
        _wake(batch)

    def _begin(self) -> None:
        if self._connection.closed:
            self._connection = self._engine.connect()
        if _inode(self._file) != self._inode:
            raise DatabaseMoved(file=self._file)
        for left in reversed(range(BUSY_TRIES)):
            try:
                driver(self._connection).execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not busy(error) or not left or self.line.closing:
                    raise
                log.warning(
                    "another program has kept the database %s locked for %g s, waiting on", self._file, BUSY_SECONDS
                )
            else:
                break
        (others,) = driver(self._connection).execute("PRAGMA data_version").fetchone()
        if others != self._others:  # another connection wrote
            self._others = others
            self._known.clear()

    def _run(self, job: _Job[Any]) -> None:
        """Runs one operation. Raises what it raised when it left a trace in the transaction."""
        sqlite = driver(self._connection)
        changes = sqlite.total_changes
        self._revision += 1
        job.result = job.error = None
        try:
            job.result = job.operation(Transaction(self._connection, self._revision, self._known))
        except Exception as error:
            if sqlite.total_changes != changes or not sqlite.in_transaction:
                raise
            job.error = explained(error, self._file)

    def _undo(self) -> None:
        """Leaves the connection without a transaction, if need be by closing it."""
        self._known.clear()
        try:
            self._connection.rollback()
            driver(self._connection).rollback()  # after a failed COMMIT SQLAlchemy believes that it has ended
        except Exception:
            log.exception("the writer's connection to %s can't roll back and is opened anew", self._file)
            self._connection.invalidate()
            self._connection.close()

    def _fail(self, batch: Sequence[_Job[Any]], error: BaseException) -> None:
        for job in batch:
            job.error = explained(error, self._file)
            self.failed = self.failed or isinstance(job.error, DatabaseUnusable)
        _wake(batch)


class _Readers:
    """The threads that read."""

    def __init__(self, engine: sa.Engine, *, file: Path) -> None:
        self._engine = engine
        self._file = file
        self.line = _Line()
        self._threads = [
            threading.Thread(target=self._serve, name=f"database-reader-{number}", daemon=True)
            for number in range(READERS)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Returns when all that waited is answered."""
        self.line.close()
        for thread in self._threads:
            thread.join()
        self._engine.dispose()

    def _serve(self) -> None:
        connection: sa.Connection | None = None
        while batch := self.line.take():
            try:
                connection = connection or self._engine.connect()
                self._read(batch, connection)
            except Exception as error:
                for job in batch:
                    job.error = explained(error, self._file)
                connection = None  # whatever it is worth: the next batch gets another one
            _wake(batch)
        if connection is not None:
            connection.close()

    def _read(self, batch: Sequence[_Job[Any]], connection: sa.Connection) -> None:
        driver(connection).execute("BEGIN")
        for job in batch:
            self._answer(job, connection)
        connection.rollback()  # if SQLAlchemy was there
        driver(connection).rollback()

    def _answer(self, job: _Job[Any], connection: sa.Connection) -> None:
        try:
            job.result = job.operation(connection)
        except Exception as error:
            job.error = explained(error, self._file)


class Database:
    """One SQLite file, served by this process alone."""

    def __init__(
        self, file: Path, *, lock: InstanceLock | None, writer: _Writer, readers: _Readers, instance_id: str
    ) -> None:
        """Use `open`."""
        self._file = file
        self._lock = lock
        self._writer = writer
        self._readers = readers
        self._instance_id = instance_id

    @classmethod
    def open(cls, file: Path, *, clock: Clock) -> "Database":
        """Locks the file, makes or migrates it, and starts the writer. Blocks.

        Raises MigrationsFailed, AlreadyServed.
        """
        file = file.absolute()
        with ExitStack() as opened:
            lock = _lock(file)
            opened.callback(lock.release)
            engine = _engine(file, begin="BEGIN IMMEDIATE", pragmas=("synchronous=FULL", "journal_size_limit=67108864"))
            with in_words(file):
                connection = engine.connect()
                opened.callback(engine.dispose)
                opened.callback(connection.close)
                upgrade(connection, file)
                with connection.begin():
                    instance_id = identify(connection, clock)
                    revision = _highest_revision(connection)
            opened.pop_all()
        writer = _Writer(engine, connection, file=file, revision=revision)
        readers = _Readers(_engine(file, begin="BEGIN", pragmas=("query_only=ON",)), file=file)
        return cls(file, lock=lock, writer=writer, readers=readers, instance_id=instance_id)

    @classmethod
    def beside(cls, file: Path) -> "Database":
        """Works on the file of a manager that may run or not. Blocks. Raises MigrationsFailed, NotYetMade."""
        file = file.absolute()
        if not file.exists():
            raise NotYetMade(file=file)
        engine = _engine(file, begin="BEGIN IMMEDIATE", pragmas=("synchronous=FULL",))
        with in_words(file), ExitStack() as opened:
            connection = engine.connect()
            opened.callback(engine.dispose)
            opened.callback(connection.close)
            present(connection, file)
            with connection.begin():
                instance_id = connection.execute(sa.select(instance.c.id)).scalar_one()
                revision = _highest_revision(connection)
            opened.pop_all()
        writer = _Writer(engine, connection, file=file, revision=revision)
        readers = _Readers(_engine(file, begin="BEGIN", pragmas=("query_only=ON",)), file=file)
        return cls(file, lock=None, writer=writer, readers=readers, instance_id=instance_id)

    @property
    def instance_id(self) -> str:
        """A random id that the database keeps from its first use on."""
        return self._instance_id

    async def write(self, operation: Callable[[Transaction], T], *, then: Callable[[T], None] | None = None) -> T:
        """Runs the operation in the writer thread and returns its result once it is on the disk.

        It may run more than once, and shares its transaction with others unless one of them fails. It raises what the
        operation raises (then nothing of it is kept), DatabaseUnusable when the file or its disk is at fault. When the
        caller is cancelled, the operation may happen all the same. `then` is called on the event loop with the result,
        also when the caller is gone by then.
        """
        return await _done(self._writer.line, operation, then)

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Runs the query in a reader thread, on one snapshot of what is committed. It returns plain data."""
        return await _done(self._readers.line, query)

    async def ping(self) -> None:
        """Raises what keeps the database from being written. It is written only if that failed the last time: an id
        takes the place of itself."""
        if not self._writer.failed:
            await self.write(lambda tx: tx.connection.execute(sa.select(1)).scalar_one())
            return
        await self.write(lambda tx: tx.connection.execute(instance.update().values(id=instance.c.id)).rowcount)
        self._writer.failed = False

    def close(self) -> None:
        """Writes what waits, then lets the file go. Blocks; later writes get DatabaseClosed."""
        self._writer.close()
        self._readers.close()
        if self._lock is not None:
            self._lock.release()


async def _done(line: _Line, operation: Callable[[Any], T], then: Callable[[T], None] | None = None) -> T:
    """The operation's result, once a thread has run it."""
    job = _Job(operation, asyncio.get_running_loop(), then)
    line.put(job)
    await job.done
    if job.error is not None:
        raise job.error
    return cast("T", job.result)


def _lock(file: Path) -> InstanceLock:
    inspect_file(file)
    try:
        return InstanceLock(file)
    except OSError as error:
        raise unopened(file, error) from error


def _engine(file: Path, *, begin: str, pragmas: Sequence[str]) -> sa.Engine:
    """An engine whose transactions begin with `begin` and whose connections are set up with the pragmas."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(file)),
        connect_args={"isolation_level": None, "timeout": BUSY_SECONDS, "check_same_thread": False},
        hide_parameters=True,  # values of secrets don't belong into errors
    )

    def set_up(connection: Any, _record: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def start(connection: sa.Connection) -> None:
        if not driver(connection).in_transaction:
            connection.exec_driver_sql(begin)

    sa.event.listen(engine, "connect", set_up)
    sa.event.listen(engine, "begin", start)
    return engine


def _highest_revision(connection: sa.Connection) -> int:
    """The highest revision that any row was stamped with."""
    stamped = [table.c.revision for table in metadata.tables.values() if "revision" in table.c]
    return max((connection.execute(sa.select(sa.func.max(column))).scalar() or 0 for column in stamped), default=0)


def _inode(file: Path) -> tuple[int, int] | None:
    """Which file it is, None when there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _wake(batch: Sequence[_Job[Any]]) -> None:
    """Lets the callers of the jobs go on, with one call into each of their event loops."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job[Any]]] = {}
    for job in batch:
        loops.setdefault(job.loop, []).append(job)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, jobs)
        except RuntimeError:  # the loop is closed, so nobody waits there any more
            log.debug("%d writes ended after their callers", len(jobs))


def _settle(jobs: Sequence[_Job[Any]]) -> None:
    for job in jobs:
        if job.then is not None and job.error is None:
            try:
                job.then(job.result)
            except Exception as error:  # its caller's concern, not that of the others
                job.error = error
        if not job.done.done():  # a cancelled caller's is
            job.done.set_result(None)
