"""The log's format: one line per line, `<milliseconds since 1970> <stream> <text>`, stream o(ut), e(rr) or s(ystem).

Writing never raises: a full disk costs lines of the log, never the attempt. A write that was cut leaves half a line,
so the next one begins with a line break. Standard library only, and nothing newer than Python 3.10.
"""

import os
import time

OUT, ERR, SYSTEM = b"o", b"e", b"s"
LINE_BYTES = 1 << 16
"""A line longer than this is split."""


def frame(stream: bytes, lines: list[bytes]) -> bytes:
    prefix = b"%d %s " % (time.time() * 1000, stream)
    return b"".join(prefix + line + b"\n" for line in lines)


def parse(line: bytes) -> tuple[float, bytes, str] | None:
    """(seconds since 1970, stream, text); None for what isn't a whole frame."""
    parts = line.split(b" ", 2)
    if len(parts) != 3 or not parts[0].isdigit() or parts[1] not in (OUT, ERR, SYSTEM):
        return None
    return int(parts[0]) / 1000, parts[1], parts[2].decode("utf-8", "replace")


class LogWriter:
    """Appends framed lines up to a limit in bytes; lines of the system are written even above it."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._room = limit
        self._torn = False
        self.dropped = 0
        """bytes above the limit"""
        self.lost = 0
        """bytes that the file system refused"""

    def write(self, stream: bytes, lines: list[bytes]) -> None:
        if not lines:
            return
        framed = frame(stream, lines)
        if stream != SYSTEM and len(framed) > self._room:
            fitting = framed.rfind(b"\n", 0, self._room) + 1
            notice = (
                b"" if self.dropped else frame(SYSTEM, [b"The log has reached its limit; further output is dropped."])
            )
            self.dropped += len(framed) - fitting
            framed = framed[:fitting] + notice
            self._room = 0
        elif stream != SYSTEM:
            self._room -= len(framed)
        if framed:
            self._append(framed)

    def system(self, text: str) -> None:
        self.write(SYSTEM, [line.encode("utf-8", "replace") for line in text.splitlines()])

    def _append(self, framed: bytes) -> None:
        data = b"\n" + framed if self._torn else framed
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        if written < len(data):
            self.lost += len(data) - written
            self._torn = self._torn or written > 0
        else:
            self._torn = False


def _pieces(line: bytes) -> list[bytes]:
    return [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)] or [line]


class LineCutter:
    """Cuts a byte stream into lines, keeping the unfinished one."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        lines = (self._rest + data).split(b"\n")
        if any(len(line) > LINE_BYTES for line in lines):
            lines = [piece for line in lines for piece in _pieces(line)]
        self._rest = lines.pop()
        return lines

    def rest(self) -> list[bytes]:
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
