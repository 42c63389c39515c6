"""`python -m bench.parts`: where the manager's CPU for an action goes; a table in docs/performance.md, and its picture.

Two managers with a fake world (instant.py) each do the same: one that only counts the CPU of its threads, and one under
cProfile, which tells by which code each thread spent it. `python -m bench.parts FILE FLAGS…` is such a manager: on
SIGUSR1 it begins to count, on SIGUSR2 it writes FILE.
"""

import cProfile
import json
import os
import pstats
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from bench import instant, processes, report
from bench.anatomy import svg
from bench.load import Outcome
from bench.manager import REPOSITORY, running
from bench.measures import ROOM, load
from flyte_manager.store.engine import _Readers, _Writer

PAGE = REPOSITORY / "docs" / "performance.md"
PICTURE = REPOSITORY / "docs" / "manager.svg"
BEGIN, END = "<!-- bench.parts -->", "<!-- end of bench.parts -->"
WAYS = (("all at once, 50 callers", "to_the_end", 2000, 50), ("one after the other", "in_turn", 500, 1))
PROFILED = ("--profiled", "--counted")
PARTS = {
    "HTTP and Connect": ("uvicorn", "connectrpc", "httptools", "flyte_manager/rpc/", "ipaddress", "pyqwest"),
    "messages ↔ orders, updates": ("flyte_manager/services/", "flyte_manager/wire/", "protobuf", "flyteidl2"),
    "executor": ("flyte_manager/executor/", "flyte_manager/app.py"),
    "ledger, domain": ("flyte_manager/ledger/", "flyte_manager/domain/"),
    "rows ↔ values": ("flyte_manager/store/", "sqlalchemy", "json/"),
    "records: copies, hashes": ("dataclasses", "<string>", "enum.py", "collections/"),
    "files, the fake world": ("flyte_manager/blobs/", "flyte_manager/processes/", "bench/", "posixpath", "pathlib"),
    "event loop, threads": ("asyncio/", "uvloop", "threading", "concurrent/", "contextlib", "_weakrefset", "queue"),
}
SQLITE, OTHER = "SQLite and its disk", "the rest"
NAMES = (*PARTS, SQLITE, OTHER)
Function = tuple[str, int, str]


class Counted:
    """The manager's threads, by the work that they do."""

    def __init__(self, file: Path, *, profiled: bool) -> None:
        self._file = file
        self._profiled = profiled
        self._profiles: dict[str, cProfile.Profile] = {}
        self._began: dict[str, float] = {}

    def begin(self, *_: object) -> None:
        self._began = _threads()
        if self._profiled:
            self._profile("main").enable()

    def write(self, *_: object) -> None:
        for profile in self._profiles.values():
            profile.disable()
        used = {name: seconds - self._began.get(name, 0.0) for name, seconds in _threads().items()}
        parts = {name: _shares(profile) for name, profile in self._profiles.items()}
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"threads": used, "parts": parts}))
        fresh.rename(self._file)

    def follow(self, name: str, work: Callable[..., None]) -> Callable[..., None]:
        """The same work, profiled; that of several threads, each in a profile of its own, counts as one."""

        def followed(*arguments: Any) -> None:
            if not self._profiled or not self._began:
                return work(*arguments)
            profile = self._profile(f"{name} {threading.get_ident()}")
            return profile.runcall(work, *arguments)

        return followed

    def _profile(self, name: str) -> cProfile.Profile:
        return self._profiles.setdefault(name, cProfile.Profile(time.thread_time))


