"""The store in memory: it outlives crashes of the manager, and tells each commit to whoever watches over it.

write(f) ─▶ waiting ─▶ BEGIN f COMMIT ─▶ callers go on, in the order of the commits
                   a crash: neither            a crash: it is on the disk, and nobody was told
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from flyte_manager.domain.errors import Unavailable
from flyte_manager.store.engine import Database, Transaction
from flyte_manager.store.faults import DatabaseUnusable
from flyte_manager.store.known import Known
from flyte_manager.store.tables import metadata

T = TypeVar("T")

LONGEST_DELAY = 0.03
FAILING = 0.01
"""of all writes: the disk was full for a moment"""


class Crashed(Unavailable):
    """the manager is dead."""


_ENGINE = sa.create_engine(
    "sqlite://", poolclass=sa.StaticPool, connect_args={"isolation_level": None, "check_same_thread": False}
)
"""One for all disks, which come one after the other: it keeps the compiled statements."""


def _template() -> bytes:
    """The tables, made once."""
    with _ENGINE.connect() as connection:
        metadata.create_all(connection)
        return cast("bytes", _driver(connection).serialize())


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


_EMPTY = _template()


class Disk:
    """What is committed. `committed` is called with each transaction, before anybody is told."""

    def __init__(self, committed: Callable[[Transaction], None]) -> None:
        self.connection = _ENGINE.connect()
        _driver(self.connection).deserialize(_EMPTY)
        self._committed = committed
        self._revision = 0
        self._known = Known()

    def transact(self, operation: Callable[[Transaction], T]) -> T:
        """Raises what the operation raises; then nothing of it is kept."""
        self._revision += 1
        tx = Transaction(self.connection, self._revision, self._known)
        self.connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            result = operation(tx)
        except BaseException:
            self.connection.exec_driver_sql("ROLLBACK")
            self.connection.rollback()
            self._known.clear()
            raise
        self.connection.exec_driver_sql("COMMIT")
        self.connection.commit()
        self._committed(tx)
        return result

    def close(self) -> None:
        self.connection.close()


@dataclass(frozen=True, slots=True)
class _Write:
    operation: Callable[[Transaction], Any]
    answer: "asyncio.Future[Any]"
    then: Callable[[Any], None] | None


class MemoryDatabase:
    """Stands for `store.engine.Database` during one life of the manager."""

    def __init__(self, disk: Disk, random: Random) -> None:
        self._disk = disk
        self._random = random
        self._waiting: asyncio.Queue[_Write] = asyncio.Queue()
        self._answers: dict[asyncio.Future[Any], None] = {}
        self._dead = False
        self._writer = asyncio.create_task(self._serve(), name="database writer")

    def as_database(self) -> Database:
        return cast("Database", self)

    async def write(self, operation: Callable[[Transaction], T], *, then: Callable[[T], None] | None = None) -> T:
        self._check()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._answers[answer] = None
        self._waiting.put_nowait(_Write(operation, answer, then))
        try:
            return await answer
        finally:
            del self._answers[answer]

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        await self._pause()
        self._check()
        found = query(self._disk.connection)
        await self._pause()  # what is told may be old by then
        self._check()
        return found

    def crash(self) -> None:
        self._dead = True
        self._writer.cancel()
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(Crashed())

    async def _serve(self) -> None:
        """Many callers share one wait for the disk, as with the real writer."""
        while True:
            batch = [await self._waiting.get()]
            await self._pause()
            while not self._waiting.empty() and len(batch) < self._random.randint(1, 8):
                batch.append(self._waiting.get_nowait())
            ended = [(write, *self._attempted(write.operation)) for write in batch]
            await self._pause()
            for write, result, error in ended:
                if write.then is not None and error is None:
                    write.then(result)
                if write.answer.done():
                    continue
                if error is None:
                    write.answer.set_result(result)
                else:
                    write.answer.set_exception(error)

    def _attempted(self, operation: Callable[[Transaction], Any]) -> tuple[Any, Exception | None]:
        if self._random.random() < FAILING:
            return None, DatabaseUnusable(file="flyte.db", reason="has no space left", cure="free some")
        try:
            return self._disk.transact(operation), None
        except Exception as error:
            return None, error

    def _pause(self) -> Awaitable[None]:
        late = self._random.random() < 0.3
        return asyncio.sleep(self._random.uniform(0, LONGEST_DELAY) if late else 0)

    def _check(self) -> None:
        if self._dead:
            raise Crashed
