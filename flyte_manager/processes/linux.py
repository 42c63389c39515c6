"""The few calls of Linux that the shepherds and the manager share: locks that can be asked, prctl, /proc.

Standard library only, and nothing newer than Python 3.10: zygote and shepherd run in the tasks' interpreter.
"""

import ctypes
import errno
import fcntl
import os
import signal
import struct
from collections.abc import Iterable, Iterator
from functools import cache

PIPE_BYTES = 1 << 20
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_F_SETPIPE_SZ = 1031
_MADV_COLLAPSE, _HUGE_BYTES = 25, 1 << 21
_FLOCK = "hhqqi4x"
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: object) -> None:
    if _libc().prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def set_name(name: str) -> None:
    """What `ps -o comm` shows, at most 15 characters."""
    _prctl(_PR_SET_NAME, name.encode())


def become_subreaper() -> None:
    """Orphans among the descendants become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when its parent ends; ends it now when that has happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL.value)
    if os.getppid() != parent:
        os._exit(137)


def grow_pipe(fd: int) -> None:
    """A larger pipe spares wake-ups. A hint: users without privileges may have few of them."""
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        return


def use_huge_pages() -> None:
    """Gathers this process's memory in huge pages: a fork has fewer entries of page tables to copy and to give back.
    A hint: kernels before 6.1 can't."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        areas = [line.split() for line in file]
    for span, access, _, _, inode, *name in areas:
        if access == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, end = (int(word, 16) for word in span.split("-"))
            first = -(-start // _HUGE_BYTES) * _HUGE_BYTES
            for place in range(first, end - _HUGE_BYTES + 1, _HUGE_BYTES):
                _libc().madvise(ctypes.c_void_p(place), ctypes.c_size_t(_HUGE_BYTES), _MADV_COLLAPSE)


def lock(fd: int) -> bool:
    """Takes the write lock of the open file; false when somebody holds it. It is shared with all who inherit the
    descriptor and goes with the last of them: close it, never unlock it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def locked(fd: int) -> bool:
    """Whether somebody else holds the lock, without taking it for a moment."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind: int = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def birth(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none or only its zombie is left. With the
    pid it names a process for good."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def other_threads() -> set[str]:
    """Names of this process's threads but for the main one."""
    ours = str(os.getpid())
    return {_comm(f"self/task/{tid}") for tid in os.listdir("/proc/self/task") if tid != ours}


def name_of(pid: int) -> str:
    """What `set_name` set; empty when there is no such process."""
    return _comm(str(pid))


def _comm(place: str) -> str:
    try:
        with open(f"/proc/{place}/comm", "rb") as file:
            return file.read().decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def note_ended_children() -> int:
    """A descriptor that becomes readable when a child of this process ends."""
    ended, end = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    return ended


def reap() -> Iterator[int]:
    """Waits for the children that have ended; their pids."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    ahead = children(pid)
    while ahead:
        child = ahead.pop()
        found.append(child)
        ahead += children(child)
    return found


def kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue  # it is gone, or it changed its user: not ours to signal


def resident_kib(pid: int) -> int:
    """Resident memory that no file backs: quick, but counts pages shared with the zygote."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE_KIB


def anonymous_kib(pid: int) -> int:
    """The process's fair share of anonymous memory: exact, seven times slower than `resident_kib`."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss_Anon:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return 0


def holders(path: str, marker: str) -> list[int]:
    """Processes that have the file open or were exec'ed with the marker (`NAME=value`) in their environment."""
    sought = marker.encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and (_has_open(entry, path) or _has_variable(entry, sought)):
            found.append(int(entry))
    return found


def _has_open(pid: str, path: str) -> bool:
    try:
        return any(
            _link(f"/proc/{pid}/fd/{fd}").removesuffix(" (deleted)") == path for fd in os.listdir(f"/proc/{pid}/fd")
        )
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _has_variable(pid: str, sought: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return sought in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
