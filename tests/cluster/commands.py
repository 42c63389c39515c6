"""Runs other programs to their end, and makes folders that are there whole or not at all."""

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from os import getpid
from pathlib import Path


class ToolError(Exception):
    """Something to tell the user in one line."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*argv: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Runs a command to its end; its output, which is in the failure when it fails."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise ToolError(f"{' '.join(words[:4])} ... ended with {done.returncode}\n{tail}")
    return done.stdout


def digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A folder to fill that takes path's place only if filling it succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{getpid()}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
