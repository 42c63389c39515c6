"""Bounds of tasks that are pods: the same words, and the pods go."""

import time

from tests.kubernetes.clusters import Kubectl
from tests.managers import Manager, eventually
from tests.sdk.test_bounds import *  # noqa: F403
from tests.sdk.test_bounds import ends
from tests.sdk.user import User

LEFT_OUT = {
    "test_what_finds_no_room_in_time_is_not_started": "room is the scheduler's business: see below",
    "test_an_attempt_is_ended_in_time_while_the_manager_is_away": "pods have no shepherd: see below",
}


def test_a_pod_that_finds_no_node_in_time_is_given_up_with_the_schedulers_words(user: User, kubectl: Kubectl) -> None:
    run = user.run("unschedulable.needs_a_giant")
    assert run["error"].startswith("MaxQueuedTimeExceededError")
    assert "max_queued_time (queued_timeout) of 3 s; it " in run["error"]
    assert "Insufficient cpu" in run["error"]
    assert ends(user.attempts(run["name"])) == ["TIMED_OUT"]
    eventually(lambda: not living(kubectl, run["name"]), 60, what="the end of the pod")


def test_an_attempt_that_ran_too_long_while_the_manager_was_away_ends_when_it_is_back(
    user: User, manager: Manager, kubectl: Kubectl
) -> None:
    run = user.begin("bounds.long_only_once")
    eventually(lambda: user.phase(run) == "RUNNING", 60, what="RUNNING")
    manager.kill9()
    time.sleep(5)
    manager.start()
    eventually(lambda: user.phase(run) == "SUCCEEDED", 90, what="the end of the run")
    late, again = user.attempts(run)
    assert ends([late, again]) == ["TIMED_OUT", "SUCCEEDED"]
    assert late["errorInfo"]["message"] == "the task ran longer than its max_runtime of 4 s"
    eventually(lambda: not living(kubectl, run), 60, what="the end of the pods")


def living(kubectl: Kubectl, run: str) -> list[str]:
    found = kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
    return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] in ("Pending", "Running")]
