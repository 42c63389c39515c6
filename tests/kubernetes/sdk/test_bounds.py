"""Bounds of tasks that are pods: the same words, and the pods go."""

import time

import pytest

from tests.kubernetes.clusters import Kubectl
from tests.managers import Manager, eventually
from tests.sdk.test_bounds import *  # noqa: F403
from tests.sdk.test_bounds import Runs, ends
from tests.sdk.user import User

TOO_SHORT = "a pod's Python starts too slowly for these bounds: see below"
LEFT_OUT = {
    "test_a_task_that_runs_too_long_times_out_and_keeps_its_log": TOO_SHORT,
    "test_an_attempt_that_timed_out_is_tried_again": TOO_SHORT,
    "test_the_deadline_ends_an_action_whatever_retries_are_left": TOO_SHORT,
    "test_what_finds_no_room_in_time_is_not_started": "room is the scheduler's business: see below",
    "test_an_attempt_is_ended_in_time_while_the_manager_is_away": "pods have no shepherd: see below",
}


@pytest.fixture(scope="module")
def slow(user: User) -> Runs:
    """The ended runs, by task: all at once, from one process."""
    tasks = ("bounded.too_long", "bounded.long_only_once", "bounded.fails_on", "unschedulable.needs_a_giant")
    return dict(zip(tasks, user.runs(*({"task": task} for task in tasks)), strict=True))


def test_a_pod_that_runs_too_long_is_deleted_and_keeps_its_log(user: User, kubectl: Kubectl, slow: Runs) -> None:
    run = slow["bounded.too_long"]
    assert run["error"].startswith("MaxRuntimeExceededError")
    assert "the task ran longer than its max_runtime of 20 s" in run["error"]
    assert ends(user.attempts(run["name"])) == ["TIMED_OUT"]
    eventually(lambda: not living(kubectl, run["name"]), 60, what="the end of the pod")
    eventually(lambda: "asleep" in user.flyte("get", "logs", run["name"]), 60, what="the log")
    status = kubectl.json("get", "taskaction", f"{run['name']}-a0")["status"]
    assert status["phase"] == "TimedOut"


def test_a_pods_attempt_that_timed_out_is_tried_again(user: User, slow: Runs) -> None:
    run = slow["bounded.long_only_once"]
    assert run["outputs"] == [1]
    assert ends(user.attempts(run["name"])) == ["TIMED_OUT", "SUCCEEDED"]


def test_the_deadline_ends_an_action_of_pods_whatever_retries_are_left(user: User, slow: Runs) -> None:
    run = slow["bounded.fails_on"]
    assert run["error"].startswith("DeadlineExceededError")
    assert "deadline of 45 s, which counts over all attempts" in run["error"]
    *failed, last = ends(user.attempts(run["name"]))
    assert set(failed) == {"FAILED"}
    assert last == "TIMED_OUT"


def test_a_pod_that_finds_no_node_in_time_is_given_up_with_the_schedulers_words(
    user: User, kubectl: Kubectl, slow: Runs
) -> None:
    run = slow["unschedulable.needs_a_giant"]
    assert run["error"].startswith("MaxQueuedTimeExceededError")
    assert "max_queued_time (queued_timeout) of 3 s: " in run["error"]
    assert "Insufficient cpu" in run["error"]
    assert ends(user.attempts(run["name"])) == ["TIMED_OUT"]
    eventually(lambda: not living(kubectl, run["name"]), 60, what="the end of the pod")


def test_an_attempt_that_ran_too_long_while_the_manager_was_away_ends_when_it_is_back(
    user: User, manager: Manager, kubectl: Kubectl
) -> None:
    run = user.begin("bounded.long_only_once")
    eventually(lambda: user.phase(run) == "RUNNING", 60, what="RUNNING")
    manager.kill9()
    time.sleep(31)
    manager.start()
    eventually(lambda: user.phase(run) == "SUCCEEDED", 90, what="the end of the run")
    late, again = user.attempts(run)
    assert ends([late, again]) == ["TIMED_OUT", "SUCCEEDED"]
    assert late["errorInfo"]["message"] == "the task ran longer than its max_runtime of 30 s"
    eventually(lambda: not living(kubectl, run), 60, what="the end of the pods")


def living(kubectl: Kubectl, run: str) -> list[str]:
    found = kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
    return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] in ("Pending", "Running")]
