"""A cache of one kind of objects, kept by list and watch.

    list (pages of 500) ─▶ watch from the list's version ─▶ ended cleanly: watch again from the last version
         ▲                        │  410                      cut, silent, server gone: the same, after a while
         └────────────────────────┘

`keep` trims an object to what the manager needs of it; the raw one is not kept. What our own requests answer is `put`
into the cache at once: an object that was just created is never "not there yet" (W27), and neither an older event nor
an older list takes it back, nor does an answer that comes after the event of its deletion bring it back. `changed` is
called on the loop for each addition, change and deletion, also for what a list finds to be gone while nobody watched.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from flyte_manager.domain.errors import Refusal
from flyte_manager.kubernetes.api_errors import ApiError, Expired
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import Resource

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_SECONDS = (240, 300)
BACKOFF_SECONDS = (0.2, 10.0)
SETTLED_SECONDS = 1.0
"""A watch that was open for so long works, even when it says nothing."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    uid: str
    version: int
    value: T


class Informer(Generic[T]):
    """`keep` gives None for an object that is none of ours."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        keep: Callable[[Mapping[str, Any]], T | None],
        changed: Callable[[str, T | None, T | None], None],
        watch_seconds: tuple[int, int] = WATCH_SECONDS,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._fields = fields
        self._keep = keep
        self._changed = changed
        self._watch_seconds = watch_seconds
        self._entries: dict[str, _Entry[T]] = {}
        self._version = ""
        """up to which all is known; empty: list"""
        self._wait = BACKOFF_SECONDS[0]
        self._worked = False
        self._away = False
        """whether nothing good came since it was cut off"""
        self.synced = asyncio.Event()
        """set once all objects are known"""
        self.cut_since: float | None = None
        """when following was cut off, by time.monotonic; None while it works"""
        self.trouble = ""
        """why it is cut off"""

    def get(self, name: str) -> T | None:
        entry = self._entries.get(name)
        return entry.value if entry else None

    def values(self) -> Iterable[T]:
        return [entry.value for entry in self._entries.values()]

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, document: Mapping[str, Any]) -> None:
        """An object as a request of our own answered it."""
        metadata = document["metadata"]
        if metadata["name"] not in self._entries and int(metadata["resourceVersion"]) <= int(self._version or 0):
            return  # its deletion was heard of before the answer
        self._take(document)

    def _take(self, document: Mapping[str, Any]) -> None:
        metadata = document["metadata"]
        name, uid, version = str(metadata["name"]), str(metadata["uid"]), int(metadata["resourceVersion"])
        before = self._entries.get(name)
        if before is not None and before.version >= version:
            return
        if before is not None and before.uid != uid:  # deleted and made anew while nobody watched
            self._remove(name)
            before = None
        value = self._keep(document)
        if value is None:
            if before is not None:
                self._remove(name)
            return
        self._entries[name] = _Entry(uid, version, value)
        self._changed(name, before.value if before else None, value)

    async def run(self) -> NoReturn:
        """Follows until it is cancelled."""
        while True:
            self._worked = False
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                if self._worked:
                    continue
            except Expired:
                self._version = ""
                if self._away:  # it is back: one that began anew has no old versions
                    self._away, self._wait = False, BACKOFF_SECONDS[0]
            except (ApiError, Refusal) as error:
                self._cut(error)
            except (ValueError, KeyError, TypeError) as error:  # an answer that makes no sense: begin anew
                self._version = ""
                self._cut(error)
            await asyncio.sleep(self._wait * (0.5 + random.random() / 2))
            self._wait = min(self._wait * 2, BACKOFF_SECONDS[1])

    async def _list(self) -> None:
        found: set[str] = set()
        version = ""
        pages = self._client.pages(
            self._resource, namespace=self._namespace, selector=self._selector, fields=self._fields
        )
        async for objects, version in pages:  # noqa: B007 - the last page's counts
            for document in objects:
                found.add(str(document["metadata"]["name"]))
                self._take(document)
        # What was put with a later version than the list's was made meanwhile: it is not gone.
        for name, entry in list(self._entries.items()):
            if name not in found and entry.version <= int(version):
                self._remove(name)
        self._version = version
        self.synced.set()

    async def _watch(self) -> None:
        settling: list[asyncio.TimerHandle] = []
        events = self._client.watch(
            self._resource,
            version=self._version,
            seconds=random.randint(*self._watch_seconds),
            namespace=self._namespace,
            selector=self._selector,
            fields=self._fields,
            opened=lambda: settling.append(asyncio.get_running_loop().call_later(SETTLED_SECONDS, self._works)),
        )
        try:
            async with aclosing(events):
                async for event in events:
                    self._hear(event)
        finally:
            for timer in settling:
                timer.cancel()

    def _hear(self, event: Mapping[str, Any]) -> None:
        document = event["object"]
        if event["type"] == "DELETED":
            self._gone(document)
        elif event["type"] != "BOOKMARK":
            self._take(document)
        self._version = str(document["metadata"]["resourceVersion"])
        self._works()

    def _gone(self, document: Mapping[str, Any]) -> None:
        metadata = document["metadata"]
        name, version = str(metadata["name"]), int(metadata["resourceVersion"])
        entry = self._entries.get(name)
        if entry is None or entry.uid != str(metadata["uid"]) or entry.version > version:
            return
        # its last state tells how it ended
        last = self._keep(document)
        if last is not None and last != entry.value:
            self._entries[name] = _Entry(entry.uid, version, last)
            self._changed(name, entry.value, last)
        self._remove(name)

    def _remove(self, name: str) -> None:
        entry = self._entries.pop(name)
        self._changed(name, entry.value, None)

    def _cut(self, error: Exception) -> None:
        self._away = True
        known = isinstance(error, ApiError | Refusal)
        self.trouble = str(error) if known else repr(error)
        if self.cut_since is None:
            self.cut_since = time.monotonic()
            words = "following %s is cut off, it is tried again: %s"
            log.warning(words, self._resource.plural, self.trouble, exc_info=None if known else error)

    def _works(self) -> None:
        self._worked, self._away, self._wait = True, False, BACKOFF_SECONDS[0]
        if self.cut_since is not None:
            seconds = time.monotonic() - self.cut_since
            log.info("following %s again after %.1f s", self._resource.plural, seconds)
            self.cut_since, self.trouble = None, ""