def _threads() -> dict[str, float]:
    """CPU seconds by kind of thread."""
    found: dict[str, float] = {}
    for thread in threading.enumerate():
        kind = next((kind for kind in ("writer", "reader") if kind in thread.name), "files")
        name = "main" if thread is threading.main_thread() else kind
        nanoseconds = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]
        found[name] = found.get(name, 0.0) + int(nanoseconds) / 1e9
    return found


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    """part -> seconds by the profile."""
    found = dict.fromkeys(NAMES, 0.0)
    statistics: Any = pstats.Stats(profile)
    for function, (_, _, own, _, callers) in statistics.stats.items():
        if function[0] != "~" or "sqlite3" in function[2] or not callers:
            found[_part(function)] += own
        else:  # a function in C: by who called it
            for caller, (_, _, own_there, _) in callers.items():
                found[_part(caller)] += own_there
    return found


def _part(function: Function) -> str:
    file, _, name = function
    if "sqlite3" in name:
        return SQLITE
    return next((part for part, marks in PARTS.items() if any(mark in file for mark in marks)), OTHER)


def serve(mode: str, file: str) -> int:
    counted = Counted(Path(file), profiled=mode == PROFILED[0])
    signal.signal(signal.SIGUSR1, counted.begin)
    signal.signal(signal.SIGUSR2, counted.write)
    with ExitStack() as stack:
        for kind, name, work in ((_Writer, "_process", "writer"), (_Readers, "_read", "reader")):
            stack.enter_context(mock.patch.object(kind, name, counted.follow(work, getattr(kind, name))))
        return instant.main()


def measured(mode: str, scenario: str, count: int, callers: int) -> tuple[dict[str, Any], Outcome]:
    with ExitStack() as stack:
        file = REPOSITORY / "bench" / "results" / f"parts-{os.getpid()}.json"
        stack.callback(file.unlink, missing_ok=True)
        manager = stack.enter_context(running(program=("-m", "bench.parts", mode, str(file)), flags=ROOM))
        load(manager, scenario, count=100, callers=callers)
        os.kill(manager.pid, signal.SIGUSR1)
        done = load(manager, scenario, count=count, callers=callers, seconds=300.0)
        os.kill(manager.pid, signal.SIGUSR2)
        while not file.exists():
            time.sleep(0.05)
        found: dict[str, Any] = json.loads(file.read_text())
        return found, done


def parts(scenario: str, count: int, callers: int) -> dict[str, float]:
    """Milliseconds of CPU for an action: each thread's own, divided as the profile divides that thread's."""
    counted, _ = measured(PROFILED[1], scenario, count, callers)
    profiled, _ = measured(PROFILED[0], scenario, count, callers)
    found = dict.fromkeys(NAMES, 0.0)
    for thread, seconds in counted["threads"].items():
        shares = dict.fromkeys(NAMES, 0.0)
        for name, each in profiled["parts"].items():
            if name.split()[0] == thread:
                shares = {part: shares[part] + each[part] for part in NAMES}
        if not any(shares.values()):  # threads that only open and read files
            shares["files, the fake world"] = 1.0
        for part, share in shares.items():
            found[part] += 1000 * seconds / count * share / sum(shares.values())
    return found


def table(found: dict[str, dict[str, float]]) -> Iterator[str]:
    yield f"| {' | '.join(('Milliseconds of CPU for an action', *found))} |"
    yield f"| --- {'| --- ' * len(found)}|"
    for name in NAMES:
        yield f"| {' | '.join((name, *(f'{each[name]:.2f}' for each in found.values())))} |"
    yield f"| {' | '.join(('**all**', *(f'**{sum(each.values()):.2f}**' for each in found.values())))} |"
    about = report.facts()
    machine = f"Python {about['python']}, {about['cores']} cores ({about['processor']})"
    yield f"\n{report.commit(REPOSITORY)}, {about['when']}, {machine}, load {processes.load():.1f}."


def main() -> None:
    found = {title: parts(scenario, count, callers) for title, scenario, count, callers in WAYS}
    told = "\n".join(table(found))
    print(told)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{told}\n{END}{rest.partition(END)[2]}")
    PICTURE.write_text(svg(found))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PROFILED:
        mode, file = sys.argv.pop(1), sys.argv.pop(1)
        sys.exit(serve(mode, file))
    main()
