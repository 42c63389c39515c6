"""Tasks that need more than processes."""

import flyte
from flyte.extras import ContainerTask

plain = flyte.TaskEnvironment(name="plain")
pods = flyte.TaskEnvironment(name="pods", pod_template="big-pods")
reused = flyte.TaskEnvironment(name="reused", reusable=flyte.ReusePolicy(replicas=1, idle_ttl=60))
container = ContainerTask(name="container", image="alpine:3", command=["true"], inputs={}, outputs={})
containers = flyte.TaskEnvironment.from_task("containers", container)


@pods.task
async def in_a_pod() -> int:
    return 1


@reused.task
async def in_a_reused_container() -> int:
    return 1
