"""Zygote and shepherd run in the tasks' interpreter, which need not have anything but itself (and, for warm, flyte)."""

import ast
import sys
from pathlib import Path

import flyte_manager.processes as package

FOLDER = Path(package.__path__[0])


def imports_of(module: str) -> set[str]:
    """Dotted names of what the module imports, itself and by what it imports of this package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            own = node.module == "flyte_manager.processes"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if own else {node.module}
    for name in list(found):
        if name.startswith("flyte_manager.processes."):
            found |= imports_of(name.rpartition(".")[2])
    return found


def test_the_zygote_imports_the_standard_library_and_its_own_files_only() -> None:
    strangers = {name for name in imports_of("zygote") if name.partition(".")[0] not in sys.stdlib_module_names}
    own = {"branches", "bundles", "folder", "frames", "libraries", "linux", "preload", "shepherd", "warm"}
    assert strangers == {f"flyte_manager.processes.{name}" for name in own}
