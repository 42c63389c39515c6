"""Tells the log of one attempt to one reader, from its first line on.

kept? ─▶ all of it
else  ─▶ wait for the container's start, and say why it waits
      ─▶ follow the pod's log; after a cut come again and skip what was told
      ─▶ the container ended: what was not told yet, why the attempt failed
      ─▶ the pod is gone before: the rest from the kept log, as soon as that is there, or a line that it is lost
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import dropwhile

from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.ports import Clock, LogLine
from flyte_manager.kubernetes.api_errors import TRANSIENT, ApiError, NotFound
from flyte_manager.kubernetes.log_text import Cutter, Entry, Position, notes, pages, remark
from flyte_manager.kubernetes.logs import KeptLogs, Source, speaker, while_useful
from flyte_manager.kubernetes.pod_status import Container, Pod, State

LOOK_SECONDS = 0.25
ASK_SECONDS = 1.0
KEPT_SECONDS = 10.0
"""for which the log of a pod that is gone may take to be kept"""
_MOST_PAUSE_SECONDS = 5.0

Ended = Callable[[], Awaitable[bool]]


class Tail:
    """One reader. `find` gives the pod while it is there; `says` why it waits, and, once it is over, why it failed."""

    def __init__(
        self,
        attempt: AttemptId,
        *,
        kept: KeptLogs,
        source: Source,
        find: Callable[[AttemptId], Pod | None],
        says: Callable[[Pod], str],
        clock: Clock,
    ) -> None:
        self._attempt = attempt
        self._kept = kept
        self._source = source
        self._find = find
        self._says = says
        self._clock = clock
        self._position = Position()
        self._whole = False
        """all that the container wrote was told"""
        self._noted = False

    async def run(self, ended: Ended) -> AsyncIterator[Sequence[LogLine]]:
        content = await self._kept.read(self._attempt)
        if content is None:
            async for page in self._until_start(ended):
                yield page
            async for page in self._from_pod(ended):
                yield page
            if self._whole:
                if (pod := self._find(self._attempt)) and (why := self._says(pod)):
                    yield [remark(self._clock(), why).line]
                await self._until_ended(ended)
                return
            content = await self._when_kept(ended)
        if content is None:
            told = bool(self._position.stamp)
            text = "What it wrote from here on was lost with its pod." if told else "Its pod is gone and left no log."
            yield [remark(self._clock(), text).line]
            return
        for new in self._rest(content):
            yield [entry.line for entry in new]

    def _rest(self, content: bytes) -> Iterator[list[Entry]]:
        """Of the kept log, what was not told before."""
        self._position.again()
        for entries in pages(content):
            if self._noted:  # its notes were told
                entries = list(dropwhile(lambda entry: entry.system, entries))
                self._noted = not entries
            if new := self._position.new(entries):
                yield new

    async def _until_ended(self, ended: Ended) -> None:
        while True:
            if await ended():
                return
            await asyncio.sleep(ASK_SECONDS)

    async def _until_start(self, ended: Ended) -> AsyncIterator[Sequence[LogLine]]:
        said, looks = "", 0
        while True:
            pod = self._find(self._attempt)
            if pod is not None and (speaker(pod) is not None or pod.over):
                return
            if pod is not None and (why := self._says(pod)) not in ("", said):
                said = why
                yield [remark(self._clock(), f"The pod does not run yet: {why}").line]
            if looks % int(ASK_SECONDS / LOOK_SECONDS) == 0 and await ended():
                return
            looks += 1
            await asyncio.sleep(LOOK_SECONDS)

    async def _from_pod(self, ended: Ended) -> AsyncIterator[Sequence[LogLine]]:
        pause = LOOK_SECONDS
        if (pod := self._find(self._attempt)) and pod.notes:
            self._noted = True
            yield [entry.line for entry in notes(pod.created_at, pod.notes)]
        while pod := self._find(self._attempt):
            container = speaker(pod)
            if container is None:
                return
            last = container.state is State.TERMINATED
            cutter = Cutter(self._clock)
            self._position.again()
            try:
                async for entries in self._lines(pod, container, cutter):
                    if new := self._position.new(entries):
                        pause = LOOK_SECONDS
                        yield [entry.line for entry in new]
            except NotFound:
                return
            except (ApiError, *TRANSIENT):
                if await ended() and await self._kept.read(self._attempt) is not None:
                    return
            else:
                if last:
                    if new := self._position.new(cutter.rest()):
                        yield [entry.line for entry in new]
                    self._whole = True
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    async def _lines(self, pod: Pod, container: Container, cutter: Cutter) -> AsyncGenerator[list[Entry], None]:
        follow = container.state is not State.TERMINATED
        async with self._source(pod, container.name, follow=follow, since=self._position.second) as stream:
            async for data in while_useful(stream, self._is_over):
                if entries := cutter.feed(data):
                    yield entries

    def _is_over(self) -> bool:
        pod = self._find(self._attempt)
        return pod is None or (container := speaker(pod)) is None or container.state is State.TERMINATED

    async def _when_kept(self, ended: Ended) -> bytes | None:
        """The kept log, once the attempt has ended and a while is left to keep it."""
        left = KEPT_SECONDS
        while left > 0:
            await self._kept.finish(self._attempt)
            content = await self._kept.read(self._attempt)
            if content is not None:
                return content
            if await ended():
                left -= ASK_SECONDS
            await asyncio.sleep(ASK_SECONDS)
        return None
