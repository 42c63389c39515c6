"""`flyte-manager prune`: deletes finished runs by hand, whether a manager runs or not.

It works in the file beside the manager: small transactions, as the manager's own are, so each waits for the other a few
milliseconds. The manager's lock is taken only to give the database's free pages back, when no manager runs.
"""

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from flyte_manager.cluster import object_store
from flyte_manager.config import ConfigError, Settings
from flyte_manager.config.kinds import SIZE, TIME, Kind
from flyte_manager.domain.retention import Bounds
from flyte_manager.executor.retention import Pruned, amount
from flyte_manager.keeping import retention_of
from flyte_manager.store.engine import Database
from flyte_manager.store.faults import explained
from flyte_manager.store.instance import AlreadyServed, InstanceLock

LISTED = 40
"""runs of which a dry run tells"""

WORTH_SHRINKING = 1 << 20
"""bytes of free pages"""


def bounds_of(settings: Settings, given: dict[str, object]) -> Bounds:
    """What the flags say, else the settings. Raises ConfigError."""
    kept = settings.retention
    age, size = kept.max_age or None, kept.max_size or None
    if "older_than" in given or "keep_size" in given:
        age = _parsed("--older-than", TIME, given["older_than"]) if "older_than" in given else None
        size = int(_parsed("--keep-size", SIZE, given["keep_size"])) if "keep_size" in given else None
    if age is None and size is None:
        raise ConfigError(
            "prune needs a bound: --older-than 30d or --keep-size 10GiB, or retention.maxAge or retention.maxSize in "
            "config.yaml (without one, all runs stay)"
        )
    return Bounds(age, size, cached=kept.forget_cached or bool(given.get("forget_cached")))


def _parsed(flag: str, kind: Kind, text: object) -> float:
    try:
        return float(str(kind.read(text)))
    except ValueError:
        raise ConfigError(f"{flag} needs {kind.needs}, not {text!r}") from None


def prune(settings: Settings, bounds: Bounds, *, dry: bool) -> int:
    """The exit code. Raises a Refusal."""
    file = settings.database.sqlite.file.absolute()
    database = Database.beside(file)
    folder = settings.data_dir.absolute() / database.instance_id
    try:
        objects = object_store(settings.storage, _now) if settings.storage.url else None
        retention = retention_of(settings, database, folder=folder, objects=objects, clock=_now)
        done = asyncio.run(retention.prune(bounds, dry=dry, tell=_Lines(dry=dry)))
    finally:
        database.close()
    _tell(done, dry=dry)
    if not dry and not done.failures:
        _shrink(file)
    return int(bool(done.failures))


class _Lines:
    """Of a dry run the first lines, else one a second at most."""

    def __init__(self, *, dry: bool) -> None:
        self._dry = dry
        self._count = 0
        self._last = 0.0

    def __call__(self, line: str) -> None:
        self._count += 1
        if self._dry and self._count <= LISTED:
            print(line, flush=True)
        elif self._dry and self._count == LISTED + 1:
            print("…", flush=True)
        elif not self._dry and time.monotonic() - self._last > 1:
            self._last = time.monotonic()
            print(line, file=sys.stderr, flush=True)


def _tell(done: Pruned, *, dry: bool) -> None:
    verb = "would be deleted" if dry else "deleted"
    print(f"{_count(done.runs, 'run')} {verb}: {_count(done.rows, 'row')}, {amount(done.size)}")
    print(f"{_count(done.uploads, 'upload')} {verb}: {amount(done.upload_size)}")
    if done.held:
        print(f"over the bound, and kept because something that stays uses their outputs: {_count(done.held, 'run')}")
    for failure in done.failures:
        print(f"flyte-manager: could not be deleted, run prune again: {failure}", file=sys.stderr)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shrink(file: Path) -> None:
    """Gives the database's free pages back to the disk, unless a manager runs: it uses them again."""
    try:
        lock = InstanceLock(file)
    except AlreadyServed:
        return
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            asked = ("PRAGMA freelist_count", "PRAGMA page_size")
            (free,), (size,) = (connection.execute(each).fetchone() for each in asked)
            if free * size >= WORTH_SHRINKING:
                connection.execute("VACUUM")
                print(f"the database gave {amount(free * size)} back to the disk")
    except sqlite3.OperationalError as error:  # the runs are gone all the same
        words = f"the database keeps its free pages for later rows: {explained(error, file)}"
        print(f"flyte-manager: {words}", file=sys.stderr)
    finally:
        lock.release()


def _now() -> datetime:
    return datetime.now(UTC)
