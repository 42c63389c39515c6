"""Tasks that go on until someone ends them."""

import asyncio
import subprocess
import sys
import time

import flyte

env = flyte.TaskEnvironment(name="endless", resources=flyte.Resources(cpu="100m"))


@env.task(retries=3)
def sleeper(mark: str) -> int:
    """With a child process of its own."""
    print("asleep", flush=True)
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", mark], check=True)
    return 1


@env.task
async def nest(mark: str) -> int:
    return sum(await asyncio.gather(sleeper.aio(mark), sleeper.aio(f"{mark}-2")))


@env.task(retries=3)
async def tree(mark: str) -> int:
    return await nest(mark)


@env.task(retries=3)
def stubborn() -> int:
    time.sleep(600)
    return 1
