"""The zygote: `python zygote.py SOCKET warm|cold`, started by path with the tasks' interpreter.

    manager --exec--> zygote --fork--> shepherd --fork--> task
       |  leash: a pipe, the zygote's stdin; its end is the zygote's end (shepherds live on)
       '- socket: one connection an order; the shepherd answers and closes it

`warm` imports the SDK first, so that its forks need not; `cold` imports nothing, its tasks exec. It tells by one line
on stdout whether it is ready. A fork takes along one thread only, so it must have exactly one: else it ends with a
message. It is a subreaper: who becomes its child without being a shepherd has lost its shepherd and is killed.

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
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # beside the tasks' own libraries, this package's plain files
from flyte_manager.processes import folder as disk  # noqa: E402
from flyte_manager.processes import linux, shepherd, warm  # noqa: E402

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

    def serve(self) -> None:
        ended, end = os.pipe()
        os.set_blocking(ended, False)
        os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(0, select.POLLHUP)
        poll.register(ended, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if 0 in ready:
                return self._leave()
            if ended in ready:
                os.read(ended, 4096)
                self._reap()
            if self._listener.fileno() in ready:
                self._accept()

    def _accept(self) -> None:
        conn, _ = self._listener.accept()
        with conn:
            conn.settimeout(READ_SECONDS)
            try:
                order = disk.Order(**json.loads(_read_line(conn)))
            except (OSError, ValueError, TypeError) as error:
                print(f"an order could not be read: {error!r}", file=sys.stderr, flush=True)
                return
            if linux.threads() != 1:
                sys.exit(f"the zygote has {linux.threads()} threads and must not fork")
            pid = os.fork()
            if pid:
                self._shepherds.add(pid)
                return
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                self._listener.detach()
                shepherd.mind(order, conn, self._run)
                code = 0
            finally:
                os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                break
            self._shepherds.discard(pid)
        for orphan in set(linux.children(os.getpid())) - self._shepherds:
            linux.kill([orphan, *linux.descendants(orphan)], signal.SIGKILL)

    def _leave(self) -> None:
        os.unlink(self._path)
        os.rmdir(os.path.dirname(self._path))
        os._exit(0)  # what the SDK registered for its end has no business here


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
            return
        run = warm.run
    if linux.threads() != 1:
        _tell(report, f"{linux.threads()} threads live after the imports")
        return
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
