"""Tasks with bounds that they do not keep."""

import asyncio
import time
from datetime import timedelta

import flyte
import flyte.errors

env = flyte.TaskEnvironment(name="bounds", resources=flyte.Resources(cpu="100m"))
full = flyte.TaskEnvironment(name="full", resources=flyte.Resources(cpu=1))


def _attempt() -> int:
    context = flyte.ctx()
    assert context is not None
    return context.attempt_number


@env.task(timeout=2)
def too_long() -> int:
    print("asleep", flush=True)
    time.sleep(300)
    return 1


@env.task(timeout=flyte.Timeout(max_runtime=timedelta(seconds=4)), retries=2)
def long_only_once() -> int:
    if _attempt() == 0:
        time.sleep(300)
    return _attempt()


@env.task(timeout=flyte.Timeout(deadline=8), retries=50)
def fails_on() -> int:
    time.sleep(1)
    raise ValueError("not yet")


@env.task(timeout=flyte.Timeout(max_runtime=60, max_queued_time=60, deadline=60))
async def keeps_them() -> int:
    return 1


@env.task
async def catches() -> str:
    try:
        await too_long.aio()
    except flyte.errors.MaxRuntimeExceededError as error:
        return f"{error.code}: {error}"
    return "nothing to catch"


@full.task
def hog(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@full.task(timeout=flyte.Timeout(max_queued_time=2))
def impatient() -> int:
    return 1


@env.task
async def crowded() -> str:
    running = asyncio.create_task(hog.aio(6.0))
    await asyncio.sleep(2)
    try:
        await impatient.aio()
    except flyte.errors.MaxQueuedTimeExceededError as error:
        return f"{error.code}: {error}"
    finally:
        await running
    return "there was room"


@env.task(retries=flyte.RetryStrategy(count=9, backoff=flyte.Backoff(base=timedelta(minutes=1))))
async def waits_to_be_tried_again() -> int:
    raise ValueError("again")


@env.task
def short(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
