"""Tasks with bounds that they do not keep, long enough for a pod's Python to start."""

import time

import flyte

env = flyte.TaskEnvironment(name="bounded")


@env.task(timeout=20)
def too_long() -> int:
    print("asleep", flush=True)
    time.sleep(300)
    return 1


@env.task(timeout=30, retries=2)
def long_only_once() -> int:
    context = flyte.ctx()
    assert context is not None
    if context.attempt_number == 0:
        time.sleep(300)
    return context.attempt_number


@env.task(timeout=flyte.Timeout(deadline=45), retries=50)
def fails_on() -> int:
    raise ValueError("not yet")
