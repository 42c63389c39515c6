"""The shepherd: a fork of the zygote that minds one attempt from before its start to after its end.

    zygote --fork--> shepherd --fork--> task (own session; dies with the shepherd)
                        |  takes the lock, writes the mark, forks; answers the manager
                        |  frames the output, watches memory and time, passes SIGTERM on
                        '- kills what is left over, renames the record into place, ends

An attempt starts once, on disk: with a mark or a record in its folder the shepherd refuses. All that may fail and be
tried again (folders, secrets, pipes) comes before the mark. The shepherd outlives zygote and manager. Orphans of the
task become its children (subreaper), so it finds and reaps every descendant, daemons too. SIGTERM means: stop the task.

Standard library only, and nothing newer than Python 3.10.
"""

import base64
import contextlib
import errno
import gc
import os
import resource
import select
import shutil
import signal
import socket
import time
import traceback
from collections.abc import Callable

from flyte_manager.processes import folder as disk
from flyte_manager.processes import frames, linux

SAMPLE_SECONDS = 1.0
LIMITED_SAMPLE_SECONDS = 0.25
"""with a memory limit, because a task may allocate a gigabyte a second"""
DRAIN_SECONDS = 0.5
NAP_SECONDS = 0.005
NOT_FOUND, NOT_EXECUTABLE = 127, 126
WORDS_BYTES = 300
SDK_LOG = b"[flyte] "
"""in lines by which the SDK tells of itself"""
NAME = "shepherd"
_NEVER = float("inf")

Warm = Callable[[disk.Order], int]
"""Runs argv as the SDK's a0 in this process; returns the exit code."""
Answer = Callable[[dict[str, object]], None]


def mind(order: disk.Order, conn: socket.socket, warm: Warm | None) -> None:
    """Minds one attempt in a process of its own; answers once on the connection, then closes it."""

    def answer(content: dict[str, object]) -> None:
        with conn:
            conn.sendall(disk.to_line(content))

    try:
        _detach({conn.fileno()})
        shepherd = Shepherd(order, warm)
        refusal = shepherd.start()
    except Exception:
        answer({"error": traceback.format_exc(limit=-3)})
        return
    if refusal:
        answer({refusal: True})
        return
    with contextlib.suppress(OSError):  # the manager may be gone; the next one finds the mark
        answer({"shepherd": os.getpid(), "birth": linux.birth(os.getpid())})
    shepherd.watch()
    shepherd.finish()


def _detach(kept: set[int]) -> None:
    os.setsid()
    linux.become_subreaper()
    linux.set_name(NAME)
    gc.disable()  # a collection would write to every page that is shared with the zygote
    close_all(kept)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def close_all(kept: set[int]) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue  # the one by which the folder was listed


