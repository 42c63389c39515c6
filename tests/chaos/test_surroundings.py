"""The machine around the manager misbehaves: full and read-only disks, no file descriptors, clocks that are set."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.managers import Manager, eventually, run_of

DISK_MIB = 48
DESCRIPTORS = 160


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, which the manager is given whole."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def create(manager: Manager, name: str, *command: str) -> httpx.Response:
    return manager.call("workflow.RunService/CreateRun", run_of(name, *command))


def phase(manager: Manager, name: str) -> str:
    scope = {"project": "flytesnacks", "domain": "development", "name": name}
    answer = manager.call("workflow.RunService/GetRun", {"runId": scope}).raise_for_status().json()
    return str(answer["details"]["action"]["status"]["phase"]).removeprefix("ACTION_PHASE_")


def until(manager: Manager, name: str, wanted: str) -> None:
    eventually(lambda: phase(manager, name) == wanted, what=f"{name} {wanted}")


def fill(disk: Path) -> Path:
    """Takes all that is left."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def test_on_a_full_disk_requests_are_refused_in_words_and_all_goes_on_when_there_is_room(disk: Path) -> None:
    with Manager(disk / "manager") as manager:
        create(manager, "before", "true").raise_for_status()
        until(manager, "before", "SUCCEEDED")
        create(manager, "during", "sh", "-c", f"while [ ! -e {disk}/go ]; do sleep 0.1; done").raise_for_status()
        until(manager, "during", "RUNNING")
        (disk / "go.later").touch()
        filler = fill(disk)

        # what SQLite has still room for in its log is taken, and counts
        answers = [create(manager, f"refused{number}", "true") for number in range(40)]
        refused = [answer for answer in answers if answer.status_code != httpx.codes.OK]
        assert refused
        for answer in refused:
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert "space" in answer.json()["message"]
        assert phase(manager, "before") == "SUCCEEDED"
        (disk / "go.later").rename(disk / "go")
        time.sleep(1)
        assert manager.process is not None
        assert manager.process.poll() is None

        filler.unlink()
        until(manager, "during", "SUCCEEDED")
        assert manager.rows("SELECT attempt FROM actions WHERE run = 'during'") == [(1,)]  # its end waited for room
        create(manager, "after", "true").raise_for_status()
        until(manager, "after", "SUCCEEDED")
        kept = [f"refused{number}" for number, answer in enumerate(answers) if answer.status_code == httpx.codes.OK]
        for name in kept:
            until(manager, name, "SUCCEEDED")
        assert len(manager.rows("SELECT name FROM runs")) == 3 + len(kept)


def test_on_a_read_only_disk_it_refuses_to_start_in_words(disk: Path, tmp_path: Path) -> None:
    with Manager(tmp_path / "manager", {"database.sqlite.file": str(disk / "flyte.db")}) as manager:
        create(manager, "before", "true").raise_for_status()
        until(manager, "before", "SUCCEEDED")
        manager.stop()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        manager.spawn()
        assert manager.until_ended() == 1
        assert f"{disk}/flyte.db" in manager.last_log
        assert "let the manager's user read and write" in manager.last_log
        assert "Traceback" not in manager.last_log

        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        manager.start()
        assert phase(manager, "before") == "SUCCEEDED"


def readiness(manager: Manager) -> tuple[int, str]:
    answer = httpx.get(f"http://localhost:{manager.ports['health']}/readyz", trust_env=False)
    return answer.status_code, answer.text


