"""Tasks that go on when the test lets them: when somebody listens at a port."""

import asyncio
import socket

import flyte

env = flyte.TaskEnvironment(name="gate")


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@env.task
async def wait(number: int, port: int) -> int:
    print(f"{number} waits", flush=True)
    while not _open(port):
        await asyncio.sleep(0.1)
    print(f"{number} goes on", flush=True)
    return number


@env.task
async def crowd(n: int, port: int) -> list[int]:
    return list(await asyncio.gather(*(wait(number, port) for number in range(n))))
