"""Aborts, which end pods."""

from tests.kubernetes.clusters import Kubectl
from tests.managers import eventually
from tests.sdk.test_aborts import *  # noqa: F403
from tests.sdk.test_aborts import GRACE, until_asleep
from tests.sdk.user import ROADS, User


def living_pods(kubectl: Kubectl, run: str) -> list[str]:
    found = kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
    return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] in ("Pending", "Running")]


def test_an_abort_ends_the_pods_of_a_tree_that_came_by_the_queue(user: User, kubectl: Kubectl) -> None:
    run = user.begin("endless.tree", mark="queued", env=ROADS["queue"])
    first, second = until_asleep(user, run, "queued")
    assert len(living_pods(kubectl, run)) == 4
    user.flyte("abort", "run", run, "--reason", "not today")
    eventually(lambda: not living_pods(kubectl, run), GRACE, what="the end of the pods")
    told = [
        kubectl.json("get", "taskaction", f"{run}-{action['id']['name']}")["status"] for action in user.actions(run)
    ]
    assert [status["phase"] for status in told] == ["Aborted"] * 4
    for action in ("a0", first, second):
        assert len(user.attempts(run, action)) == 1
    log = user.flyte("get", "logs", run, first)
    assert "asleep" in log
    assert "The attempt was stopped." in log
