"""Tasks for the measurements, and the program that runs them with the SDK: `python sdk_tasks.py ENDPOINT TASK COUNT`.

It prints one line of JSON: run, wall seconds as the user sees them, the SDK's CPU seconds, and what the task returned.
"""

import asyncio
import json
import os
import sys
import time

import flyte

IMAGE = os.environ.get("BENCH_IMAGE", "auto")
env = flyte.TaskEnvironment(name="bench", image=IMAGE, env_vars={"BENCH_IMAGE": IMAGE})


@env.task
async def one() -> int:
    """The no-op that is counted."""
    return 1


@env.task
async def now() -> float:
    """When the task's own code began."""
    return time.time()


@env.task
async def fan(n: int) -> list[float]:
    """How many children ran, and the CPU seconds of this parent."""
    answers = await asyncio.gather(*[one() for _ in range(n)])
    return [float(sum(answers)), time.process_time()]


@env.task
async def in_turn(n: int) -> list[list[float]]:
    """For each child, one after the other: seconds from the call to its first line, and to its answer here."""
    found = []
    for _ in range(n):
        called = time.time()
        began = await now()
        found.append([began - called, time.time() - called])
    return found


def noop(count: int) -> list[tuple[str, float]]:
    """Runs that do nothing, one after the other: each one's name, and seconds until its end was seen."""
    found = []
    for _ in range(count):
        started = time.monotonic()
        run = flyte.run(one)
        run.wait(quiet=True)
        found.append((run.name, time.monotonic() - started))
    return found


def main(endpoint: str, task: str, count: int) -> None:
    flyte.init(endpoint=endpoint, insecure=True, project="flytesnacks", domain="development")
    if task == "noop":
        print(json.dumps({"answer": noop(count)}))
        return
    started, cpu = time.monotonic(), time.process_time()
    run = flyte.run(fan if task == "fan" else in_turn, n=count)
    run.wait(quiet=True)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({"run": run.name, "seconds": seconds, "cpu": cpu, "answer": run.outputs()[0]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
