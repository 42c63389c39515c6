"""Tasks whose outputs are kept. Each call that really runs writes a line into the file that CALLS names."""

import asyncio
import os
import time

import flyte
import flyte.io

env = flyte.TaskEnvironment(name="caching")


def note(call: str) -> None:
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{call}\n")


@env.task(cache=flyte.Cache("override", version_override="1"))
async def triple(x: int) -> int:
    note(f"triple {x}")
    return 3 * x


@env.task(cache="auto")
async def halve(x: int) -> float:
    note(f"halve {x}")
    return x / 2


@env.task(cache=flyte.Cache("override", version_override="1", ignored_inputs=("comment",)))
async def commented(x: int, comment: str) -> str:
    note(f"commented {x}")
    return comment


@env.task(cache=flyte.Cache("override", version_override="1", serialize=True))
async def alone(x: int, seconds: float) -> float:
    note(f"alone {x}")
    await asyncio.sleep(seconds)
    return time.time()


@env.task(cache=flyte.Cache("override", version_override="1", serialize=True))
async def fails_first(x: int) -> int:
    note(f"fails_first {x}")
    await asyncio.sleep(0.5)
    with open(os.environ["CALLS"]) as calls:
        if sum(line.split() == ["fails_first", str(x)] for line in calls) == 1:
            raise ValueError("the first one fails")
    return x


@env.task(cache=flyte.Cache("override", version_override="1", max_age=3))
async def fresh(x: int) -> float:
    note(f"fresh {x}")
    return time.time()


@env.task(cache=flyte.Cache("override", version_override="1"))
async def written(text: str) -> flyte.io.File:
    note(f"written {text}")
    file = flyte.io.File.new_remote()
    async with file.open("wb") as opened:
        await opened.write(text.encode())
    return file


@env.task(cache=flyte.Cache("override", version_override="1"))
async def nothing(x: int) -> None:
    note(f"nothing {x}")


@env.task
async def triples(x: int, times: int) -> list[int]:
    """One after the other."""
    return [await triple(x) for _ in range(times)]


@env.task
async def freshes(x: int) -> list[float]:
    return [await fresh(x) for _ in range(2)]


@env.task
async def halves(x: int) -> float:
    return await halve(x)


@env.task
async def comments(x: int, comment: str) -> str:
    return await commented(x, comment)


@env.task
async def together(x: int, times: int, seconds: float) -> list[float]:
    return list(await asyncio.gather(*(alone(x, seconds) for _ in range(times))))


@env.task
async def tried_together(x: int, times: int) -> int:
    """How many of the calls succeed."""
    found = await asyncio.gather(*(fails_first(x) for _ in range(times)), return_exceptions=True)
    return sum(each == x for each in found)


@env.task
async def reads(text: str) -> str:
    file = await written(text)
    async with file.open("rb") as opened:
        content = await opened.read()
    await nothing(len(text))
    return bytes(content).decode()
