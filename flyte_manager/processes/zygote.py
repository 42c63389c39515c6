"""The zygote: `python zygote.py SOCKET warm|cold`, started by path with the tasks' interpreter.

    manager --exec--> zygote --fork--> shepherd --fork--> task
       |  leash: a pipe, the zygote's stdin; its end is the zygote's end (shepherds live on)
       '- socket: one connection an order; the shepherd answers and closes it

`warm` imports the SDK first, so that its forks need not; `cold` imports nothing, its tasks exec. It tells by one line
on stdout whether it is ready. A fork takes along one thread only, so it must have exactly one: else it ends with a
message. It is a subreaper: who becomes its child without being a shepherd has lost its shepherd and is killed.
Tasks that import heavy libraries get zygotes of their own beside it (branches.py).

Standard library only (and the SDK, in warm.py), and nothing newer than Python 3.10.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

sys.path[0] = str(Path(__file__).resolve().parents[2])  # beside the tasks' own libraries, this package's plain files
from flyte_manager.processes import branches, bundles, linux, shepherd, warm  # noqa: E402
from flyte_manager.processes import folder as disk  # noqa: E402

del sys.path[0]

ORDER_BYTES = 64 << 20
READ_SECONDS = 5.0


class Zygote:
    """Forks a shepherd for each order that comes through the socket, until its leash ends."""

    def __init__(self, listener: socket.socket, path: str, run: shepherd.Warm | None) -> None:
        self._listener = listener
        self._path = path
        self._run = run
        self._shepherds: set[int] = set()
        self._branches = branches.Branches(run)
        self._learning: dict[int, disk.Order] = {}
        """shepherd -> order of an attempt that writes down its libraries"""

    def serve(self) -> None:
        ended = linux.note_ended_children()
        while True:
            poll = select.poll()
            poll.register(0, select.POLLHUP)
            for fd in (ended, self._listener.fileno(), *self._branches.channels()):
                poll.register(fd, select.POLLIN)
            left = self._branches.seconds_left()
            ready = {fd for fd, _ in poll.poll(None if left is None else 1000 * left + 1)}
            if 0 in ready:
                return self._leave()
            if ended in ready:
                os.read(ended, 4096)
                self._reap()
            self._branches.attend(ready)
            if self._listener.fileno() in ready:
                self._accept()

    def _accept(self) -> None:
        conn, _ = self._listener.accept()
        with conn:
            conn.settimeout(READ_SECONDS)
            try:
                line = _read_line(conn)
                order = disk.Order(**json.loads(line))
            except (OSError, ValueError, TypeError) as error:
                print(f"an order could not be read: {error!r}", file=sys.stderr, flush=True)
                return
            if linux.threads() != 1:
                sys.exit(f"the zygote has {linux.threads()} threads and must not fork")
            if not order.program:
                bundles.read(order.argv)
            if order.kind and self._branches.take(order, line, conn):
                return
            order = replace(order, learns=self._branches.learns_from(order.kind))
            pid = branches.fork_shepherd(order, conn, self._run, self._forget)
            self._shepherds.add(pid)
            if order.learns:
                self._learning[pid] = order

    def _forget(self) -> None:
        """In a fork: its descriptors are the zygote's business."""
        self._listener.detach()
        self._branches.forget()

    def _reap(self) -> None:
        for pid in linux.reap():
            self._shepherds.discard(pid)
            self._branches.ended(pid)
            if order := self._learning.pop(pid, None):
                self._branches.learn(order.kind, order.folder)
        for orphan in set(linux.children(os.getpid())) - self._shepherds - self._branches.pids():
            if linux.name_of(orphan) == shepherd.NAME:
                self._shepherds.add(orphan)  # its branch has ended
            else:
                linux.kill([orphan, *linux.descendants(orphan)], signal.SIGKILL)

    def _leave(self) -> None:
        os.unlink(self._path)
        os.rmdir(os.path.dirname(self._path))
        _end()


def _read_line(conn: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        part = conn.recv(1 << 20)
        size += len(part)
        if not part or size > ORDER_BYTES:
            raise ValueError("it is cut off or too long")
        parts.append(part)
    return b"".join(parts)


def _tell(report: int, why_not: str) -> None:
    os.write(report, disk.to_line({"ready": not why_not, "why": why_not}))
    os.close(report)


def _end() -> NoReturn:
    sys.stderr.flush()
    os._exit(0)  # what the SDK registered for its end has no business here


def main(path: str, mode: str) -> None:
    linux.set_name("zygote")
    linux.become_subreaper()
    report = os.dup(1)
    os.dup2(2, 1)  # what the imports print is not our word
    run: shepherd.Warm | None = None
    if mode == "warm":
        try:
            warm.prepare()
        except Exception:
            _tell(report, traceback.format_exc(limit=-1))
            _end()
        run = warm.run
    if linux.threads() != 1:
        _tell(report, f"threads live after the imports: {', '.join(sorted(linux.other_threads()))}")
        _end()
    gc.disable()
    listener = socket.socket(socket.AF_UNIX)
    usual = os.umask(0o077)
    listener.bind(path)
    os.umask(usual)
    listener.listen(1024)
    _tell(report, "")
    Zygote(listener, path, run).serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
