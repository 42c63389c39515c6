"""What forks of the zygote do otherwise than the SDK would, with the same result."""

import shutil
import subprocess
import sys
from pathlib import Path

from flyte_manager.processes import preload


def test_what_is_made_late_is_made_once_and_only_when_used() -> None:
    made: list[Path] = []
    late = preload._Late(lambda: made.append(Path("/x")) or made[-1])  # type: ignore[func-returns-value]
    assert not made
    assert (late.name, late.parent) == ("x", Path("/"))
    assert len(made) == 1


def test_below_a_folder_called_flyte_nothing_is_imported_that_the_sdk_means_to_import_late(tmp_path: Path) -> None:
    """Who clones into `flyte` has one; the SDK takes all files below it for its own, and looks further."""
    place = tmp_path / "flyte" / "manager"
    shutil.copytree(Path(preload.__file__).parent, place / "flyte_manager" / "processes")
    (place / "flyte_manager" / "__init__.py").touch()
    script = place / "script.py"
    script.write_text(
        "import sys\nfrom flyte_manager.processes import preload\npreload.load()\n"
        "print(preload.__file__, 'pandas.core' in sys.modules)\n"
    )
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(place / "flyte_manager" / "processes" / "preload.py"), "False"]


_LATE_CONTROLLER = """
import asyncio, threading
from flyte._internal.controllers.remote._core import Controller
from flyte_manager.processes import preload

class Clients:
    state_service = queue_service = actions_service = None

async def connect(): return Clients()

async def fail(controller):
    controller._set_exception(ValueError("as expected"))
    controller._failure_event.set()

async def use(controller): await controller._run_coroutine_in_controller_thread(fail(controller))

async def main():
    idle, used = Controller(connect()), Controller(connect())
    watching = [asyncio.create_task(each.watch_for_errors()) for each in (idle, used)]
    await asyncio.sleep(0)
    print(threading.active_count())
    await asyncio.to_thread(asyncio.run, use(used))
    await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
    print([each.done() for each in watching], watching[1].exception())
    await idle._finalize_parent_action(None, "a0")
    for each in (idle, used):
        await each.stop()
    watching[0].cancel()

preload._start_controller_late()
asyncio.run(main())
"""


def test_a_controller_that_starts_late_tells_its_failure_to_who_watched_before() -> None:
    command = [sys.executable, "-W", "error", "-c", _LATE_CONTROLLER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first == "2"  # the SDK's own thread beside the main one
    assert second == "[False, True] Controller thread failed with exception: as expected"
    assert "never awaited" not in done.stderr
