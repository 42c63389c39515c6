"""Running one task: Python API and command line, inputs, outputs, logs, and what the database tells of it."""

import json
import re
from collections.abc import Iterable

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import FLYTE, User, finish

pytestmark = pytest.mark.sdk
SAID = ["line 0", "line 1", "line 2", "a warning"]


def told(log: str) -> Iterable[str]:
    """What the task itself said, of the lines of its log."""
    without_time = (re.sub(r"^\[[0-9T:.-]+\]", "", line).strip() for line in log.splitlines())
    return [line for line in without_time if line in SAID]


def test_a_run_by_the_python_api_returns_inputs_and_outputs(user: User) -> None:
    nothing, described = user.runs(
        {"task": "basics.noop"},
        {"task": "basics.describe", "inputs": {"name": "box", "sizes": [2, 3]}},
    )
    assert (nothing["phase"], nothing["outputs"]) == ("succeeded", [None])
    assert (described["phase"], described["outputs"]) == ("succeeded", ["box True", {"2": 4, "3": 9}])
    assert described["inputs"] == {"name": "box", "sizes": [2, 3], "deep": True}


def test_a_run_by_the_command_line_returns_inputs_and_outputs(user: User) -> None:
    user.flyte("run", "--name", "by-hand", "basics.py", "double", "--x", "21")
    eventually(lambda: user.phase("by-hand") == "SUCCEEDED")
    shown = user.flyte("get", "io", "by-hand")
    assert re.search(r"Inputs.*\bx\b.*21", shown, re.DOTALL)
    assert re.search(r"Outputs.*\bo0\b.*42", shown, re.DOTALL)


def test_a_run_of_a_name_that_is_taken_is_refused(user: User) -> None:
    user.runs({"task": "basics.double", "inputs": {"x": 1}, "name": "taken"})
    refused = user.flyte("run", "--name", "taken", "basics.py", "double", "--x", "2", code=1)
    assert "taken" in refused
    assert "exists" in refused
    assert user.details("taken")["status"]["phase"] == "ACTION_PHASE_SUCCEEDED"


def test_a_run_that_is_followed_shows_its_log(user: User) -> None:
    shown = user.flyte("run", "--follow", "basics.py", "talk", "--lines", "3", "--seconds", "0.5")
    assert told(shown) == SAID


def test_logs_are_shown_while_the_task_runs(user: User) -> None:
    run = user.begin("basics.talk", lines=3, seconds=4.0)
    process = user.start(FLYTE, "get", "logs", run)
    assert process.stdout is not None
    before = ""
    while "line 0" not in before:
        line = process.stdout.readline()
        assert line, f"ended without the first line:\n{before}"
        before += line
    assert user.phase(run) == "RUNNING"
    assert told(before + finish(process).output) == SAID
    assert user.phase(run) == "SUCCEEDED"


def test_logs_stay_readable_after_the_end_and_after_a_restart(user: User, manager: Manager) -> None:
    run = user.run("basics.talk", lines=3, seconds=0.0)["name"]
    assert told(user.flyte("get", "logs", run)) == SAID
    manager.stop()
    manager.start()
    assert told(user.flyte("get", "logs", run)) == SAID
    assert user.run("basics.double", x=4)["outputs"] == [8]


def test_a_run_of_an_unknown_name_is_not_found(user: User) -> None:
    assert "not found" in user.flyte("get", "run", "never-made", code=1).lower()


def test_the_database_tells_of_runs_and_actions_in_plain_sql(user: User, manager: Manager) -> None:
    run = user.run("basics.doubles", n=2)["name"]
    actions = manager.rows("SELECT name, phase, state FROM actions WHERE run = ?", run)
    assert len(actions) == 3
    assert {phase for _, phase, _ in actions} == {"SUCCEEDED"}
    assert {json.loads(state)["phase"] for _, _, state in actions} == {"PHASE_SUCCEEDED"}
    assert f"{run}/a0" in {json.loads(state)["actionId"] for _, _, state in actions}
    (row,) = (row for row in manager.rows("SELECT * FROM runs") if run in row)
    assert {"flytesnacks", "development"} < set(row)
