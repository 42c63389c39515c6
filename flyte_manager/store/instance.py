"""One manager for each database and its data, and the name of that database.

`<file>.lock` is locked with flock for as long as the manager lives and holds its pid. The lock belongs to the open
file, so it goes with the process however that ends: what counts is the lock, never the file's presence.
"""

import fcntl
import os
import secrets
from pathlib import Path

import sqlalchemy as sa

from flyte_manager.domain.errors import Unready
from flyte_manager.domain.ports import Clock
from flyte_manager.store.tables import instance


class AlreadyServed(Unready):
    """the database {file} is served by the manager with pid {pid}: stop it first, or give this one another
    database.sqlite.file."""


class DataInUse(Unready):
    """the data of {file} are in use by the manager with pid {pid}, whose database is a copy of this one, or the other
    way round: stop it first, or give this one another dataDir."""


class InstanceLock:
    """Held from construction to `release`, or to the end of the process."""

    def __init__(self, file: Path, *, taken: type[Unready] = AlreadyServed) -> None:
        """Raises what `taken` says, and OSError when the lock file can't be made."""
        self._descriptor = os.open(lock_file(file), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            self.release()
            raise taken(file=file, pid=pid or "unknown") from None
        except OSError:
            self.release()
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def lock_data(folder: Path) -> InstanceLock:
    """Copies of a database have its id, and so would share its folder. Raises DataInUse."""
    return InstanceLock(folder / "database", taken=DataInUse)


def lock_file(file: Path) -> Path:
    """The lock of the database in that file."""
    return Path(f"{file.resolve()}.lock")


def identify(connection: sa.Connection, clock: Clock) -> str:
    """The database's id, made at its first use. Runs inside the caller's transaction."""
    known: str | None = connection.execute(sa.select(instance.c.id)).scalar()
    if known is not None:
        return known
    made = secrets.token_hex(8)
    connection.execute(instance.insert().values(id=made, created_at=clock()))
    return made
