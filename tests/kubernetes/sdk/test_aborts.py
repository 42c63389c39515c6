"""Aborts, which end pods."""

from tests.kubernetes.clusters import Kubectl
from tests.managers import eventually
from tests.sdk.test_aborts import *  # noqa: F403
from tests.sdk.test_aborts import until_asleep
from tests.sdk.user import ROADS, User


def living_pods(kubectl: Kubectl, run: str) -> list[str]:
    found = kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
    return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] in ("Pending", "Running")]


def test_an_abort_ends_the_pods_of_the_whole_tree_by_either_road(user: User, road: str, kubectl: Kubectl) -> None:
    run = user.begin("endless.tree", mark=f"pods-{road}", env=ROADS[road])
    until_asleep(user, run, 2)
    assert len(living_pods(kubectl, run)) == 4
    user.flyte("abort", "run", run, "--reason", "not today")
    eventually(lambda: not living_pods(kubectl, run), what="the end of the pods")
    phases = {
        one["status"]["phase"]
        for one in kubectl.json("get", "taskactions")["items"]
        if one["metadata"]["labels"]["flyte.org/run"] == run
    }
    assert phases == {"Aborted"}
    for action in ("a0", *user.children(run, "sleeper")):
        assert len(user.attempts(run, action)) == 1
    assert "asleep" in user.flyte("get", "logs", run, user.children(run, "sleeper")[0])
