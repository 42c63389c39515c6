"""What fails: caught, told, retried attempt by attempt, given up."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.user import ROADS, User

pytestmark = pytest.mark.sdk
Runs = Mapping[str, Mapping[str, Any]]
ROAD = ["QUEUED", "INITIALIZING", "RUNNING"]


@pytest.fixture(scope="module")
def runs(user: User, road: str, shared: Path) -> Runs:
    """The ended runs, by task: all at once, from one process."""
    folder = shared / road
    folder.mkdir()
    inputs: Mapping[str, Mapping[str, object]] = {
        "catches": {},
        "catches_not": {},
        "flaky": {"fails": 2},
        "dies_once": {},
        "gives_up": {},
        "retried_parent": {"folder": str(folder)},
    }
    orders = [{"task": f"failures.{task}", "inputs": given, "env": ROADS[road]} for task, given in inputs.items()]
    return dict(zip(inputs, user.runs(*orders), strict=True))


def phases(attempt: Mapping[str, Any]) -> list[str]:
    return [each["phase"].removeprefix("ACTION_PHASE_") for each in attempt["phaseTransitions"]]


def starts(attempt: Mapping[str, Any]) -> Iterable[datetime]:
    return [datetime.fromisoformat(each["startTime"]) for each in attempt["phaseTransitions"]]


def ends(attempts: Iterable[Mapping[str, Any]]) -> list[str]:
    return [attempt["phase"].removeprefix("ACTION_PHASE_") for attempt in attempts]


def test_a_parent_catches_the_failure_of_its_child(user: User, runs: Runs) -> None:
    run = runs["catches"]
    assert (run["phase"], run["outputs"]) == ("succeeded", ["ValueError: this is bad"])
    (child,) = user.children(run["name"], "bad")
    assert user.phase(run["name"], child) == "FAILED"


def test_a_failure_that_nobody_catches_is_told_in_words(user: User, runs: Runs) -> None:
    run = runs["catches_not"]
    assert run["phase"] == "failed"
    assert "that is bad" in run["error"]
    (child,) = user.children(run["name"], "bad")
    for action in ("a0", child):
        error = user.details(run["name"], action)["errorInfo"]
        assert "that is bad" in error["message"]
        assert error["kind"] == "KIND_USER"


def test_each_attempt_is_recorded_with_its_error_and_its_phases(user: User, runs: Runs) -> None:
    run = runs["flaky"]
    assert run["outputs"] == [2]
    attempts = user.attempts(run["name"])
    assert [attempt["attempt"] for attempt in attempts] == [1, 2, 3]
    assert ends(attempts) == ["FAILED", "FAILED", "SUCCEEDED"]
    for number, attempt in enumerate(attempts[:2]):
        assert f"attempt {number} failed" in attempt["errorInfo"]["message"]
    assert "errorInfo" not in attempts[2]
    for attempt, end in zip(attempts, ends(attempts), strict=True):
        walked = phases(attempt)
        assert [phase for phase in walked if phase != "WAITING_FOR_RESOURCES"] == [*ROAD, end]
        assert list(starts(attempt)) == sorted(starts(attempt))
    assert len({attempt["outputs"]["outputUri"] for attempt in attempts}) == 3


def test_each_attempt_has_its_own_log(user: User) -> None:
    run = user.run("failures.flaky", fails=1)["name"]
    failed, succeeded = (user.flyte("get", "logs", run, "a0", "--attempt", number) for number in "12")
    assert "attempt 0 failed" in failed
    assert "attempt 0 failed" not in succeeded


def test_a_task_that_fails_too_often_ends_with_its_last_error(user: User) -> None:
    run = user.run("failures.flaky", fails=9)
    assert run["phase"] == "failed"
    assert "attempt 2 failed" in run["error"]
    assert ends(user.attempts(run["name"])) == ["FAILED"] * 3


def test_the_death_of_a_process_is_retried(user: User, runs: Runs) -> None:
    run = runs["dies_once"]
    assert run["outputs"] == [1]
    died, lived = user.attempts(run["name"])
    assert ends([died, lived]) == ["FAILED", "SUCCEEDED"]
    assert "exit code 7" in died["errorInfo"]["message"]


def test_a_killed_process_is_told_with_its_signal(user: User) -> None:
    run = user.run("failures.is_killed")
    assert run["phase"] == "failed"
    assert "signal 9" in run["error"]


def test_a_non_recoverable_error_is_not_retried(user: User, runs: Runs) -> None:
    run = runs["gives_up"]
    assert "there is no way" in run["error"]
    assert len(user.attempts(run["name"])) == 1


def test_a_retry_waits_as_its_backoff_says(user: User) -> None:
    run = user.run("failures.patient")
    assert run["outputs"] == [1]
    first, second = user.attempts(run["name"])
    failed, running = list(starts(first))[-1], list(starts(second))[phases(second).index("RUNNING")]
    assert (running - failed).total_seconds() >= 1.0


def test_a_parents_retry_runs_its_failed_child_again_and_keeps_the_finished_one(user: User, runs: Runs) -> None:
    run = runs["retried_parent"]
    assert run["outputs"] == [[1, 1]]
    assert ends(user.attempts(run["name"])) == ["FAILED", "SUCCEEDED"]
    (failed,) = user.children(run["name"], "fails_in_the_first_attempt_of_its_parent")
    assert ends(user.attempts(run["name"], failed)) == ["FAILED", "SUCCEEDED"]
    (finished,) = user.children(run["name"], "succeeds_only_once")
    assert ends(user.attempts(run["name"], finished)) == ["SUCCEEDED"]


def test_an_attempt_finds_the_checkpoint_of_the_one_before(user: User) -> None:
    run = user.run("failures.saves_its_work")
    assert run["outputs"] == ["half of it"]
    assert ends(user.attempts(run["name"])) == ["FAILED", "SUCCEEDED"]
