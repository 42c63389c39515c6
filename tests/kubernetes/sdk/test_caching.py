"""Cached tasks as pods, which count their calls in a folder of the node."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kubernetes.clusters import Kubectl
from tests.s3 import S3Server
from tests.sdk.test_caching import *  # noqa: F403
from tests.sdk.test_caching import Calls
from tests.sdk.user import User

LEFT_OUT = {
    "test_outputs_that_are_gone_are_made_again": "they lie in S3; what happens then is the same",
}


@pytest.fixture(scope="module")
def pods_settings(shared: Path) -> Mapping[str, str]:
    mount = {"name": "shared", "mountPath": str(shared)}
    spec = {
        "volumes": [{"name": "shared", "hostPath": {"path": str(shared)}}],
        "containers": [{"name": "default", "volumeMounts": [mount]}],
    }
    return {"manager.kubernetes.podDefaults": json.dumps({"spec": spec})}


@pytest.fixture(scope="module", autouse=True)
def key(user: User, s3: S3Server) -> None:
    """The SDK opens files of the store itself, so users who do need a key of their own."""
    user.env = s3.task_env


def test_a_hit_has_a_taskaction_and_no_pod(calls: Calls, kubectl: Kubectl) -> None:
    for status, told in zip((3, 2), calls.run(*[("triple", {"x": 60})] * 2), strict=True):
        run = told["name"]
        assert kubectl.json("get", "taskactions", f"{run}-a0")["status"]["cacheStatus"] == status
    assert not kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
