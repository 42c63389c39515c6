"""A database of many finished runs, written by SQL: what a manager that has been used for years holds.

Runs are a minute apart, of 40 tasks in 4 projects; names are drawn as the manager draws them. 1 in 50 FAILED, 1 in
1,000 TIMED_OUT, the rest SUCCEEDED: a list must not pass the many to find the few.
"""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from flyte_manager.store.engine import Database

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
BEGIN = 1_600_000_000
"""seconds since 1970; the first run"""

_PROJECTS = """
INSERT INTO projects (id, name, labels, created_at, updated_at)
SELECT value, value, '{}', '2020-09-13T12:26:40.000000Z', '2020-09-13T12:26:40.000000Z'
FROM json_each('["flytesnacks", "vision", "speech", "rare"]')
"""
_NUMBERS = """
CREATE TEMP TABLE n AS
WITH RECURSIVE counted(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM counted WHERE i < :count - 1) SELECT i FROM counted
"""
_RUNS = """
INSERT INTO runs (project, domain, name, phase, task_name, task_version, input_uri, base_uri, source, created_at,
    started_at, ended_at, updated_at, duration_ms, digest, run_spec, revision, created_by_subject)
SELECT CASE WHEN i % 1000 = 7 THEN 'rare' WHEN i % 10 < 7 THEN 'flytesnacks' WHEN i % 10 < 9 THEN 'vision'
    ELSE 'speech' END,
    'development', draw(i),
    CASE WHEN i % 50 = 3 THEN 'FAILED' WHEN i % 1000 = 8 THEN 'TIMED_OUT' ELSE 'SUCCEEDED' END,
    'env.task_' || (i % 40), 'v' || (i / 10000), '/store/x/' || i || '/inputs.pb', '/store/x/' || i, 2,
    strftime('%Y-%m-%dT%H:%M:%S.000000Z', :begin + 60 * i, 'unixepoch'),
    strftime('%Y-%m-%dT%H:%M:%S.000000Z', :begin + 60 * i + 1, 'unixepoch'),
    strftime('%Y-%m-%dT%H:%M:%S.000000Z', :begin + 60 * i + 30, 'unixepoch'),
    strftime('%Y-%m-%dT%H:%M:%S.000000Z', :begin + 60 * i + 30, 'unixepoch'), 30000,
    hex(randomblob(32)), x'', i + 1, 'user_' || (i % 100)
FROM n
"""
_ACTIONS = """
INSERT INTO actions (project, domain, run, name, kind, phase, state, attempt, task_project, task_domain, task_name,
    task_version, task_type, short_name, environment, function, spec_digest, input_uri, base_uri, output_uri,
    created_at, started_at, ended_at, updated_at, revision)
SELECT project, domain, name, 'a0', 'TASK', phase, '{}', 1, project, domain, task_name, task_version, 'python',
    'task', 'env', 'task', digest, input_uri, base_uri, base_uri || '/a0/1', created_at, started_at, ended_at,
    updated_at, revision
FROM runs ORDER BY revision
"""


def fill(file: Path, count: int) -> None:
    Database.open(file, clock=lambda: datetime.now(UTC)).close()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.create_function("draw", 1, drawn, deterministic=True)
        connection.execute(_PROJECTS)
        connection.execute(_NUMBERS, {"count": count})
        connection.execute(_RUNS, {"begin": BEGIN})
        connection.execute(_ACTIONS)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def drawn(number: int) -> str:
    """A run's name: one of its own for each number, spread over all letters."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 90)
    letters = []
    for _ in range(19):
        mixed, rest = divmod(mixed, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return "r" + "".join(letters)
