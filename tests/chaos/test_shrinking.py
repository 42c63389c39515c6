"""After a prune the database's file gets smaller, unless a manager serves it; where that can't be, the prune counts."""

import os
import secrets
import sqlite3
from asyncio import to_thread
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flyte_manager.config import load
from flyte_manager.domain.actions import Budget
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.retention import Bounds
from flyte_manager.prune import prune
from flyte_manager.store.engine import Database
from tests.chaos.test_surroundings import disk as disk
from tests.chaos.test_surroundings import fill
from tests.fakes.middle import middle, told
from tests.fakes.orders import action_id, new_run, task_spec

DAY = 86_400.0
RUNS = 20
MEBIBYTE = 1 << 20


def two_days_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=2)


async def finish_runs(folder: Path) -> Path:
    """Some old runs, each with much in the database, and one that lives."""
    async with middle(folder, two_days_ago) as opened:
        for number in range(RUNS):
            name, spec = f"r{number}", task_spec()
            spec.task_template.container.args.append(secrets.token_hex(MEBIBYTE // 10 if number else MEBIBYTE))
            await opened.ledger.create_run(new_run(name, base=opened.blobs.join("flytesnacks/development"), spec=spec))
            if number:
                action = await opened.action(action_id("a0", name))
                await opened.ledger.report(told(action, Phase.SUCCEEDED, two_days_ago), Budget())
    return folder / "flyte.db"


def pruned(file: Path) -> int:
    """The exit code."""
    settings = load({"database.sqlite.file": str(file), "dataDir": str(file.parent / "data")}, {}, None)
    return prune(settings, Bounds(age=DAY), dry=False)


def pages(file: Path) -> tuple[int, int]:
    """All, and those that nothing uses."""
    with closing(sqlite3.connect(file)) as connection:
        asked = ("PRAGMA page_count", "PRAGMA freelist_count")
        ((count,), (free,)) = (connection.execute(each).fetchone() for each in asked)
    return count, free


def is_whole(file: Path) -> bool:
    """And of the runs the live one is left."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT name FROM runs").fetchall() == [("r0",)]
        assert connection.execute("SELECT count(*) FROM task_specs").fetchone() == (1,)
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


async def test_the_file_gives_its_free_pages_back_once_no_manager_serves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = await finish_runs(tmp_path)
    before = file.stat().st_size
    assert before > 5 * MEBIBYTE
    database = Database.open(file, clock=two_days_ago)
    assert await to_thread(pruned, file) == 0
    database.close()
    assert f"{RUNS - 1} runs deleted" in capsys.readouterr().out
    count, free = pages(file)
    assert free > count / 3
    assert file.stat().st_size == before

    assert await to_thread(pruned, file) == 0
    assert "the database gave " in capsys.readouterr().out
    assert file.stat().st_size < before / 2
    assert pages(file)[1] == 0
    assert is_whole(file)

    assert await to_thread(pruned, file) == 0
    assert "the database gave" not in capsys.readouterr().out


async def test_on_a_full_disk_the_prune_counts_and_the_file_stays_as_it_is(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = await finish_runs(disk)
    database = Database.open(file, clock=two_days_ago)
    assert await to_thread(pruned, file) == 0
    database.close()
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - MEBIBYTE)  # less than what stays
    assert await to_thread(pruned, file) == 0
    said = capsys.readouterr().err
    assert said == (
        f"flyte-manager: the database keeps its free pages for later rows: the database {file} has no space left: free "
        f"some on the disk of {disk}.\n"
    )
    assert is_whole(file)

    filler.unlink()
    assert await to_thread(pruned, file) == 0
    assert pages(file)[1] == 0
    assert is_whole(file)
