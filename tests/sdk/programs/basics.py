"""The first tasks of a newcomer."""

import asyncio
import sys
import time

import flyte

env = flyte.TaskEnvironment(name="basics")


@env.task
def noop() -> None:
    return None


@env.task
async def double(x: int) -> int:
    return 2 * x


@env.task
async def describe(name: str, sizes: list[int], deep: bool = True) -> tuple[str, dict[str, int]]:
    return f"{name} {deep}", {str(size): size * size for size in sizes}


@env.task
async def doubles(n: int) -> list[int]:
    return list(await asyncio.gather(*(double(i) for i in range(n))))


@env.task
def talk(lines: int, seconds: float) -> str:
    """Says one line, waits, says the rest."""
    print("line 0", flush=True)
    time.sleep(seconds)
    for number in range(1, lines):
        print("line", number)
    time.sleep(0.2)  # a container's stdout and stderr are two pipes, which keep no order between them
    print("a warning", file=sys.stderr)
    return "said"
