"""`python -m bench.many`: ten thousand children of one SDK parent, and what a user sees of the manager meanwhile.

Each half second one list of each kind is asked for, and a new watcher of the root waits for its first message. Exit
code 1 when children are missing or the manager took more memory than it may.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.workflow import run_service_connect
from flyteidl2.workflow import run_service_pb2 as pb

from bench import processes
from bench.manager import Manager, running
from bench.measures import quantiles, sdk

MOST_MIB = 400.0
EVERY_SECONDS = 0.5
SECONDS = 3600.0
PAGE = list_pb2.ListRequest(limit=50)


@dataclass(slots=True)
class Seen:
    """Seconds of each call by its kind, and the most memory in MiB."""

    calls: dict[str, list[float]] = field(default_factory=dict)
    resident: float = 0.0


class Looker:
    """A user who looks at the run."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._runs = run_service_connect.RunServiceClient(manager.url)
        self._project = identifier_pb2.ProjectIdentifier(name="flytesnacks", domain="development")
        self.seen = Seen()

    async def look(self, over: asyncio.Event) -> None:
        """Until it is over."""
        while not over.is_set():
            self.seen.resident = max(self.seen.resident, processes.memory(self._manager.pid).resident)
            newest = await self._timed("ListRuns", self._list_runs)
            if newest.runs:
                root = newest.runs[0].action.id
                await self._timed("ListActions", lambda run=root.run: self._list_actions(run))  # type: ignore[misc]
                await self._timed("first message of WatchActionDetails", lambda root=root: self._watch(root))  # type: ignore[misc]
            await asyncio.sleep(EVERY_SECONDS)

    async def _timed(self, kind: str, call: Callable[[], Awaitable[Any]]) -> Any:
        started = time.monotonic()
        answer = await call()
        self.seen.calls.setdefault(kind, []).append(time.monotonic() - started)
        return answer

    async def _list_runs(self) -> pb.ListRunsResponse:
        return await self._runs.list_runs(pb.ListRunsRequest(request=PAGE, project_id=self._project))

    async def _list_actions(self, run: identifier_pb2.RunIdentifier) -> pb.ListActionsResponse:
        return await self._runs.list_actions(pb.ListActionsRequest(request=PAGE, run_id=run))

    async def _watch(self, root: identifier_pb2.ActionIdentifier) -> None:
        stream = self._runs.watch_action_details(pb.WatchActionDetailsRequest(action_id=root))
        async with aclosing(cast("Any", stream)) as messages:
            async for _ in cast("AsyncIterator[object]", messages):
                return


async def measure(manager: Manager, count: int) -> tuple[dict[str, Any], Seen]:
    """What the SDK's program told, and what the looker saw."""
    over, looker = asyncio.Event(), Looker(manager)
    looking = asyncio.create_task(looker.look(over))
    try:
        told = await asyncio.to_thread(lambda: sdk(manager, "fan", count, seconds=SECONDS))
    finally:
        over.set()
        await looking
    return told, looker.seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=10_000, help="children (default: %(default)s)")
    count = parser.parse_args().count
    with running() as manager:
        told, seen = asyncio.run(measure(manager, count))
        ran = told["answer"][0]
        print(f"{ran:g} of {count} children in {told['seconds']:.0f} s, manager at most {seen.resident:.0f} MiB RSS,")
        print(f"  {processes.cpu(manager.pid) * 1000 / count:.1f} ms of its CPU for each")
        for kind, seconds in seen.calls.items():
            print(f"  {kind}: {', '.join(str(figure) for figure in quantiles(seconds))}, {len(seconds)} times")
    return int(ran != count or seen.resident > MOST_MIB)


if __name__ == "__main__":
    sys.exit(main())
