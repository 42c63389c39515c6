"""Branches: zygotes beside the zygote, for tasks that import heavy libraries (libraries.py).

    zygote --fork--> shepherd --fork--> first task of its kind: at its end it writes down what it imported
       |---fork--> branch: imports that, is checked, then gets the orders of its kind with their connections
       |              '---fork--> shepherd --fork--> further tasks: find it imported
       '- until the branch is ready, whenever it has no time, and after any trouble with it: the zygote forks

At most four, the one that was used longest ago goes. A branch ends with its channel; shepherds outlive it and become
the zygote's children. Standard library only, and nothing newer than Python 3.10.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flyte_manager.processes import folder as disk
from flyte_manager.processes import libraries, linux, shepherd

MOST = 4
MOST_KINDS = 64
IMPORT_SECONDS = 30.0
MESSAGE_BYTES = 1 << 17


@dataclass
class Branch:
    """The zygote's end of one. `due`: when it must be ready; None when it is."""

    pid: int
    channel: socket.socket
    due: float | None


class Branches:
    """What the zygote knows of kinds of tasks and of its branches."""

    def __init__(self, run: shepherd.Warm | None) -> None:
        self._run = run
        self._wanted: OrderedDict[str, Mapping[str, str] | None] = OrderedDict()
        """kind -> libraries; None while its first attempt runs"""
        self._branches: OrderedDict[str, Branch] = OrderedDict()
        self._processes: set[int] = set()
        """also those that have been told to end"""

    def learns_from(self, kind: str) -> bool:
        """Whether the attempt is the first of its kind, and shall write down its libraries."""
        if not kind or kind in self._wanted:
            return False
        self._wanted[kind] = None
        if len(self._wanted) > MOST_KINDS:
            self._wanted.popitem(last=False)
        return True

    def learn(self, kind: str, folder: str) -> None:
        self._wanted[kind] = libraries.read(folder)

    def take(self, order: disk.Order, line: bytes, conn: socket.socket) -> bool:
        """Whether a branch has taken the order; else the zygote forks."""
        branch = self._branches.get(order.kind)
        if branch is None:
            if wanted := self._wanted.get(order.kind):
                self._grow(order, wanted)
            return False
        if branch.due is not None or len(line) > MESSAGE_BYTES:
            return False
        self._branches.move_to_end(order.kind)
        try:
            socket.send_fds(branch.channel, [line], [conn.fileno()])
        except OSError:  # it has no time, or has just ended: then its channel tells
            return False
        return True

    def channels(self) -> Iterator[int]:
        return (branch.channel.fileno() for branch in self._branches.values())

    def pids(self) -> set[int]:
        """Of all that live."""
        return self._processes

    def ended(self, pid: int) -> None:
        self._processes.discard(pid)

    def seconds_left(self) -> float | None:
        """Until a branch should have become ready."""
        due = [branch.due for branch in self._branches.values() if branch.due is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def attend(self, ready: set[int]) -> None:
        """Hears from branches that have something to say, and ends those that are late."""
        for kind, branch in list(self._branches.items()):
            if branch.channel.fileno() in ready:
                why_not = self._heard(branch)
            else:
                late = branch.due is not None and time.monotonic() >= branch.due
                why_not = f"they take more than {IMPORT_SECONDS:g} s" if late else ""
            if why_not:
                print(f"tasks like this import their libraries each ({kind}): {why_not}", file=sys.stderr, flush=True)
                self._wanted[kind] = {}
                self._end(kind)

    def forget(self) -> None:
        """In a fork: leaves the descriptors to others."""
        for branch in self._branches.values():
            branch.channel.detach()

    def _heard(self, branch: Branch) -> str:
        try:
            said = branch.channel.recv(MESSAGE_BYTES)
        except OSError as error:
            return str(error)
        if said == b"ready":
            branch.due = None
            return ""
        return said.decode("utf-8", "replace") or "the process that did it for them has ended"

    def _grow(self, order: disk.Order, wanted: Mapping[str, str]) -> None:
        if len(self._branches) == MOST:
            self._end(next(iter(self._branches)))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        zygote = os.getpid()
        pid = os.fork()
        if pid:
            theirs.close()
            self._processes.add(pid)
            self._branches[order.kind] = Branch(pid, ours, time.monotonic() + IMPORT_SECONDS)
            return
        try:
            self.forget()
            linux.die_with_parent(zygote)
            serve(theirs, order, wanted, self._run)
        finally:
            os._exit(1)

    def _end(self, kind: str) -> None:
        branch = self._branches.pop(kind)
        branch.channel.close()
        if branch.due is not None:
            linux.kill([branch.pid], signal.SIGKILL)


def serve(channel: socket.socket, order: disk.Order, wanted: Mapping[str, str], run: shepherd.Warm | None) -> None:
    """The branch. Returns when it is of no use, or no longer needed."""
    linux.set_name("branch")
    shepherd.close_all({channel.fileno()})
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        libraries.preload(wanted, order.env)
    except BaseException as error:
        channel.send(f"{type(error).__name__}: {error}"[:1000].encode())
        return
    gc.collect()
    gc.freeze()
    linux.use_huge_pages()
    ended = linux.note_ended_children()
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(channel, select.POLLIN)
    channel.send(b"ready")
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if ended in ready:
            os.read(ended, 4096)
            for _ in linux.reap():
                pass
        if channel.fileno() in ready:
            line, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
            if not fds:
                return
            with socket.socket(fileno=fds[0]) as conn:
                fork_shepherd(disk.Order(**json.loads(line)), conn, run, lambda: None)


def fork_shepherd(order: disk.Order, conn: socket.socket, run: shepherd.Warm | None, forget: Callable[[], None]) -> int:
    """Returns its pid. `forget` runs in the fork, which must leave descriptors of this process alone."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        forget()
        shepherd.mind(order, conn, run)
        code = 0
    finally:
        os._exit(code)
