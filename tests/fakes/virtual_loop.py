"""An event loop whose time jumps: where nothing is left to do now, it is the time of the next timer at once.

Hours of backoffs pass in milliseconds, and the same program does the same things in the same order each time.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tests.fakes.clock import NOW

T = TypeVar("T")


class NothingComes(AssertionError):  # noqa: N818
    """All tasks wait for something that never happens."""


class _Skipping(selectors.SelectSelector):
    """Passes the time that it is asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingComes
        self.passed += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Counts seconds from 0. Without threads and sockets."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.passed

    def clock(self) -> datetime:
        """Implements ports.Clock."""
        return NOW + timedelta(seconds=self.time())


def run_virtually(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Runs until it returns, and ends what it left behind."""
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()
