"""A port of this machine that is the same after a restart, because tasks that go on meanwhile know it."""

import random
import socket
from pathlib import Path

PORTS = range(20_000, 32_000)
"""below those that the system gives to whoever connects somewhere"""


def steady_port(file: Path) -> int:
    """The port that the file keeps; a new one when there is none or somebody else has it by now."""
    kept = file.read_text().strip() if file.exists() else ""
    port = int(kept) if kept.isdecimal() and int(kept) in PORTS else random.choice(PORTS)
    while not _is_free(port):
        port = random.choice(PORTS)
    file.write_text(f"{port}\n")
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
