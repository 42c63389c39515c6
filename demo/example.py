"""The demo's run: a parent that fans out, calls tasks that call tasks, is retried, and traces a step.

flyte run demo/example.py forecast --stations 3
"""

import asyncio
import json
import os

import flyte

env = flyte.TaskEnvironment(name="weather")


@env.task(retries=2)
async def archive() -> float:
    """The first attempt fails, as networks do; the manager starts the next one."""
    await asyncio.sleep(0.3)
    if flyte.ctx().attempt_number == 0:
        raise ConnectionError("the archive did not answer")
    return 11.5


@env.task
async def station(region: str, number: int) -> float:
    await asyncio.sleep(0.4 + 0.15 * number)
    return len(region) + 0.5 * number


@env.task
async def region(name: str, stations: int) -> float:
    """Calls its own children: nesting."""
    with flyte.group(name):
        found = await asyncio.gather(*[station(name, number) for number in range(stations)])
    return sum(found) / stations


@flyte.trace
async def blend(past: float, regions: list[float]) -> float:
    """Not a task: a step of its parent that is recorded, and not done again when the parent is retried."""
    await asyncio.sleep(0.2)
    return 0.3 * past + 0.7 * sum(regions) / len(regions)


@env.task
async def forecast(stations: int = 3) -> str:
    past, *regions = await asyncio.gather(archive(), region("north", stations), region("south", stations))
    degrees = await blend(past, regions)
    print(f"{2 * stations} stations heard")
    return f"tomorrow: {degrees:.1f} degrees"


def main() -> None:
    """Runs it at $ENDPOINT; prints a line of JSON when the run is made and one when it has ended."""
    flyte.init(endpoint=os.environ["ENDPOINT"], insecure=True, project="flytesnacks", domain="development")
    run = flyte.run(forecast, stations=3)
    print(json.dumps({"run": run.name}), flush=True)
    run.wait(quiet=True)
    print(json.dumps({"answer": run.outputs()[0]}), flush=True)


if __name__ == "__main__":
    main()
