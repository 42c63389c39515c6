"""The zygote with a stopwatch: `python marked_zygote.py SOCKET all|imports` for bench/anatomy.py.

Each task writes into its folder how many CPU seconds and page faults it had used at each mark. `imports` leaves out all
that preload.py does beside importing, to show what that is worth.
"""

import importlib
import json
import resource
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from flyte_manager.processes import folder as disk
from flyte_manager.processes import preload, warm, zygote

STEPS = (
    ("flyte._initialize", "init_in_cluster", "clients of the backend"),
    ("flyte._internal.controllers", "create_controller", "controller of children"),
    ("flyte._internal.runtime.entrypoints", "download_code_bundle", "code bundle"),
    ("flyte._internal.runtime.entrypoints", "load_task", "import of the user's module"),
    ("flyte._internal.runtime.entrypoints", "extract_download_run_upload", "inputs, user code, outputs"),
)
IN_BETWEEN = "a0 between these"
marks: list[tuple[str, float, int]] = []


def mark(ended: str) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    marks.append((ended, used.ru_utime + used.ru_stime, used.ru_minflt))


def watch(module: str, name: str, step: str) -> None:
    """Marks the begin and the end of each call."""
    place = importlib.import_module(module)
    usual: Callable[..., Any] = getattr(place, name)

    @wraps(usual)
    def sync(*args: Any, **named: Any) -> Any:
        mark(IN_BETWEEN)
        answer = usual(*args, **named)
        if isinstance(answer, Awaitable):
            return finish(answer)
        mark(step)
        return answer

    async def finish(answer: Awaitable[Any]) -> Any:
        found = await answer
        mark(step)
        return found

    setattr(place, name, sync)


def prepare(usual: Callable[[], None]) -> None:
    for module in preload.NEEDED:
        importlib.import_module(module)
    for step in STEPS:
        watch(*step)
    usual()


def run(order: disk.Order, usual: Callable[[disk.Order], int], fresh: Callable[[disk.Order], None]) -> int:
    def marked(given: disk.Order) -> None:
        mark("two forks")
        fresh(given)
        mark("becoming a fresh process")

    vars(warm)["_become_fresh"] = marked
    code = usual(order)
    mark("end of the interpreter")
    Path(order.folder, "marks.json").write_text(json.dumps(marks))
    return code


def main(socket: str, mode: str) -> None:
    if mode == "imports":
        late = (preload._connect_late, preload._start_controller_late)
        left = (preload._unpack_small_bundles, preload._ask_git_seldom)
        for step in (*late, *left, preload._find_plugins, preload._rehearse):
            vars(preload)[step.__name__] = lambda: None
    usual_prepare, usual_run, fresh = warm.prepare, warm.run, warm._become_fresh
    vars(warm)["prepare"] = lambda: prepare(usual_prepare)
    vars(warm)["run"] = lambda order: run(order, usual_run, fresh)
    zygote.main(socket, "warm")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