def test_while_its_database_can_not_be_written_it_says_so_and_goes_on_by_itself_afterwards(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Manager(tmp_path / "manager") as manager:
        create(manager, "during", "sh", "-c", f"while [ ! -e {go} ]; do sleep 0.1; done").raise_for_status()
        until(manager, "during", "RUNNING")
        resource.prlimit(manager.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        sentence = f"the database {manager.database} can't be read or written: look after the disk"
        for number in range(3):
            refused = create(manager, f"refused{number}", "true")
            assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert sentence in refused.json()["message"]
        scope = {"project": "flytesnacks", "domain": "development", "name": "during"}
        refused = manager.call("workflow.RunService/AbortRun", {"runId": scope})
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        status, told = readiness(manager)
        assert (status, sentence in told) == (httpx.codes.SERVICE_UNAVAILABLE, True)
        go.touch()
        time.sleep(1)
        assert phase(manager, "during") == "RUNNING"
        assert manager.process is not None
        assert manager.process.poll() is None

        resource.prlimit(manager.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert readiness(manager)[0] == httpx.codes.OK
        until(manager, "during", "SUCCEEDED")
        assert manager.rows("SELECT attempt FROM actions WHERE run = 'during'") == [(1,)]  # its end waited for room
        create(manager, "after", "true").raise_for_status()
        until(manager, "after", "SUCCEEDED")
        assert sorted(manager.rows("SELECT name FROM runs")) == [("after",), ("during",)]


def test_without_file_descriptors_it_waits_for_some_and_loses_nothing(tmp_path: Path) -> None:
    with Manager(tmp_path / "manager") as manager:
        resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        create(manager, "during", "sleep", "2").raise_for_status()
        with contextlib.ExitStack() as opened:
            for _ in range(DESCRIPTORS):
                connection = opened.enter_context(socket.socket())
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.1", manager.ports["api"]))
            time.sleep(3)
            assert manager.process is not None
            assert manager.process.poll() is None
        # not asked of the manager: a connection for which it has no descriptor yet may be taken and dropped
        ended = "SELECT phase, attempt FROM actions WHERE run = 'during'"
        eventually(lambda: manager.rows(ended) == [("SUCCEEDED", 1)], what="its end, which waited for room")
        create(manager, "after", "true").raise_for_status()
        until(manager, "after", "SUCCEEDED")
        assert len(manager.last_log) < 100_000


CLOCK = """
import sys
from datetime import timedelta
from pathlib import Path

from flyte_manager import app
from flyte_manager.cli import main

now, file = app._now, Path(sys.argv.pop(1))
app._now = lambda: now() + timedelta(hours=float(file.read_text()))
raise SystemExit(main())
"""


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_changes_no_phase(tmp_path: Path, hours: int) -> None:
    offset, program, go = tmp_path / "hours", tmp_path / "clock.py", tmp_path / "go"
    offset.write_text("0")
    program.write_text(CLOCK)
    waits = ("sh", "-c", f"while [ ! -e {go} ]; do sleep 0.1; done")
    with Manager(tmp_path / "manager", command=(sys.executable, str(program), str(offset))) as manager:
        bounded = run_of("bounded", *waits)
        bounded["taskSpec"]["taskTemplate"]["metadata"] = {  # type: ignore[index]
            "timeout": "600s",
            "timeouts": {"queuedTimeout": "600s", "deadline": "600s"},
        }
        manager.call("workflow.RunService/CreateRun", bounded).raise_for_status()
        create(manager, "plain", *waits).raise_for_status()
        until(manager, "bounded", "RUNNING")
        offset.write_text(str(hours))
        create(manager, "later", *waits).raise_for_status()
        until(manager, "later", "RUNNING")
        time.sleep(2)
        assert phase(manager, "bounded") == phase(manager, "plain") == "RUNNING"

        go.touch()
        for name in ("bounded", "plain", "later"):
            until(manager, name, "SUCCEEDED")
        for table in ("actions", "attempts"):
            spans = manager.rows(f"SELECT created_at <= ended_at, started_at <= ended_at FROM {table}")
            assert set(spans) == {(1, 1)}


def test_it_is_told_when_its_database_is_taken_away(tmp_path: Path) -> None:
    with Manager(tmp_path / "manager") as manager:
        create(manager, "before", "true").raise_for_status()
        until(manager, "before", "SUCCEEDED")
        manager.database.rename(tmp_path / "elsewhere.db")
        refused = create(manager, "refused", "true")
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "put it back" in refused.json()["message"]
        (tmp_path / "elsewhere.db").rename(manager.database)
        create(manager, "after", "true").raise_for_status()
        until(manager, "after", "SUCCEEDED")


def test_a_damaged_database_is_told_with_the_way_out(tmp_path: Path) -> None:
    with Manager(tmp_path / "manager") as manager:
        create(manager, "before", "true").raise_for_status()
        until(manager, "before", "SUCCEEDED")
        manager.stop()
        size = manager.database.stat().st_size
        with manager.database.open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(size - 8192))
        manager.spawn()
        assert manager.until_ended() == 1
        assert "is damaged" in manager.last_log
        assert ".recover" in manager.last_log
        assert "Traceback" not in manager.last_log
