"""A road to the manager that breaks: connections through it are cut when the test says so, or after some bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Road:
    """`limit`: how many bytes of the manager's each connection carries before it is cut; None for all."""

    target: int
    port: int = 0
    limit: int | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _carrying: set["asyncio.Task[None] | None"] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Breaks all connections that there are, as a network does: without a goodbye."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def close(self) -> None:
        self.cut()
        await asyncio.gather(*(task for task in self._carrying if task is not None))

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._carrying.add(task)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target)
        ends = {writer, to_writer}
        self._open |= ends
        try:
            await asyncio.gather(self._pump(reader, to_writer, None), self._pump(to_reader, writer, self.limit))
        except ConnectionError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._open -= ends
            self._carrying.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        left = limit
        while data := await reader.read(1 << 16 if left is None else max(1, min(left, 1 << 16))):
            if left is not None:
                left -= len(data)
            writer.write(data)
            await writer.drain()
            if left == 0:
                break
        raise ConnectionResetError


@asynccontextmanager
async def road_to(port: int) -> AsyncIterator[Road]:
    road = Road(port)
    server = await asyncio.start_server(road.carry, "127.0.0.1", 0)
    road.port = server.sockets[0].getsockname()[1]
    try:
        yield road
    finally:
        server.close()
        await server.wait_closed()
        await road.close()
