"""What processes use: CPU seconds and memory, read from outside."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from flyte_manager.processes import linux

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1 << 10


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB: resident, and the fair share of it (a page that n processes map counts as 1/n)."""

    resident: float
    share: float


def cpu(pid: int) -> float:
    """CPU seconds of the process, all its threads, exact; 0 when it is gone. (The kernel names a process's CPU clock
    by its pid: clock_getcpuclockid(3), which Python doesn't have for other processes.)"""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def tree_cpu(pid: int) -> float:
    """CPU seconds of the process, of all that live below it, and of all that ended there, to 0.01 s for each."""
    return sum(_with_ended(each) for each in [pid, *linux.descendants(pid)])


def memory(pid: int) -> Memory:
    fields = dict(
        line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.endswith("kB")
    )
    return Memory(int(fields["Rss:"]) / _MIB, int(fields["Pss:"]) / _MIB)


def name(pid: int) -> str:
    """What `ps -o comm` shows; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def load() -> float:
    """The machine's load average of the last minute."""
    return os.getloadavg()[0]


def _with_ended(pid: int) -> float:
    """Own CPU seconds and those of the children that ended and were waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS
