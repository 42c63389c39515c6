"""The text of logs: as the kubelet sends it, and as it is kept.

    kubelet:  2026-11-23T09:00:05.123456789Z text       kept:  2026-11-23T09:00:05.123456789Z o text

The letter is o for the task's output and s for what the system says about it. A line longer than LINE_BYTES is split,
always at the same places, so that a reader who comes again can skip what it has: the same lines bear the same times.
What the kubelet says itself, in place of a log that it can't read, comes without a time and is taken as the system's.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from flyte_manager.domain.ports import Clock, LogLine

LINE_BYTES = 1 << 16
OUTPUT, SYSTEM = b"o", b"s"
_CHUNK = 1 << 20
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    stamp: bytes
    """its time as RFC 3339, with all digits"""
    text: bytes
    system: bool = False

    @property
    def line(self) -> LogLine:
        at = datetime.fromisoformat(self.stamp.decode()).astimezone(UTC)
        return LogLine(at, self.text.decode("utf-8", "replace"), system=self.system)

    @property
    def kept(self) -> bytes:
        return b"%s %s %s\n" % (self.stamp, SYSTEM if self.system else OUTPUT, self.text)


def remark(at: datetime, text: str) -> Entry:
    """What the system says, on one line."""
    return Entry(_stamp(at), " ".join(text.splitlines()).encode("utf-8", "replace"), system=True)


def notes(at: datetime, text: str) -> list[Entry]:
    """What the system says, line by line."""
    return [remark(at, line) for line in text.splitlines()]


def _stamp(at: datetime) -> bytes:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z".encode()


class Cutter:
    """Cuts what the kubelet sends into entries."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rest = bytearray()
        self._stamp: bytes | None = None  # of the long line whose end is still to come

    def feed(self, data: bytes) -> list[Entry]:
        self._rest += data
        entries: list[Entry] = []
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            entries += self._whole(bytes(self._rest[start:end]))
            start = end + 1
        del self._rest[:start]
        while len(self._rest) > LINE_BYTES + 64:  # a time has less than 64 bytes
            stamp, text = self._parted(bytes(self._rest))
            entries.append(self._entry(stamp, text[:LINE_BYTES]))
            self._stamp = stamp
            self._rest[:] = text[LINE_BYTES:]
        return entries

    def rest(self) -> list[Entry]:
        """The last line, when no line break ended it."""
        entries = list(self._whole(bytes(self._rest))) if self._rest else []
        self._rest.clear()
        return entries

    def _whole(self, line: bytes) -> Iterator[Entry]:
        stamp, text = self._parted(line)
        self._stamp = None
        yield self._entry(stamp, text[:LINE_BYTES])
        for start in range(LINE_BYTES, len(text), LINE_BYTES):
            yield self._entry(stamp, text[start : start + LINE_BYTES])

    def _parted(self, line: bytes) -> tuple[bytes, bytes]:
        if self._stamp is not None:
            return self._stamp, line
        stamp, _, text = line.partition(b" ")
        return (stamp, text) if _STAMP.fullmatch(stamp) else (b"", line)

    def _entry(self, stamp: bytes, text: bytes) -> Entry:
        return Entry(stamp, text) if stamp else Entry(_stamp(self._clock()), text, system=True)


class Position:
    """How far a reader is: skips what it has had when it reads again."""

    def __init__(self) -> None:
        self._last = (0, 0)
        self._count = 0
        self._seen = 0
        self.stamp = b""
        """of the last line"""

    @property
    def second(self) -> datetime | None:
        """Where to read on from: the kubelet knows whole seconds only."""
        if not self.stamp:
            return None
        return datetime.fromisoformat(self.stamp.decode()).astimezone(UTC).replace(microsecond=0)

    def again(self) -> None:
        """The reader begins anew, at or before the last line's time."""
        self._seen = 0

    def new(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that were not read before."""
        return [entry for entry in entries if self._is_new(entry)]

    def _is_new(self, entry: Entry) -> bool:
        if entry.system:
            return True
        order = _order(entry.stamp)
        if order < self._last:
            return False
        if order > self._last:
            self._last, self._count, self._seen, self.stamp = order, 1, 1, entry.stamp
            return True
        self._seen += 1
        if self._seen <= self._count:
            return False
        self._count = self._seen
        return True


def _order(stamp: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds, to compare times however many digits they have."""
    text = stamp.decode()
    whole, _, rest = text.partition(".")
    digits = re.match(r"\d*", rest)
    nanoseconds = digits[0] if digits else ""
    zone = rest[len(nanoseconds) :] if rest else ""
    seconds = datetime.fromisoformat(f"{whole}{zone}").timestamp()
    return int(seconds), int(nanoseconds.ljust(9, "0")[:9] or 0)


class Collector:
    """Gathers a log to be kept; of one above the limit its end, because there stands why the task failed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[bytearray] = deque([bytearray()])
        self._size = 0
        self.left_out = 0
        """bytes"""

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            line = entry.kept
            if len(self._chunks[-1]) + len(line) > min(_CHUNK, self._limit // 4):
                self._chunks.append(bytearray())
            self._chunks[-1] += line
            self._size += len(line)
        while self._size > self._limit and len(self._chunks) > 1:
            oldest = len(self._chunks.popleft())
            self._size -= oldest
            self.left_out += oldest

    def content(self, at: datetime) -> bytes:
        """The whole log; it says what is missing."""
        notice = b""
        if self.left_out:
            text = f"The log was longer than {self._limit >> 20} MiB: its first {self.left_out} bytes were left out."
            notice = remark(at, text).kept
        return notice + b"".join(self._chunks)


def pages(content: bytes, page_bytes: int = 256 << 10) -> Iterator[list[Entry]]:
    """The entries of a kept log. What is no line of one is left out."""
    start = 0
    while start < len(content):
        end = content.rfind(b"\n", start, start + page_bytes + LINE_BYTES) + 1 or len(content)
        found = (_parse(line) for line in content[start:end].split(b"\n"))
        yield [entry for entry in found if entry is not None]
        start = end


def _parse(line: bytes) -> Entry | None:
    parts = line.split(b" ", 2)
    if len(parts) != 3 or parts[1] not in (OUTPUT, SYSTEM) or not _STAMP.fullmatch(parts[0]):
        return None
    return Entry(parts[0], parts[2], system=parts[1] == SYSTEM)
