"""Tasks that treat their process, their files and their output badly: they fail in words, and harm nobody else."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk
Runs = Mapping[str, Mapping[str, Any]]

LOG_LIMIT = 64 << 20
MEMORY_LIMIT = 250 << 20


@pytest.fixture(scope="module")
def runs(user: User, shared: Path) -> Runs:
    """The ended runs, by task: all at once, from one process."""
    inputs: Mapping[str, Mapping[str, object]] = {
        "imports_what_is_not_there": {},
        "imports_what_is_no_python": {"folder": str(shared)},
        "leaves_at_once": {},
        "crashes": {},
        "eats_memory": {},
        "leaves_a_daemon": {"folder": str(shared)},
        "talks_a_gigabyte": {},
        "talks_binary": {},
        "removes_its_outputs": {},
        "cuts_its_outputs": {},
        "writes_a_broken_error": {},
        "closes_its_output": {},
        "says_that_it_is_done": {},
        "gives_up_in_words": {},
        "asserts": {},
        "links_its_outputs_elsewhere": {},
        "removes_its_folder": {"folder": str(shared)},
    }
    orders = [{"task": f"misbehaving.{task}", "inputs": given} for task, given in inputs.items()]
    return dict(zip(inputs, user.runs(*orders), strict=True))


@pytest.mark.parametrize(
    ("task", "code", "words"),
    [
        ("imports_what_is_not_there", "ModuleNotFoundError", "No module named 'no_such_module_anywhere'"),
        ("imports_what_is_not_there", "ModuleNotFoundError", "pip install no_such_module_anywhere"),
        ("imports_what_is_no_python", "SyntaxError", "broken.py"),
        ("leaves_at_once", "ProcessDied", "ended with exit code 3 and wrote no error"),
        ("crashes", "ProcessDied", "killed by signal 11"),
        ("eats_memory", "OOM", "its limit is 300 MiB: raise resources.memory"),
        ("removes_its_outputs", "OutputsMissing", "wrote no outputs.pb"),
        ("cuts_its_outputs", "OutputsDamaged", "its outputs.pb"),
        ("writes_a_broken_error", "BrokenErrorDocument", "error.pb can't be read"),
        ("closes_its_output", "OSError", "Bad file descriptor"),
        ("says_that_it_is_done", "OutputsMissing", "did it call sys.exit"),
        ("gives_up_in_words", "ProcessDied", "wrote no error: there is nothing to do today; see its log"),
        ("asserts", "AssertionError", "AssertionError, without a message: see its log"),
        ("links_its_outputs_elsewhere", "OutputsUnreadable", "lies outside this manager's store"),
        ("removes_its_folder", "ProcessVanished", "was removed, by itself or by somebody else"),
    ],
)
def test_it_fails_with_words_to_act_on(
    manager: Manager, user: User, runs: Runs, task: str, code: str, words: str
) -> None:
    run = runs[task]
    details = user.details(run["name"])
    assert run["phase"] == "failed"
    assert words in details["errorInfo"]["message"]
    ((told,),) = manager.rows("SELECT error_code FROM actions WHERE run = ? AND name = 'a0'", run["name"])
    assert told == code


def test_a_daemon_that_it_leaves_behind_ends_with_it(runs: Runs, shared: Path) -> None:
    daemon = int((shared / "daemon.pid").read_text())
    assert runs["leaves_a_daemon"]["phase"] == "succeeded"
    eventually(lambda: not os.path.exists(f"/proc/{daemon}"), what="the daemon's end")


def test_an_attempt_that_removes_its_folder_ran_once(user: User, runs: Runs, shared: Path) -> None:
    attempts = user.attempts(runs["removes_its_folder"]["name"])
    assert len((shared / "started").read_text()) == len(attempts) == 4


def test_a_gigabyte_of_output_is_cut_and_the_task_goes_on(manager: Manager, runs: Runs) -> None:
    run = runs["talks_a_gigabyte"]
    (log,) = manager.data.glob(f"attempts/*/*/{run['name']}/a0/1/log")
    assert run["phase"] == "succeeded"
    assert log.stat().st_size < LOG_LIMIT * 1.1


def test_output_that_is_no_text_is_shown_as_well_as_it_can_be(user: User, runs: Runs) -> None:
    run = runs["talks_binary"]
    assert run["phase"] == "succeeded"
    assert "and then text" in user.flyte("get", "logs", run["name"])


def test_the_manager_goes_on_unharmed(manager: Manager, user: User, runs: Runs) -> None:
    assert len(runs) > 10
    assert user.run("misbehaving.goes_well")["phase"] == "succeeded"
    resident = int(Path(f"/proc/{manager.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < MEMORY_LIMIT
    assert "Traceback" not in manager.log
