"""Looks at finished runs now and then, where the settings bound how long or how many stay."""

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from flyte_manager.domain.retention import Bounds
from flyte_manager.executor.retention import Retention, amount

log = logging.getLogger(__name__)

FIRST_SECONDS = 60.0
"""after a start, which has better things to do"""


class Sweeper:
    """`may_work`: whether this manager may change things now."""

    def __init__(self, retention: Retention, bounds: Bounds, *, every: float, may_work: Callable[[], bool]) -> None:
        self._retention = retention
        self._bounds = bounds
        self._every = every
        self._may_work = may_work

    async def run(self) -> NoReturn:
        """Works until it is cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            if self._may_work():
                await self.sweep()
            await asyncio.sleep(self._every)

    async def sweep(self) -> None:
        """What goes wrong ends it till the next time."""
        try:
            done = await self._retention.prune(self._bounds)
        except Exception as error:
            log.warning("finished runs stay for now: %s; it is tried again in %g s", error, self._every)
            return
        for failure in done.failures:
            log.warning("could not be deleted, and is tried again in %g s: %s", self._every, failure)
        if done.runs or done.uploads:
            log.info(
                "%d runs (%s) and %d uploads (%s) were deleted",
                *(done.runs, amount(done.size), done.uploads, amount(done.upload_size)),
            )
