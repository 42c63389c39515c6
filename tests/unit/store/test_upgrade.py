"""What opening makes of each kind of database file."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import flyte_manager
from flyte_manager.store import migrations
from flyte_manager.store.engine import Database
from flyte_manager.store.tables import metadata
from flyte_manager.store.upgrade import REVISIONS, MigrationsFailed


def open_and_close(file: Path) -> str:
    database = Database.open(file, clock=lambda: datetime(2026, 11, 23, tzinfo=UTC))
    database.close()
    return database.instance_id


def refusal(file: Path) -> str:
    with pytest.raises(MigrationsFailed) as refused:
        open_and_close(file)
    return str(refused.value)


def run_sql(file: Path, *statements: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def schema(file: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(file)
    found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flyte.db"


def test_the_migrated_schema_is_that_of_the_tables(file: Path) -> None:
    open_and_close(file)
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        options = {"compare_type": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    engine.dispose()
    assert differences == []


def test_the_migrated_schema_has_the_keys_defaults_and_conditions_of_the_tables(file: Path, tmp_path: Path) -> None:
    """What alembic does not compare, or (defaults) compares wrongly on SQLite."""
    open_and_close(file)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    metadata.create_all(engine)
    engine.dispose()

    def essence(path: Path) -> set[tuple[str, ...]]:
        rows = ((kind, name, " ".join((sql or "").split())) for kind, name, sql in schema(path))
        return {(kind, name, sql) for kind, name, sql in rows if "alembic_version" not in name + sql}

    assert essence(file) == essence(tmp_path / "direct.db")


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory.from_config(migrations.configuration())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_heads() == [REVISIONS[-1]]


def test_an_empty_file_becomes_a_database(file: Path) -> None:
    file.touch()
    assert open_and_close(file) == open_and_close(file)


def test_a_database_of_the_present_schema_opens_without_alembic(file: Path) -> None:
    open_and_close(file)
    program = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path;"
        "from flyte_manager.store.engine import Database;"
        "Database.open(Path(sys.argv[1]), clock=lambda: datetime.now(UTC)).close();"
        "assert 'alembic' not in sys.modules"
    )
    root = Path(flyte_manager.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", program, str(file)], check=True, env=environment, timeout=60)


def test_a_database_of_an_older_version_keeps_its_rows_and_the_log_says_what_takes_time(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        migrations.run(connection, "0005")
    engine.dispose()
    run_sql(
        file,
        "INSERT INTO runs (project, domain, name, created_at, created_by_subject)"
        " VALUES ('flytesnacks', 'development', 'r1', '2026-11-23T09:00:00.000000Z', 'ada')",
    )
    with caplog.at_level("INFO", "flyte_manager.store.upgrade"):
        open_and_close(file)
        open_and_close(file)
    told = [record.getMessage() for record in caplog.records if record.name == "flyte_manager.store.upgrade"]
    assert told == [f"the schema of {file} is brought from 0005 to {REVISIONS[-1]}: some 5 s a million runs"]
    opened = sqlite3.connect(file)
    of_ada = "FROM runs WHERE project = 'flytesnacks' AND domain = 'development' AND created_by_subject = 'ada'"
    assert opened.execute(f"SELECT name {of_ada}").fetchall() == [("r1",)]
    assert "runs_by_user" in str(opened.execute(f"EXPLAIN QUERY PLAN SELECT name {of_ada}").fetchall())
    opened.close()


def test_a_failing_migration_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(connection: sa.Connection) -> None:
        migrations_run(connection)
        connection.exec_driver_sql("CREATE TABLE runs (id)")

    migrations_run = migrations.run
    monkeypatch.setattr(migrations, "run", half)
    assert refusal(file) == (
        f"failed to run migrations: the database {file} can't be brought up to date (table runs already exists): "
        "nothing was changed, so go on with the version of the manager that made it, and report this."
    )
    assert schema(file) == []
    monkeypatch.undo()
    open_and_close(file)


def test_the_database_of_the_original_manager_is_refused_untouched(file: Path) -> None:
    run_sql(file, "CREATE TABLE actions (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO actions VALUES (1, 'a0')")
    before = file.read_bytes()
    assert refusal(file) == (
        f"failed to run migrations: {file} holds tables that this manager did not make (actions), as the original "
        f"manager written in Go leaves them: move the file away (`mv {file} {file}.old`; nothing in it was changed), "
        "or give database.sqlite.file another path."
    )
    assert file.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused(file: Path) -> None:
    open_and_close(file)
    run_sql(file, "UPDATE alembic_version SET version_num = '9999'")
    assert refusal(file) == (
        f"failed to run migrations: {file} was made by another, probably newer version of the manager (schema 9999, "
        f"this version knows up to {REVISIONS[-1]}): install that version, or give database.sqlite.file another path."
    )


def not_sqlite(file: Path) -> None:
    file.write_text("manager: {mode: auto}\n" * 100)


def a_few_bytes(file: Path) -> None:
    file.write_text("hello")


def cut_short(file: Path) -> None:
    open_and_close(file)
    os.truncate(file, 8192)


def overwritten(file: Path) -> None:
    open_and_close(file)
    with file.open("r+b") as content:
        content.seek(100)
        content.write(b"\xff" * 4000)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_sqlite, "is not an SQLite database: move the file away, or give database.sqlite.file another path."),
        (a_few_bytes, "is not an SQLite database: move the file away, or give database.sqlite.file another path."),
        (cut_short, "is damaged: stop the manager, then put a backup in its place or save what"),
        (overwritten, "is damaged: stop the manager, then put a backup in its place or save what"),
    ],
)
def test_a_file_that_is_no_sound_database_is_refused(file: Path, make: Callable[[Path], None], words: str) -> None:
    make(file)
    assert refusal(file).startswith(f"failed to run migrations: the database {file} {words}")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "flyte.db"
    assert refusal(file) == (
        f"failed to run migrations: the folder {file.parent} of the database {file} does not exist: "
        "make it, or give database.sqlite.file another path."
    )


def test_a_folder_in_place_of_the_file_is_named(file: Path) -> None:
    file.mkdir()
    assert refusal(file).startswith(
        f"failed to run migrations: {file} can't be opened for reading and writing (Is a directory): "
    )


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may do everything, so for a while we aren't root."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_file_that_may_not_be_written_is_named(reachable: Path) -> None:
    file = reachable / "flyte.db"
    file.touch(0o444)
    with ordinary_user():
        assert refusal(file) == (
            f"failed to run migrations: {file} can't be opened for reading and writing (Permission denied): "
            f"let the manager's user read and write {file} and its folder, or give database.sqlite.file another path."
        )


def test_a_folder_that_may_not_be_written_is_told_by_its_first_file(reachable: Path) -> None:
    file = reachable / "flyte.db"
    file.touch()
    file.chmod(0o666)
    reachable.chmod(0o555)
    with ordinary_user():
        assert refusal(file).startswith(
            f"failed to run migrations: {file}.lock can't be opened for reading and writing (Permission denied): "
        )


def test_a_database_that_another_program_holds_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyte_manager.store.engine.BUSY_SECONDS", 0.05)
    open_and_close(file)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert refusal(file) == (
        f"failed to run migrations: the database {file} is locked by another program: "
        f"end the program that holds it (`fuser {file}` names it)."
    )
    holder.close()
    open_and_close(file)
