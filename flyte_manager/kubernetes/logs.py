"""The log of an attempt: read from its pod, kept in the store when the attempt has ended.

    keep                attempt ended     ─▶ one read of its pod's log ─▶ …/<run>/<action>/<attempt>/task.log
    keep_to_the_end     pod is to be gone ─▶ followed until then       ─▶ the same
    tail (log_tail.py)  what is kept, else what the pod has

Only the primary container's log is kept, or that of the init container that failed. It ends with why the attempt
failed, where its pod tells. The kubelet itself keeps only so much of a container's log (10 MiB, if not configured
otherwise) and gives the newest part; nobody follows a log while no client asks for it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeVar

from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.ports import Blobs, Clock, Unsettled
from flyte_manager.kubernetes.api_errors import TRANSIENT, ApiError, NotFound
from flyte_manager.kubernetes.log_text import Collector, Cutter, Entry, Position, notes, remark
from flyte_manager.kubernetes.pod_status import Container, Pod, State

log = logging.getLogger(__name__)

LIMIT = 64 << 20
READERS = 16
"""logs that are read at once, because each may take LIMIT bytes"""
PATIENCE_SECONDS = 60.0
"""for which a log that can't be read is tried again"""
READ_SECONDS = 120.0
STOP_SECONDS = 2.0
SILENCE_SECONDS = 5.0
"""after which a stream that should have ended is given up"""
_SHORT_PAUSE_SECONDS, _PAUSE_SECONDS = 0.02, 0.5
_KEPT_REMEMBERED = 20_000


T = TypeVar("T")


class LogUnread(Unsettled):
    """the log of attempt {attempt} can't be read from its pod yet: {why}. It is tried again."""


