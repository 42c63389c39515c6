"""The database while its process is killed, and while its disk refuses."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

import flyte_manager
from flyte_manager.store.engine import Database
from flyte_manager.store.tables import runs

pytestmark = pytest.mark.chaos

WRITE = """
import asyncio, os, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from flyte_manager.store.engine import Database
from flyte_manager.store.tables import runs

file = Path(sys.argv[1])
now = datetime.now(UTC)
database = Database.open(file, clock=lambda: now)

async def write(name, spec=b""):
    def insert(tx):
        row = dict(project="p", domain="d", name=name, created_at=now, run_spec=spec, revision=tx.revision)
        tx.connection.execute(runs.insert(), row)
        return tx.revision
    return await database.write(insert)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""

FOR_EVER = """
async def caller(number):
    turn = 0
    while True:
        name = f"{sys.argv[2]}-{number}-{turn}"
        say(name, await write(name))
        turn += 1

async def main():
    await asyncio.gather(*(caller(number) for number in range(20)))

asyncio.run(main())
"""

FULL_DISK = """
async def main():
    await write("before")
    used = os.stat(f"{file}-wal").st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 60_000, resource.RLIM_INFINITY))
    names = [f"r{number}" for number in range(20)]
    outcomes = await asyncio.gather(*(write(name, bytes(8_000)) for name in names), return_exceptions=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for name, outcome in zip(names, outcomes):
        say(name, outcome if isinstance(outcome, int) else f"{type(outcome).__name__}: {outcome}")
    say("after", await write("after"))

asyncio.run(main())
database.close()
"""


@contextmanager
def program(text: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "PYTHONPATH": str(Path(flyte_manager.__file__).parents[1])}
    command = [sys.executable, "-c", WRITE + text, *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def stored(file: Path) -> dict[str, int]:
    """What a manager finds: name -> revision, in the order of the commits."""

    async def read(database: Database) -> dict[str, int]:
        await database.ping()
        query = sa.select(runs.c.name, runs.c.revision).order_by(sa.text("rowid"))
        return await database.read(lambda connection: {row.name: row.revision for row in connection.execute(query)})

    database = Database.open(file, clock=lambda: datetime.now(UTC))
    try:
        return asyncio.run(read(database))
    finally:
        database.close()


def test_a_kill_in_the_middle_of_the_load_loses_no_acknowledged_write(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    acknowledged: dict[str, int] = {}
    for life in ("first", "second"):
        with program(FOR_EVER, str(file), life) as manager:
            assert manager.stdout is not None
            for count, line in enumerate(manager.stdout):
                name, revision = line.split()
                acknowledged[name] = int(revision)
                if count == 300:
                    manager.kill()
            assert count >= 300, "the manager ended by itself"
        found = stored(file)
        assert acknowledged.items() <= found.items()
        revisions = list(found.values())
        assert revisions == sorted(set(revisions))


def test_a_disk_that_refuses_a_commit_fails_only_what_did_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    with program(FULL_DISK, str(file)) as manager:
        output, _ = manager.communicate()
    assert manager.returncode == 0
    told = dict(line.split(" ", 1) for line in output.splitlines())
    kept = {name: int(words) for name, words in told.items() if words.isdigit()}
    refused = {words for words in told.values() if not words.isdigit()}
    assert 2 <= len(kept) < 20
    assert refused == {
        f"DatabaseUnusable: the database {file} can't be read or written: "
        f"look after the disk of {tmp_path} (space, quota, health)."
    }
    assert "after" in kept
    found = stored(file)
    del found["before"]
    assert found == kept
