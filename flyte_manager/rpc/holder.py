"""Who listens on a port, as far as /proc tells (Linux, and processes of the same user)."""

import os
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"
PROC = Path("/proc")


def port_holder(port: int) -> str | None:
    """`pid 4711, python -m http.server`, or None when the system doesn't tell."""
    sockets = {f"socket:[{inode}]" for inode in listening_inodes(port)}
    if not sockets:
        return None
    for process in PROC.iterdir():
        if process.name.isdecimal() and holds(process, sockets):
            return f"pid {process.name}, {command(process)}"
    return None


def listening_inodes(port: int) -> Iterator[str]:
    """The inodes of the TCP sockets that listen on the port, on any address."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue  # no such family, or no Linux
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def holds(process: Path, sockets: set[str]) -> bool:
    """Whether one of the sockets is open in the process; no when that may not be seen."""
    try:
        return any(link_of(entry) in sockets for entry in (process / "fd").iterdir())
    except OSError:
        return False


def link_of(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""  # closed meanwhile


def command(process: Path) -> str:
    """The command line, as it would be typed."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "which has just ended"
    return " ".join(words).strip() or "a program without arguments"