class Source(Protocol):
    """Opens the log of a pod's container, with times; `since`: from that second on, None = from the start."""

    def __call__(
        self, pod: Pod, container: str, *, follow: bool, since: datetime | None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


def speaker(pod: Pod) -> Container | None:
    """The container whose log is the attempt's: an init container that failed, else the primary one once it runs."""
    for container in pod.containers:
        if container.init and not container.sidecar and container.state is State.TERMINATED and container.code:
            return container
    main = pod.main
    ran = main.state is State.TERMINATED and main.started_at is not None
    return main if ran or main.state is State.RUNNING else None


class KeptLogs:
    """Keeps logs. `latest` gives the pod as it is now, or was last; `why` tells why its attempt failed, if it did."""

    def __init__(
        self,
        *,
        source: Source,
        blobs: Blobs,
        latest: Callable[[AttemptId], Pod | None],
        why: Callable[[Pod], str],
        clock: Clock,
        limit: int = LIMIT,
    ) -> None:
        self._source = source
        self._blobs = blobs
        self._latest = latest
        self._why = why
        self._clock = clock
        self._limit = limit
        self._slots = asyncio.Semaphore(READERS)
        self._going: dict[AttemptId, asyncio.Task[None]] = {}
        self._followed: dict[AttemptId, Collector] = {}
        self._kept: OrderedDict[AttemptId, None] = OrderedDict()
        self._unread_since: dict[AttemptId, datetime] = {}

    def uri(self, attempt: AttemptId) -> str:
        run = attempt.action.run
        return self._blobs.join(run.project, run.domain, run.name, attempt.action.name, str(attempt.number), "task.log")

    async def read(self, attempt: AttemptId) -> bytes | None:
        """The kept log; None when there is none yet."""
        return await self._blobs.read(self.uri(attempt))

    async def keep(self, pod: Pod) -> None:
        """Keeps the log of an attempt that has ended, once. Raises LogUnread, for a while."""
        if pod.attempt not in self._going:
            if pod.attempt in self._kept:
                return
            self._start(pod, self._keep(pod))
        await asyncio.shield(self._going[pod.attempt])

    def keep_to_the_end(self, pod: Pod) -> None:
        """Follows the log of a pod that is to be deleted, in the background."""
        if pod.attempt not in self._going and pod.attempt not in self._kept and speaker(pod) is not None:
            self._start(pod, self._keep_followed(pod))

    async def give_up(self, pod: Pod, why: str) -> None:
        """Keeps what was followed so far, and why there is no more."""
        collector = self._followed.get(pod.attempt) or self._collector(pod)
        if going := self._going.get(pod.attempt):
            going.cancel()
            await asyncio.wait([going])
        await self._write(pod, collector, why)

    async def finish(self, attempt: AttemptId) -> None:
        """Waits until what is being kept of it is kept."""
        if going := self._going.get(attempt):
            await asyncio.wait([going])

    async def stop(self) -> None:
        """Ends all reading, soon."""
        going = list(self._going.values())
        if not going:
            return
        await asyncio.wait(going, timeout=STOP_SECONDS)
        for task in going:
            task.cancel()
        await asyncio.wait(going)

    def _start(self, pod: Pod, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work, name=f"log of {pod.attempt}")
        self._going[pod.attempt] = task
        task.add_done_callback(lambda done: self._ended(pod.attempt, done))

    def _ended(self, attempt: AttemptId, done: "asyncio.Task[None]") -> None:
        self._going.pop(attempt, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.info("the log of %s is not kept yet: %s", attempt, error)

    async def _keep(self, pod: Pod) -> None:
        if await self._blobs.exists(self.uri(pod.attempt)):
            self._remember(pod.attempt)
            return
        collector, problem = self._collector(pod), ""
        container = speaker(pod)
        if container is not None:
            try:
                async with self._slots, asyncio.timeout(READ_SECONDS):
                    await self._gather(pod, container, collector)
            except NotFound:
                problem = "The pod was gone before its log could be read."
            except (ApiError, TimeoutError, *TRANSIENT) as error:
                self._check_patience(pod.attempt, error)
                problem = f"The log could not be read: {error or 'it took too long'}"
        await self._write(pod, collector, problem)

    def _check_patience(self, attempt: AttemptId, error: Exception) -> None:
        now = self._clock()
        since = self._unread_since.setdefault(attempt, now)
        if (now - since).total_seconds() < PATIENCE_SECONDS:
            raise LogUnread(attempt=attempt, why=str(error).rstrip(".") or type(error).__name__) from error

    async def _gather(self, pod: Pod, container: Container, collector: Collector) -> None:
        cutter = Cutter(self._clock)
        async with self._source(pod, container.name, follow=False, since=None) as stream:
            async for data in stream:
                collector.add(cutter.feed(data))
        collector.add(cutter.rest())

    async def _keep_followed(self, pod: Pod) -> None:
        collector = self._followed[pod.attempt] = self._collector(pod)
        try:
            await self._follow(pod, collector)
        finally:
            del self._followed[pod.attempt]
        await self._write_followed(pod, collector)

    async def _write_followed(self, pod: Pod, collector: Collector) -> None:
        """Tries again for a while: with the pod the log is gone."""
        content = self._content(self._latest(pod.attempt) or pod, collector, "")
        while True:
            try:
                return await self._save(pod.attempt, content)
            except Unavailable as trouble:
                now = self._clock()
                if (now - self._unread_since.setdefault(pod.attempt, now)).total_seconds() >= PATIENCE_SECONDS:
                    self._unread_since.pop(pod.attempt)
                    raise
                log.info("the log of %s is written again: %s", pod.attempt, trouble)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _collector(self, pod: Pod) -> Collector:
        collector = Collector(self._limit)
        collector.add(notes(pod.created_at, pod.notes))
        return collector

    async def _follow(self, pod: Pod, collector: Collector) -> None:
        """Reads till the container has ended and all is read, or the pod is gone."""
        position, left, pause = Position(), list[Entry](), _SHORT_PAUSE_SECONDS
        while True:
            now = self._latest(pod.attempt) or pod
            container, ended = speaker(now), now.over
            if container is None:
                return
            cutter = Cutter(self._clock)
            position.again()
            try:
                async with self._source(now, container.name, follow=not ended, since=position.second) as stream:
                    async for data in while_useful(stream, lambda: self._is_over(pod)):
                        collector.add(position.new(cutter.feed(data)))
            except NotFound:
                collector.add(position.new(left))
                return
            except (ApiError, *TRANSIENT) as error:
                log.info("the log of %s is followed again: %s", pod.attempt, error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            # Half a line, when the stream was cut: the next read tells the whole.
            left = cutter.rest()
            if ended:
                collector.add(position.new(left))
                return
            await asyncio.sleep(pause)  # that it ended is told to us a little later
            pause = min(2 * pause, _PAUSE_SECONDS)

    def _is_over(self, pod: Pod) -> bool:
        return (self._latest(pod.attempt) or pod).over

    async def _write(self, pod: Pod, collector: Collector, problem: str) -> None:
        await self._save(pod.attempt, self._content(pod, collector, problem))

    def _content(self, pod: Pod, collector: Collector, problem: str) -> bytes:
        now = self._clock()
        collector.add(remark(now, text) for text in (problem, self._why(pod)) if text)
        return collector.content(now)

    async def _save(self, attempt: AttemptId, content: bytes) -> None:
        await self._blobs.write(self.uri(attempt), content)
        self._remember(attempt)

    def _remember(self, attempt: AttemptId) -> None:
        self._unread_since.pop(attempt, None)
        self._kept[attempt] = None
        if len(self._kept) > _KEPT_REMEMBERED:
            self._kept.popitem(last=False)


async def while_useful(stream: AsyncIterator[T], over: Callable[[], bool]) -> AsyncGenerator[T, None]:
    """Items of the stream; ends too when it has been silent for a while twice since it should have ended."""
    pending: asyncio.Future[T] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(anext(stream))
            should_have_ended = False
            while not (await asyncio.wait([pending], timeout=SILENCE_SECONDS))[0]:
                if should_have_ended:
                    return
                should_have_ended = over()
            try:
                item = pending.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
