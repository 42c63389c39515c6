"""What fails in pods, whose files go with them: a folder of the node stands for what outlives an attempt."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kubernetes.clusters import Kubectl
from tests.managers import eventually
from tests.sdk.test_failures import *  # noqa: F403
from tests.sdk.user import User

LEFT_OUT = {
    "test_a_killed_process_is_told_with_its_signal": "the first process of a container can't kill itself: see below",
}


@pytest.fixture(scope="module")
def pods_settings(shared: Path) -> Mapping[str, str]:
    mount = {"name": "shared", "mountPath": str(shared)}
    spec = {
        "volumes": [{"name": "shared", "hostPath": {"path": str(shared)}}],
        "containers": [{"name": "default", "volumeMounts": [mount]}],
    }
    return {"manager.kubernetes.podDefaults": json.dumps({"spec": spec})}


def test_logs_of_failed_attempts_stay_readable_after_their_pods_are_gone(user: User, kubectl: Kubectl) -> None:
    run = user.run("failures.flaky", fails=9)["name"]
    kubectl("delete", "pods", f"--selector=flyte.org/run={run}", "--now")
    eventually(lambda: not kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"], what="the end")
    for number in (1, 2, 3):
        log = user.flyte("get", "logs", run, "a0", "--attempt", str(number))
        assert f"attempt {number - 1} failed" in log
        assert f"attempt {number} failed" not in log


def test_a_pod_that_takes_more_memory_than_it_may_is_told_so(user: User) -> None:
    run = user.run("greedy.eats")
    assert run["phase"] == "failed"
    assert "killed for want of memory; its memory limit is 200Mi" in run["error"]
