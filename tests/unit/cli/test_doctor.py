"""What the doctor finds, on real ports, files and locks."""

import os
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flyte_manager.config import Address, Settings, TlsSettings, load
from flyte_manager.doctor.findings import Finding, verdict
from flyte_manager.doctor.machine import (
    Machine,
    check_data_dir,
    check_database,
    check_leftovers,
    check_port,
    check_sqlite,
    check_system_of,
    check_tasks,
    examine,
    serving_pid,
)
from flyte_manager.processes.environment import Interpreter, NoInterpreter
from flyte_manager.store.instance import InstanceLock
from tests.certificates import issue

OURS = Interpreter(Path("/usr/bin/python3"), "2.12.1", "the manager's own")
MACHINE = Machine(
    platform="linux",
    python="3.11.7",
    sqlite=(3, 40, 1),
    find_interpreter=lambda: OURS,
    try_warm_start=lambda _: "",
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    flags = {"dataDir": str(tmp_path / "data"), "database.sqlite.file": str(tmp_path / "flyte.db")}
    ports = ("manager.runsService.port", "manager.queueService.port", "manager.executor.healthProbePort")
    return load(flags | dict.fromkeys(ports, "0"), {}, None)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def no_interpreter() -> Interpreter:
    raise NoInterpreter(python="/no/python", why="No such file or directory")


def test_all_is_well_on_a_fresh_machine(settings: Settings, tmp_path: Path) -> None:
    findings = list(examine(settings, None, MACHINE))
    assert {finding.state for finding in findings} == {"ok"}
    assert verdict(findings) == "All is well."
    assert list(tmp_path.iterdir()) == []


def test_other_systems_are_bad() -> None:
    assert check_system_of(MACHINE).state == "ok"
    assert "WSL2" in check_system_of(replace(MACHINE, platform="win32")).text
    assert check_system_of(replace(MACHINE, platform="darwin")).state == "bad"


def test_an_old_sqlite_is_bad() -> None:
    assert check_sqlite((3, 31, 0)).state == "bad"


def test_a_taken_port_is_bad_and_says_who_has_it_and_which_key_changes_it(taken: int) -> None:
    finding = check_port("API port", Address("localhost", taken), key="manager.runsService.port", own=None)
    assert finding.state == "bad"
    assert "address already in use" in finding.text
    assert f"pid {os.getpid()}" in finding.text
    assert "manager.runsService.port" in finding.text


def test_a_port_of_the_running_manager_is_ok(taken: int) -> None:
    finding = check_port("API port", Address("localhost", taken), key="k", own=os.getpid())
    assert (finding.state, f"pid {os.getpid()}" in finding.text) == ("ok", True)


def test_an_open_host_is_warned_of(settings: Settings) -> None:
    manager = replace(settings.manager, runs_service=Address("0.0.0.0", 0))
    findings = list(examine(replace(settings, manager=manager), None, MACHINE))
    assert any(finding.state == "warn" and "0.0.0.0" in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("names", "days", "state", "text"),
    [
        (["manager.example.com", "10.0.0.1"], 30, "ok", "certificate for manager.example.com, 10.0.0.1, until "),
        (["localhost"], 5, "warn", "which is soon: renew it"),
        (["localhost"], -1, "warn", "which has passed: renew it"),
        ([], 30, "warn", "certificate for no name at all"),
    ],
)
def test_the_certificate_is_looked_at(
    settings: Settings, tmp_path: Path, names: list[str], days: int, state: str, text: str
) -> None:
    files = issue(tmp_path / "tls", *names, days=days)
    server = replace(settings.server, tls=TlsSettings(str(files.certificate), str(files.key)))
    (finding,) = (each for each in examine(replace(settings, server=server), None, MACHINE) if each.name == "https")
    assert (finding.state, text in finding.text) == (state, True)


def test_the_certificate_of_an_authority_is_warned_of(settings: Settings, tmp_path: Path) -> None:
    files = issue(tmp_path / "tls", "localhost", authority=True)
    server = replace(settings.server, tls=TlsSettings(str(files.certificate), str(files.key)))
    (finding,) = (each for each in examine(replace(settings, server=server), None, MACHINE) if each.name == "https")
    assert (finding.state, "CA:TRUE" in finding.text) == ("warn", True)


def test_files_that_are_no_certificate_are_bad(settings: Settings, tmp_path: Path) -> None:
    server = replace(settings.server, tls=TlsSettings(str(tmp_path / "none"), str(tmp_path / "none")))
    (finding,) = (each for each in examine(replace(settings, server=server), None, MACHINE) if each.name == "https")
    assert finding.state == "bad"
    assert "server.tls.certificate" in finding.text


def test_the_manager_that_serves_a_database_is_known_by_its_lock(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    assert serving_pid(file) is None
    lock = InstanceLock(file)
    assert serving_pid(file) == os.getpid()
    lock.release()
    assert serving_pid(file) is None


def test_a_sound_database_is_ok(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.close()
    finding = check_database(file, own=4711)
    assert finding.state == "ok"
    assert "pid 4711" in finding.text


def test_a_database_of_others_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
    connection.close()
    assert "was not made by this manager" in check_database(file, own=None).text


def test_a_file_that_is_no_database_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    file.write_bytes(b"no database" * 1000)
    finding = check_database(file, own=None)
    assert finding.state == "bad"
    assert "move the file away" in finding.text
    assert file.read_bytes() == b"no database" * 1000


def test_a_damaged_database_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "flyte.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [("x" * 500,)] * 500)
    connection.close()
    content = bytearray(file.read_bytes())
    content[8192:16384] = b"\xff" * 8192
    file.write_bytes(content)
    assert check_database(file, own=None).state == "bad"


def test_a_database_without_its_folder_is_bad(tmp_path: Path) -> None:
    finding = check_database(tmp_path / "none" / "flyte.db", own=None)
    assert finding.state == "bad"
    assert not (tmp_path / "none").exists()


def test_a_data_directory_that_is_a_file_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    assert check_data_dir(file / "deeper").state == "bad"
    assert check_data_dir(tmp_path / "a" / "b").state == "ok"


def test_folders_of_lost_databases_are_shown_and_kept(tmp_path: Path) -> None:
    kept, lost = tmp_path / "kept", tmp_path / "lost"
    for folder, database in ((kept, tmp_path), (lost, tmp_path / "gone.db")):
        folder.mkdir()
        (folder / "database").write_text(f"{database}\n")
    [finding] = check_leftovers(tmp_path)
    assert finding.state == "warn"
    assert str(lost) in finding.text
    assert str(tmp_path / "gone.db") in finding.text
    assert lost.is_dir()


@pytest.mark.parametrize(
    ("machine", "states"),
    [
        (MACHINE, ["ok", "ok"]),
        (replace(MACHINE, find_interpreter=no_interpreter), ["bad"]),
        (replace(MACHINE, find_interpreter=lambda: replace(OURS, sdk_version=None)), ["bad"]),
        (replace(MACHINE, try_warm_start=lambda _: "the no-op failed"), ["ok", "warn"]),
    ],
    ids=["warm", "no interpreter", "no SDK", "cold"],
)
def test_the_tasks_interpreter_and_their_start_are_checked(
    settings: Settings, machine: Machine, states: list[str]
) -> None:
    assert [finding.state for finding in check_tasks(settings.embedded, machine)] == states


def test_cold_starts_that_were_asked_for_are_not_tried(settings: Settings) -> None:
    def never(_: Interpreter) -> str:
        raise AssertionError

    embedded = replace(settings.embedded, warm=False)
    findings = list(check_tasks(embedded, replace(MACHINE, try_warm_start=never)))
    assert "embedded.warm is false" in findings[-1].text


def test_the_last_line_counts() -> None:
    bad, warn = Finding("a", "bad", ""), Finding("b", "warn", "")
    assert verdict([bad, warn, bad]).startswith("2 to mend")
    assert verdict([warn]).startswith("Ready to start; 1 ")
