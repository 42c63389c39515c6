"""Running one task as a pod."""

from tests.kubernetes.clusters import Kubectl
from tests.managers import eventually
from tests.sdk.test_runs import *  # noqa: F403
from tests.sdk.test_runs import SAID, told
from tests.sdk.user import User


def test_logs_stay_readable_after_the_pod_is_gone(user: User, kubectl: Kubectl) -> None:
    run = user.run("basics.talk", lines=3, seconds=0.0)["name"]
    kubectl("delete", "pods", f"--selector=flyte.org/run={run}", "--now")
    eventually(lambda: not kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"], what="the end")
    assert told(user.flyte("get", "logs", run)) == SAID
