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
