"""Bounds of tasks: what is ended when, what the SDK makes of it."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk
Runs = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def settings() -> Mapping[str, str]:
    """A machine that one task fills, and bounds of its own."""
    return {"embedded.cpu": "1", "tasks.maxRuntime.most": "1h", "tasks.deadline.default": "30m"}


@pytest.fixture(scope="module")
def runs(user: User) -> Runs:
    """The ended runs, by task: all at once, from one process."""
    tasks = ("too_long", "long_only_once", "fails_on", "catches", "keeps_them")
    return dict(zip(tasks, user.runs(*({"task": f"bounds.{task}"} for task in tasks)), strict=True))


def ends(attempts: list[dict[str, Any]]) -> list[str]:
    return [attempt["phase"].removeprefix("ACTION_PHASE_") for attempt in attempts]


def length(attempt: Mapping[str, Any]) -> float:
    """Seconds in RUNNING."""
    times = {each["phase"]: datetime.fromisoformat(each["startTime"]) for each in attempt["phaseTransitions"]}
    return (times["ACTION_PHASE_TIMED_OUT"] - times["ACTION_PHASE_RUNNING"]).total_seconds()


def test_a_task_that_runs_too_long_times_out_and_keeps_its_log(user: User, runs: Runs) -> None:
    run = runs["too_long"]
    assert run["phase"] == "timed_out"
    assert run["error"].startswith("MaxRuntimeExceededError")
    assert "the task ran longer than its max_runtime of 2 s" in run["error"]
    (attempt,) = user.attempts(run["name"])
    assert attempt["errorInfo"] == user.details(run["name"])["errorInfo"]
    assert (attempt["errorInfo"]["code"], attempt["errorInfo"]["kind"]) == ("MAX_RUNTIME_EXCEEDED", "KIND_USER")
    assert 1.5 < length(attempt) < 6
    assert "asleep" in user.flyte("get", "logs", run["name"])


def test_an_attempt_that_timed_out_is_tried_again(user: User, runs: Runs) -> None:
    run = runs["long_only_once"]
    assert run["outputs"] == [1]
    assert ends(user.attempts(run["name"])) == ["TIMED_OUT", "SUCCEEDED"]


def test_the_deadline_ends_an_action_whatever_retries_are_left(user: User, runs: Runs) -> None:
    run = runs["fails_on"]
    assert run["phase"] == "timed_out"
    assert run["error"].startswith("DeadlineExceededError")
    assert "deadline of 8 s, which counts over all attempts" in run["error"]
    *failed, last = ends(user.attempts(run["name"]))
    assert failed
    assert set(failed) == {"FAILED"}
    assert last == "TIMED_OUT"


def test_a_parent_catches_that_its_child_timed_out(runs: Runs) -> None:
    run = runs["catches"]
    assert run["outputs"][0].startswith("MaxRuntimeExceededError: ")
    assert "max_runtime of 2 s" in run["outputs"][0]


def test_what_finds_no_room_in_time_is_not_started(user: User) -> None:
    run = user.run("bounds.crowded")
    assert run["outputs"][0].startswith("MaxQueuedTimeExceededError: ")
    assert "max_queued_time (queued_timeout) of 2 s" in run["outputs"][0]
    (child,) = user.children(run["name"], "impatient")
    (attempt,) = user.attempts(run["name"], child)
    assert ends([attempt]) == ["TIMED_OUT"]
    assert "ACTION_PHASE_RUNNING" not in str(attempt["phaseTransitions"])


def test_a_task_that_keeps_its_bounds_notices_nothing(user: User, runs: Runs) -> None:
    run = runs["keeps_them"]
    assert run["outputs"] == [1]
    assert "max_runtime" not in user.flyte("get", "logs", run["name"])


def test_an_attempt_is_ended_in_time_while_the_manager_is_away(user: User, manager: Manager) -> None:
    run = user.begin("bounds.long_only_once")
    eventually(lambda: user.phase(run) == "RUNNING", what="RUNNING")
    manager.kill9()
    time.sleep(5)
    manager.start()
    eventually(lambda: user.phase(run) == "SUCCEEDED", what="the end of the run")
    late, again = user.attempts(run)
    assert ends([late, again]) == ["TIMED_OUT", "SUCCEEDED"]
    assert late["errorInfo"]["message"] == "the task ran longer than its max_runtime of 4 s"
    assert 3.5 < length(late) < 5.5


def test_a_deadline_that_passed_while_the_manager_was_away_counts(user: User, manager: Manager) -> None:
    run = user.begin("bounds.fails_on")
    eventually(lambda: user.phase(run) in ("RUNNING", "QUEUED"), what="a beginning")
    manager.kill9()
    time.sleep(9)
    manager.start()
    eventually(lambda: user.phase(run) == "TIMED_OUT", what="the end of the run")
    assert user.details(run)["errorInfo"]["code"] == "DEADLINE_EXCEEDED"
