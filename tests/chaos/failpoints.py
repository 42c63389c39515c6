"""Named points between two steps at which a test kills the manager. The product knows nothing of them.

    arm(reached, …)                                     reached(name) is called at each point, in the fakes or for real
    python -m tests.chaos.failpoints NAME HIT -- …      the manager, killed when it comes there the HIT-th time

docs/testing.md lists them.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flyte_manager.blobs.directory import Directory
from flyte_manager.cli import main
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.processes.runtime import Processes
from flyte_manager.store.engine import Database

Reached = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is done or not done when the manager dies: a method, with a point before and one after it."""

    part: str
    method: str
    before: str
    after: str


STEPS = (
    Step("database", "write", "a write has been decided", "a write is committed, nobody was told"),
    Step("ledger", "transact", "a change is asked for", "a change is told to all, its caller was not answered"),
    Step("runtime", "launch", "an attempt is to be launched", "an attempt was launched, its row does not say so"),
    Step("runtime", "observe", "an attempt is to be observed", "an attempt was observed, nothing was done about it"),
    Step("runtime", "stop", "an attempt is to be stopped", "an attempt was told to stop"),
    Step("runtime", "settle", "an ended attempt's log is to be kept", "an ended attempt's log is kept"),
    Step("runtime", "forget", "an ended attempt's folder is to be freed", "an ended attempt's folder is freed"),
    Step("blobs", "write", "an object is to be written", "an object was written, no row names it"),
)
POINTS = tuple(point for step in STEPS for point in (step.before, step.after))


@contextmanager
def arm(reached: Reached, *, database: type, ledger: type, runtime: type, blobs: type) -> Iterator[None]:
    """Calls `reached` at the points of these classes."""
    parts = {"database": database, "ledger": ledger, "runtime": runtime, "blobs": blobs}
    original = {step: getattr(parts[step.part], step.method) for step in STEPS}
    for step, method in original.items():
        setattr(parts[step.part], step.method, _watched(step, method, reached))
    try:
        yield
    finally:
        for step, method in original.items():
            setattr(parts[step.part], step.method, method)


def _watched(step: Step, method: Callable[..., Awaitable[Any]], reached: Reached) -> Callable[..., Awaitable[Any]]:
    async def watched(*args: Any, then: Callable[[Any], None] | None = None, **kwargs: Any) -> Any:
        reached(step.before)
        if then is None:
            result = await method(*args, **kwargs)
            reached(step.after)
            return result

        def told(result: Any) -> None:
            reached(step.after)
            then(result)

        return await method(*args, then=told, **kwargs)

    return watched


def _killed_at(name: str, hit: int) -> int:
    """Runs the manager until it comes to the point that often."""
    left = hit

    def reached(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    with arm(reached, database=Database, ledger=Ledger, runtime=Processes, blobs=Directory):
        return main()


if __name__ == "__main__":
    _, point, count, *rest = sys.argv
    assert point in POINTS, point
    sys.argv = ["flyte-manager", *rest]
    sys.exit(_killed_at(point, int(count)))
