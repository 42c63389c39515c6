"""What a task imported, and importing that beforehand for others, in a process that forks them (branches.py).

`write_down` runs at the end of a task. It tells nothing when the task's code changed what an import depends on: the
environment, the path, the import hooks. The user's own modules are never told: each task imports those anew, because
while they are imported they may look at the clock, draw an id, print, or remember where they lie.

`preload` imports what was told and finds out whether forks of this process are as good as fresh ones: no threads, no
children, no new descriptors, nothing printed, nothing drawn from a random source, no look at what names an attempt.

Standard library only, and nothing newer than Python 3.10.
"""

import importlib
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from types import FrameType, ModuleType
from typing import Any

from flyte_manager.processes import folder as disk
from flyte_manager.processes import linux

DRAWING = ("numpy", "multiprocessing")
"""may draw random bytes at import: `start_afresh` draws them again"""

FORK_SAFE = {"jemalloc_bg_thd"}
"""threads of libraries that make new ones in a fork when they need them"""


class UnfitError(Exception):
    """Forks of this process would not be as good as fresh ones; the text says why."""


def before_task() -> tuple[int, list[object], list[str]]:
    """What `write_down` compares with."""
    return len(sys.modules), list(sys.meta_path), list(sys.path)


def write_down(order: disk.Order, before: tuple[int, list[object], list[str]]) -> None:
    try:
        found = _imported(order, before)
        with open(os.path.join(order.folder, disk.LIBRARIES), "wb") as file:
            file.write(json.dumps(found).encode())
    except Exception:  # a module that makes itself may raise anything; without the file each task imports for itself
        return


def _imported(order: disk.Order, before: tuple[int, list[object], list[str]]) -> dict[str, str]:
    """Module -> file, in the order of their import."""
    known, hooks, path = before
    work = os.path.join(order.folder, disk.WORK)
    new_path = {entry for entry in sys.path if os.path.isabs(entry) and not entry.startswith(work)} - set(path)
    if dict(os.environ) != order.env or sys.meta_path != hooks or new_path:
        return {}
    own = (work, os.path.realpath(work))
    origins = {name: _origin(name, module) for name, module in list(islice(sys.modules.items(), known, None))}
    return {name: origin for name, origin in origins.items() if os.path.isabs(origin) and not origin.startswith(own)}


def _origin(name: str, module: ModuleType) -> str:
    """The file that the module came from; empty when it did not come by its own name, or from no file."""
    spec = getattr(module, "__spec__", None)
    return (spec.origin or "") if spec and spec.name == name and spec.has_location else ""


def read(folder: str) -> dict[str, str]:
    """What was written down, module -> file; empty when there was nothing, or it is damaged."""
    path = os.path.join(folder, disk.LIBRARIES)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
        os.unlink(path)
    except (OSError, ValueError):
        return {}
    return {str(name): str(origin) for name, origin in found.items()} if isinstance(found, dict) else {}


def preload(wanted: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Imports them. Raises UnfitError, or what an import raises."""
    os.environ.clear()
    os.environ.update({name: value for name, value in env.items() if name not in disk.ATTEMPT_VARIABLES})
    said = os.memfd_create("said")
    for stream in (1, 2):
        os.dup2(said, stream)
    before = _State()
    with _Watch() as watch:
        for name, origin in wanted.items():
            if _origin(name, importlib.import_module(name)) != origin:
                raise UnfitError(f"{name} comes from elsewhere")
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fstat(said).st_size:
        raise UnfitError("they print something")
    if watch.seen:
        raise UnfitError(f"they look at {watch.seen}")
    if threading.active_count() > 1:
        raise UnfitError("they start threads")
    _end_threads_that_know_forks()
    if strange := linux.other_threads() - FORK_SAFE:
        raise UnfitError(f"they start threads: {', '.join(sorted(strange))}")
    if change := before.difference(_State()):
        raise UnfitError(f"they change {change}")


def start_afresh() -> None:
    """In a fork: random sources of libraries get seeds of their own. (The standard library's does so by itself.)"""
    if source := sys.modules.get("numpy.random"):
        source.seed()


def _end_threads_that_know_forks() -> None:
    """Libraries like OpenBLAS end their threads before a fork and start them again when needed."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


class _State:
    """What imports have no business to change."""

    def __init__(self) -> None:
        self._is: dict[str, Any] = {
            "the environment": dict(os.environ),
            "the working directory": os.getcwd(),
            "the import hooks": list(sys.meta_path),
            "the random state": random.getstate(),
            "signal handlers": [signal.getsignal(number) for number in signal.valid_signals()],
            "open files": sorted(os.listdir("/proc/self/fd")),
            "child processes": linux.children(os.getpid()),
        }

    def difference(self, later: "_State") -> str:
        return ", ".join(name for name, value in self._is.items() if value != later._is[name])


class _Environment(os._Environ):  # type: ignore[type-arg]
    """os.environ that notes who asks for what names an attempt, by name or by walking through all."""

    seen = ""

    def __getitem__(self, key: Any) -> Any:
        if key in disk.ATTEMPT_VARIABLES:
            type(self).seen = str(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        type(self).seen = "all of the environment"
        return super().__iter__()


class _Watch:
    """Notes looks at the environment and draws of random bytes."""

    seen = ""

    def __enter__(self) -> "_Watch":
        self._draw = os.urandom
        _Environment.seen = ""
        os.environ.__class__ = _Environment
        os.urandom = self._drawn
        vars(random)["_urandom"] = self._drawn
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.__class__ = os._Environ
        os.urandom = self._draw
        vars(random)["_urandom"] = self._draw
        self.seen = self.seen or _Environment.seen

    def _drawn(self, size: int) -> bytes:
        if _importing().partition(".")[0] not in DRAWING:
            self.seen = f"random bytes ({_importing()})"
        return self._draw(size)


def _importing() -> str:
    """The module whose code runs just now because it is imported."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        if frame.f_code.co_name == "_load_unlocked":
            return str(frame.f_locals["spec"].name)
        frame = frame.f_back
    return ""
