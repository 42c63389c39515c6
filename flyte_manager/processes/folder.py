"""What lies in the folder of an attempt, and who writes it.

    lock        held by the shepherd and all of its task's processes; its content, the *mark*, says who the shepherd is.
                It is written before the task starts and never removed: an attempt with a mark never starts again.
    log         framed lines (frames.py)
    exit.json   the *record* of the end, renamed into place; the only thing that says that an attempt is over
    work/ tmp/  the task's working directory and TMPDIR, kept until the manager forgets the attempt
    secrets/    files that only the attempt's user may read, removed at its end
    libraries   what the first task of its kind imported, for the zygote, which removes it

The manager sends an *order* to the zygote, which forks the shepherd that makes all of this.
Standard library only, and nothing newer than Python 3.10.
"""

import json
import os
import shutil
from dataclasses import dataclass, field

from flyte_manager.processes import linux

LOCK, LOG, RECORD, WORK, TEMPORARY, SECRETS = "lock", "log", "exit.json", "work", "tmp", "secrets"
LIBRARIES = "libraries"
MARKER = "FLYTE_MANAGER_ATTEMPT"
"""Variable in the environment of every task, by which its processes are found: the path of its folder."""
ATTEMPT_VARIABLES = frozenset(
    {
        "ACTION_NAME",
        "FLYTE_ATTEMPT_NUMBER",
        "FLYTE_INTERNAL_EXECUTION_ID",
        "RUN_NAME",
        "TMPDIR",
        "_F_PN",
        "_U_RUN_BASE",
        MARKER,
    }
)
"""Variables that are another attempt's in another attempt."""


@dataclass(frozen=True)
class Order:
    """What the manager asks the zygote to start."""

    folder: str
    argv: list[str]
    env: dict[str, str]
    """the whole environment"""
    program: str = ""
    """path to exec; empty: run argv as the SDK's a0 in the forked process"""
    secrets: dict[str, str] = field(default_factory=dict)
    """relative path -> content in base64"""
    notes: list[str] = field(default_factory=list)
    memory_limit: int = 0
    run_seconds: float = 0.0
    grace_seconds: float = 5.0
    log_limit: int = 64 << 20
    kind: str = ""
    """attempts of one kind may share imported libraries"""
    learns: bool = False
    """the task writes down what it imported"""


@dataclass(frozen=True)
class Mark:
    """Who minds the attempt; the pid counts only with the birth."""

    shepherd: int
    birth: int
    started: float


@dataclass(frozen=True)
class Record:
    """How the attempt ended. Times in seconds since 1970, memory in bytes."""

    code: int
    started: float
    ended: float
    reason: str | None = None
    """ABORTED, TIMEOUT or OOM when the shepherd ended it"""
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    detail: str = ""
    vanished: bool = False
    """written by the manager: neither the task nor its shepherd lived to tell"""


def to_line(content: dict[str, object]) -> bytes:
    """One message between manager and zygote."""
    return json.dumps(content).encode() + b"\n"


def open_lock(folder: str) -> int:
    return os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def write_mark(fd: int, mark: Mark) -> None:
    os.pwrite(fd, json.dumps(vars(mark)).encode(), 0)


def read_mark(fd: int) -> Mark | None:
    """None when the file is empty: the attempt was not started."""
    content = os.pread(fd, 4096, 0)
    if not content:
        return None
    try:
        return Mark(**json.loads(content))
    except (ValueError, TypeError):
        return Mark(0, 0, 0.0)  # torn by a power cut: started, but nobody is known to mind it


def write_record(folder: str, record: Record) -> None:
    partial = os.path.join(folder, f"{RECORD}.{os.getpid()}")
    with open(partial, "wb") as file:
        file.write(json.dumps(vars(record)).encode())
    os.rename(partial, os.path.join(folder, RECORD))


def read_record(folder: str) -> Record | None:
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
            return Record(**json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # a power cut can leave a renamed file empty
        return Record(-1, 0.0, 0.0, vanished=True, detail="the record of its end is damaged")


def remove_secrets(folder: str) -> None:
    shutil.rmtree(os.path.join(folder, SECRETS), ignore_errors=True)


def sweepable(folder: str) -> list[int]:
    """The attempt's processes that live though its shepherd is dead, with all below them."""
    found = linux.holders(os.path.realpath(os.path.join(folder, LOCK)), f"{MARKER}={folder}")
    return [*found, *(below for pid in found for below in linux.descendants(pid))]
