"""Tasks that fail in every way, and their parents."""

import os
import signal
from datetime import timedelta

import flyte
import flyte.errors

env = flyte.TaskEnvironment(name="failures")


def _attempt() -> int:
    context = flyte.ctx()
    assert context is not None
    assert str(context.attempt_number) == os.environ["FLYTE_ATTEMPT_NUMBER"]
    return context.attempt_number


@env.task
async def bad(what: str) -> int:
    raise ValueError(f"{what} is bad")


@env.task
async def catches() -> str:
    try:
        await bad("this")
    except flyte.errors.RuntimeUserError as error:
        return f"{error.code}: {error}"
    return "nothing to catch"


@env.task
async def catches_not() -> int:
    return await bad("that")


@env.task(retries=2)
async def flaky(fails: int) -> int:
    attempt = _attempt()
    if attempt < fails:
        raise ValueError(f"attempt {attempt} failed")
    return attempt


@env.task(retries=2)
def dies_once() -> int:
    if _attempt() == 0:
        os._exit(7)
    return _attempt()


@env.task
def is_killed() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


@env.task(retries=5)
async def gives_up() -> int:
    raise flyte.errors.NonRecoverableError("there is no way")


@env.task(retries=flyte.RetryStrategy(count=1, backoff=flyte.Backoff(base=timedelta(seconds=1))))
async def patient() -> int:
    if _attempt() == 0:
        raise ValueError("not yet")
    return _attempt()


@env.task
async def fails_in_the_first_attempt_of_its_parent(parents_attempt_file: str) -> int:
    with open(parents_attempt_file) as file:
        attempt = int(file.read())
    if attempt == 0:
        raise ValueError("the parent is too young")
    return attempt


@env.task
async def succeeds_only_once(file: str) -> int:
    with open(file, "x"):
        return 1


@env.task(retries=1)
async def retried_parent(folder: str) -> list[int]:
    """What failed runs again, what succeeded does not."""
    with open(f"{folder}/attempt", "w") as file:
        file.write(str(_attempt()))
    once = await succeeds_only_once(f"{folder}/once")
    return [once, await fails_in_the_first_attempt_of_its_parent(f"{folder}/attempt")]


@env.task(retries=2)
async def saves_its_work() -> str:
    context = flyte.ctx()
    assert context is not None
    checkpoint = context.checkpoint
    assert checkpoint is not None
    before = await checkpoint.load()
    if before is None:
        await checkpoint.save(b"half of it")
        raise ValueError("interrupted")
    return before.read_text()
