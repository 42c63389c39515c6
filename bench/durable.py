"""What the file system gives: one-row commits of plain sqlite3 a second, each on the disk before the next begins."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

ROWS = 2000


def commits_per_second(folder: Path, *, seconds: float) -> float:
    """Updates of one row each, in transactions of their own, as safe as the manager's (WAL, synchronous=FULL)."""
    with closing(sqlite3.connect(folder / "durable.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("DROP TABLE IF EXISTS rows")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, phase TEXT, state TEXT)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO rows VALUES (?, 'QUEUED', ?)", [(n, "x" * 100) for n in range(ROWS)])
        connection.execute("COMMIT")
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE rows SET phase = ?, state = ? WHERE id = ?", (str(count), "y" * 100, count % ROWS)
            )
            connection.execute("COMMIT")
            count += 1
        return count / (time.monotonic() - began)
