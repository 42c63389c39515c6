"""Tasks that call tasks."""

import asyncio
from collections.abc import AsyncIterator

import flyte

env = flyte.TaskEnvironment(name="trees")


@env.task
async def leaf(x: int) -> int:
    return x


@env.task
async def branch(n: int) -> int:
    return sum(await asyncio.gather(*(leaf(i) for i in range(n))))


@env.task
async def trunk(branches: int, leaves: int) -> int:
    return sum(await asyncio.gather(*(branch(leaves + i) for i in range(branches))))


@env.task
async def fan(n: int) -> int:
    return sum(await asyncio.gather(*(leaf(i) for i in range(n))))


@env.task
def square(x: int) -> int:
    return x * x


@env.task
def mapped(n: int) -> list[int]:
    return [each for each in flyte.map(square, range(n)) if not isinstance(each, BaseException)]


@env.task
async def grouped() -> list[int]:
    found = []
    for name in ("first", "second"):
        with flyte.group(name):
            found += await asyncio.gather(leaf(1), leaf(2))
    return found


@flyte.trace
async def look_up(word: str) -> int:
    return len(word)


@flyte.trace
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@flyte.trace
async def stumble() -> int:
    raise ValueError("no such page")


@env.task
async def traced() -> str:
    length = await look_up("flyte")
    counted = [i async for i in count(3)]
    try:
        await stumble()
    except ValueError as error:
        return f"{length} {counted} {error}"
    return "the trace did not fail"
