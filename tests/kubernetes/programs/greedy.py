"""A task that takes more than it asked for."""

import flyte

env = flyte.TaskEnvironment(name="greedy", resources=flyte.Resources(memory="200Mi"))


@env.task
def eats() -> int:
    return len(b"x" * 500_000_000)
