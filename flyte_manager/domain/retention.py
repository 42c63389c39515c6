"""What may go: how long finished runs stay, and who refers to what.

A reference is a uri in one of the stores, found in the bytes of inputs, outputs, specs: its store and at most DEPTH
segments. Bytes behind it may look like its end, so it is taken for all that it could mean: rather something stays.
"""

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from flyte_manager.domain.ids import RunId

T = TypeVar("T", bound=Hashable)

DEPTH = 6
LEAST_AGE_SECONDS = 60.0
"""of a run that goes: its world may still be tidying up after it"""

UPLOAD_SECONDS = 2 * 86_400.0
"""that an upload stays after its last use: the SDK remembers for a day where it put something"""

LAST = "\U0010ffff"
"""sorts behind all that a uri holds"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long finished runs stay, and how much they may occupy."""

    age: float | None = None
    """seconds after the end; None = no bound"""
    size: int | None = None
    """bytes of all finished runs together; None = no bound"""
    cached: bool = False
    """whether runs go whose outputs the cache keeps; the cache forgets them"""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    id: RunId
    base_uri: str
    ended_at: datetime
    size: int
    """bytes that its folders hold"""


class References:
    """Uris that something refers to."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._sorted: list[str] = []

    def add(self, targets: Iterable[str]) -> None:
        self._known.update(targets)

    def cover(self, folder: str) -> bool:
        """Whether one of them lies in the folder, or is it, or holds it."""
        if len(self._sorted) < len(self._known):
            self._sorted = sorted(self._known)
        return reached(folder, (*self._from(folder), *(each for each in ancestors(folder) if each in self._known)))

    def _from(self, uri: str) -> Sequence[str]:
        first = bisect.bisect_left(self._sorted, uri)
        return self._sorted[first : bisect.bisect_left(self._sorted, uri + LAST, first)]


def reached(folder: str, targets: Iterable[str]) -> bool:
    """Whether one of these leads into the folder, may be it with something behind, or holds it."""
    for target in targets:
        rest = target.removeprefix(folder)
        if folder.startswith(f"{target}/") or (rest != target and (rest.startswith("/") or "/" not in rest)):
            return True
        if target == folder:
            return True
    return False


def circles(referrers: Mapping[T, AbstractSet[T]]) -> list[set[T]]:
    """Of those whose referrers are given: groups that are referred to from within themselves alone."""
    refers = defaultdict[T, set[T]](set)
    for each, sources in referrers.items():
        for source in sources:
            refers[source].add(each)
    needed = _reach([each for each in refers if each not in referrers], refers.__getitem__)
    left = {each for each in referrers if each not in needed}
    found: list[set[T]] = []
    while left:
        found.append(_reach([next(iter(left))], lambda each: (refers[each] | referrers[each]) - needed))
        left -= found[-1]
    return found


def _reach(start: Iterable[T], beyond: Callable[[T], AbstractSet[T]]) -> set[T]:
    """All that can be come to, with the start."""
    found, unseen = set(start), list(start)
    while unseen:
        news = beyond(unseen.pop()) - found
        found |= news
        unseen += news
    return found


def ancestors(uri: str) -> list[str]:
    """The folders that hold it."""
    parts = uri.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


def targets(content: bytes, roots: Iterable[str]) -> set[str]:
    """What these bytes refer to in the stores with these roots."""
    segment = rb"[^/\x00-\x20\x7f\"'<>\\]{1,255}"
    found: set[str] = set()
    for root in roots:
        for match in re.finditer(re.escape(root.encode()) + rb"((?:/" + segment + rb"){1,%d})" % DEPTH, content):
            found.add(root + match[1].decode(errors="replace"))
    return found
