"""Logs: one line an event on stderr, `2026-11-23T09:31:44.123Z INFO  executor  message`.

The levels are those of the Go manager's configuration: 0 panic, 1 fatal, 2 error, 3 warn, 4 info, 5 debug. The part is
the package below `flyte_manager` that wrote the line, or the library. Control characters in a message are escaped:
names and errors come from clients, and must not be able to write lines of their own. Libraries are heard from warnings
on, except at debug.

What is for the person who started it goes to stdout. A manager serves on when nobody reads that any more.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import TextIO

LEVELS: Mapping[int, int] = {
    0: logging.CRITICAL,
    1: logging.CRITICAL,
    2: logging.ERROR,
    3: logging.WARNING,
    4: logging.INFO,
    5: logging.DEBUG,
}
NAMES: Mapping[int, str] = {logging.CRITICAL: "FATAL", logging.WARNING: "WARN"}
OURS = "flyte_manager"
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class Lines(logging.Formatter):
    """Formats a record as one line, followed by the traceback if it has one."""

    def __init__(self, *, show_source: bool) -> None:
        super().__init__()
        self._show_source = show_source

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        level = NAMES.get(record.levelno, record.levelname)
        message = CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage())
        source = f"{record.filename}:{record.lineno}  " if self._show_source else ""
        line = f"{seconds}.{int(record.msecs):03d}Z {level:<5} {part_of(record.name)}  {source}{message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def part_of(name: str) -> str:
    """`flyte_manager.executor.reconcile` is `executor`, `uvicorn.error` is `uvicorn`."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == OURS and rest else first


def set_up_logging(level: int, *, show_source: bool = False, stream: TextIO | None = None) -> None:
    """Sends all logs to `stream` (stderr by default) from `level` (0 to 5, see above) on. Replaces what was set up
    before; ValueError for another level."""
    if level not in LEVELS:
        raise ValueError(f"{level} is not a log level: use 0 panic, 1 fatal, 2 error, 3 warn, 4 info or 5 debug")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(show_source=show_source))
    chosen = LEVELS[level]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(chosen if chosen == logging.DEBUG else max(chosen, logging.WARNING))
    logging.getLogger(OURS).setLevel(chosen)


def say(text: str) -> None:
    """Prints a text for the person who started the manager."""
    try:
        print(text, flush=True)
    except OSError as error:
        hush()
        logging.getLogger(__name__).warning("stdout can't be written (%s): no more is printed there", error.strerror)


def hush() -> None:
    """What is still to be printed goes nowhere: else the end of Python would complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def open_streams() -> None:
    """Gives a process that was started without stdin, stdout or stderr ones that lead nowhere: another file would get
    their number, and the event loop dies of closing it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
