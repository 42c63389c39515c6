"""`flyte-manager prune` is killed in the middle of its work, beside a manager that runs, and again without one."""

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx

from tests.managers import COMMAND, SOURCE, Manager, eventually, run_of

OLD = "2026-01-01T00:00:00.000000Z"
COPIES = 60


def prune(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    command = [
        *COMMAND,
        "prune",
        f"--database.sqlite.file={folder / 'flyte.db'}",
        f"--dataDir={folder / 'data'}",
        *flags,
    ]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def copies(manager: Manager) -> None:
    """Many finished runs, with their folders, made of one."""
    with closing(sqlite3.connect(manager.database, timeout=10)) as connection, connection:
        for table, name in (("runs", "name"), ("actions", "run"), ("attempts", "run")):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != name]
            quoted = ", ".join(f'"{column}"' for column in columns)
            for number in range(COPIES):
                connection.execute(
                    f"INSERT INTO {table} ({name}, {quoted}) SELECT ?, {quoted} FROM {table} WHERE {name} = ?",
                    (f"copy-{number}", "one"),
                )
        base = connection.execute("SELECT base_uri FROM runs WHERE name = 'one'").fetchone()[0]
        for number in range(COPIES):
            folder = base.removesuffix("one") + f"copy-{number}"
            connection.execute("UPDATE runs SET base_uri = ? WHERE name = ?", (folder, f"copy-{number}"))
            for part in range(30):
                path = Path(folder, "a0/1/raw", str(part))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * 1000)
        connection.execute("UPDATE runs SET ended_at = ? WHERE name LIKE 'copy-%'", (OLD,))


def check(manager: Manager) -> int:
    """A run that is listed is whole, one that is not is noted or gone. How many are listed."""
    listed = dict(manager.rows("SELECT name, base_uri FROM runs WHERE name LIKE 'copy-%'"))
    noted = {name for (name,) in manager.rows("SELECT run FROM prunings")}
    assert not noted & set(listed)
    for base in listed.values():
        assert len(list(Path(base, "a0/1/raw").iterdir())) == 30
    for table in ("actions", "attempts"):
        rows = {name for (name,) in manager.rows(f"SELECT DISTINCT run FROM {table} WHERE run LIKE 'copy-%'")}
        assert set(listed) <= rows <= set(listed) | noted
    left = {each.name for each in manager.data.glob("blobs/flytesnacks/development/copy-*")}
    assert set(listed) <= left <= set(listed) | noted
    return len(listed)


def test_a_prune_that_is_killed_leaves_whole_runs_and_the_next_one_finishes_it(tmp_path: Path) -> None:
    with Manager(tmp_path, {"embedded.warm": "false"}) as manager:
        asked = f"{manager.url}/flyteidl2.workflow.RunService/CreateRun"
        assert httpx.post(asked, json=run_of("one", "true")).status_code == httpx.codes.OK
        eventually(lambda: manager.rows("SELECT phase FROM runs") == [("SUCCEEDED",)])
        copies(manager)
        for kill in range(4):
            killed(manager, tmp_path, after=0.01 * kill)
            check(manager)
        working = prune(tmp_path, "--older-than=1d")
        told, _ = working.communicate(timeout=60)
        assert working.returncode == 0, told
        assert check(manager) == 0
        assert manager.rows("SELECT name FROM runs") == [("one",)]
        assert manager.rows("SELECT run FROM prunings") == []
        again = run_of("copy-1", "true")
        assert httpx.post(asked, json=again).status_code == httpx.codes.OK
        assert "internal error" not in manager.log


def killed(manager: Manager, folder: Path, *, after: float) -> None:
    """A prune that is killed so many seconds after its first deletion."""
    before = check(manager)
    working = prune(folder, "--older-than=1d")

    def begun() -> bool:
        ((count,),) = manager.rows("SELECT count(*) FROM runs WHERE name LIKE 'copy-%'")
        return working.poll() is not None or int(count) < before

    eventually(begun, what="a deletion")
    time.sleep(after)
    working.send_signal(signal.SIGKILL)
    working.communicate()
