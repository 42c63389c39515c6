"""A task that no node can take."""

import flyte

env = flyte.TaskEnvironment(name="unschedulable", resources=flyte.Resources(cpu=900))


@env.task(timeout=flyte.Timeout(max_queued_time=3))
def needs_a_giant() -> int:
    return 1