class Shepherd:
    """One attempt's minder. `start`, then `watch` until the task ends, then `finish`."""

    def __init__(self, order: disk.Order, warm: Warm | None) -> None:
        self._order = order
        self._warm = warm
        self._reason: str | None = None
        self._detail = ""
        self._last_words = b""
        self._peak_kib = 0
        self._kill_at = _NEVER
        self._deadline = _NEVER
        self._sample_at = 0.0
        self._sample_seconds = LIMITED_SAMPLE_SECONDS if order.memory_limit else SAMPLE_SECONDS
        self._last_output = 0.0
        self._pipes: dict[int, tuple[bytes, frames.LineCutter]] = {}
        self._poll = select.poll()

    def start(self) -> str:
        """Starts the task. Returns "" or why not: `busy` (somebody holds the lock), `over` (it was started before)."""
        order = self._order
        os.makedirs(order.folder, mode=0o700, exist_ok=True)
        self._lock = disk.open_lock(order.folder)
        if not linux.lock(self._lock):
            return "busy"
        if disk.read_mark(self._lock) or disk.read_record(order.folder):
            return "over"
        for name in (disk.WORK, disk.TEMPORARY):
            os.makedirs(os.path.join(order.folder, name), mode=0o700, exist_ok=True)
        usual = os.umask(0o077)
        _write_secrets(order)
        os.umask(usual)
        log = os.open(os.path.join(order.folder, disk.LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log = frames.LogWriter(log, order.log_limit)
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(wake)
        out, err = os.pipe(), os.pipe()
        self._started = time.time()
        disk.write_mark(self._lock, disk.Mark(os.getpid(), linux.birth(os.getpid()), self._started))
        try:
            self._pid = self._fork(out[1], err[1], log)
        except OSError:
            os.ftruncate(self._lock, 0)  # nothing ran: it may be tried again
            raise
        for stream, (read, write) in ((frames.OUT, out), (frames.ERR, err)):
            os.close(write)
            os.set_blocking(read, False)
            linux.grow_pipe(read)
            self._pipes[read] = (stream, frames.LineCutter())
        self._task = os.pidfd_open(self._pid)
        for fd in (self._wake, self._task, *self._pipes):
            self._poll.register(fd, select.POLLIN)
        if order.run_seconds:
            self._deadline = time.monotonic() + order.run_seconds
        self._sample_at = time.monotonic() + self._sample_seconds
        return ""

    def _fork(self, out: int, err: int, log: int) -> int:
        for note in self._order.notes:
            self._log.system(note)
        shepherd = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            if self._warm and not self._order.program:
                _become_task(shepherd, out, err, {self._lock})
                code = self._warm(self._order)
            else:
                _become_task(shepherd, out, err, {self._lock, log})
                code = _exec(self._order, self._lock, log)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def watch(self) -> None:
        """Returns when the task's first process has ended."""
        over = False
        while not over:
            due = min(self._sample_at, self._deadline, self._kill_at)
            output = False
            for fd, _ in self._poll.poll(max(0.0, due - time.monotonic()) * 1000):
                if fd == self._task:
                    over = True
                elif fd == self._wake:
                    os.read(self._wake, 64)
                    self._stop("ABORTED")
                else:
                    output = self._read(fd) or output
            if not over:
                self._tick(time.monotonic())
                self._reap_orphans()
                if output:
                    self._nap()

    def finish(self) -> None:
        """Kills leftovers, writes the rest of the output and the record. The shepherd ends after this."""
        _, status, used = os.wait4(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        left = _kill_descendants()
        if left:
            self._log.system(f"{left} processes that outlived the task were killed.")
        self._drain()
        if self._log.dropped:
            self._log.system(f"{self._log.dropped} bytes of output above the log's limit were dropped.")
        if self._log.lost:
            self._log.system(f"{self._log.lost} bytes of output could not be written (disk full?).")
        disk.remove_secrets(self._order.folder)
        family = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = disk.Record(
            code=code,
            started=self._started,
            ended=time.time(),
            reason=self._reason,
            cpu_seconds=round(family.ru_utime + family.ru_stime, 6),
            peak_memory=max(self._peak_kib, used.ru_maxrss) << 10,
            detail=self._detail or (self._last_words.decode("utf-8", "replace").strip() if code else ""),
        )
        while True:
            try:
                return disk.write_record(self._order.folder, record)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                time.sleep(1)  # an attempt is over when that is on disk

    def _read(self, fd: int) -> bool:
        """Whether there was something."""
        stream, cutter = self._pipes[fd]
        try:
            data = os.read(fd, linux.PIPE_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._write(stream, cutter.feed(data))
            return True
        self._poll.unregister(fd)
        self._write(stream, cutter.rest())
        del self._pipes[fd]
        os.close(fd)
        return False

    def _nap(self) -> None:
        """A chatty task would wake the shepherd for every line: let its pipe fill for a moment."""
        now = time.monotonic()
        if now - self._last_output < 4 * NAP_SECONDS:
            time.sleep(NAP_SECONDS)
        self._last_output = now

    def _drain(self) -> None:
        end = time.monotonic() + DRAIN_SECONDS  # somebody beyond our reach may hold the pipes open
        while self._pipes and time.monotonic() < end:
            ready, _, _ = select.select(list(self._pipes), [], [], 0.1)
            for fd in ready:
                self._read(fd)
        for stream, cutter in self._pipes.values():
            self._write(stream, cutter.rest())

    def _write(self, stream: bytes, lines: list[bytes]) -> None:
        """Into the log. The last line of stderr often tells why a process died: a traceback ends with the error."""
        self._log.write(stream, lines)
        if stream == frames.ERR:
            told = (line for line in reversed(lines) if line.strip() and SDK_LOG not in line)
            self._last_words = next(told, self._last_words)[:WORDS_BYTES]

    def _tick(self, now: float) -> None:
        if now >= self._sample_at:
            self._sample_at = now + self._sample_seconds
            self._sample()
        if now >= self._deadline:
            self._deadline = _NEVER
            self._stop("TIMEOUT", f"it ran longer than its limit of {self._order.run_seconds:g} s")
        if now >= self._kill_at:
            self._kill_at = _NEVER
            linux.kill(linux.descendants(os.getpid()), signal.SIGKILL)

    def _sample(self) -> None:
        limit = self._order.memory_limit >> 10
        pids = linux.descendants(os.getpid())
        used = sum(map(linux.resident_kib, pids))
        if limit and used > limit * 0.8:
            used = sum(map(linux.anonymous_kib, pids))
        self._peak_kib = max(self._peak_kib, used)
        if limit and used > limit and self._reason != "OOM":
            self._stop("OOM", f"it used {used >> 10} MiB of memory, its limit is {limit >> 10} MiB", at_once=True)

    def _stop(self, reason: str, detail: str = "", *, at_once: bool = False) -> None:
        pids = linux.descendants(os.getpid())
        linux.kill(pids, signal.SIGKILL if at_once else signal.SIGTERM)
        if self._reason is None or at_once:
            self._reason, self._detail = reason, detail
            self._log.system(f"The task is being stopped ({reason}){': ' + detail if detail else ''}.")
        self._kill_at = min(self._kill_at, time.monotonic() + self._order.grace_seconds)

    def _reap_orphans(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in (0, self._pid):
                return
            os.waitpid(ended.si_pid, 0)


def _write_secrets(order: disk.Order) -> None:
    root = os.path.join(order.folder, disk.SECRETS)
    shutil.rmtree(root, ignore_errors=True)
    for name, content in order.secrets.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(base64.b64decode(content))


def _become_task(shepherd: int, out: int, err: int, kept: set[int]) -> None:
    os.setsid()
    linux.die_with_parent(shepherd)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, fd in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, fd)
    signal.set_wakeup_fd(-1)
    close_all(kept)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with open("/proc/self/oom_score_adj", "wb") as file:
            file.write(b"500")  # the kernel takes tasks before shepherds
    except OSError:
        pass  # some sandboxes forbid it


def _exec(order: disk.Order, lock: int, log: int) -> int:
    """Replaces this process by the program; returns only when that fails."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.set_inheritable(lock, True)
    os.chdir(os.path.join(order.folder, disk.WORK))
    try:
        os.execve(order.program, order.argv, order.env)
    except OSError as error:
        text = f"{order.program} could not be started: {error.strerror}."
        os.write(log, frames.frame(frames.SYSTEM, [text.encode("utf-8", "replace")]))
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def _kill_descendants() -> int:
    """Ends when no process is left below this one; returns how many were killed."""
    killed: set[int] = set()
    while True:
        pids = [pid for pid in linux.descendants(os.getpid()) if linux.birth(pid)]
        linux.kill(pids, signal.SIGKILL)
        killed.update(pids)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return len(killed)
