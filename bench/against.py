"""Two commits in one run, in turns: what other work on the machine does, it does to both.

The other commit's manager runs under this bench, in a work tree of its own, with the same virtual environment.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.manager import REPOSITORY
from bench.report import number

TURNS = 3
Found = dict[tuple[str, str], list[float]]
"""(what, figure) -> its values"""


def against(commit: str, names: Sequence[str], *, quick: bool) -> Iterator[str]:
    """A table: medians of both, and their ratios (above 1: it grew)."""
    before: Found = {}
    after: Found = {}
    with _work_tree(commit) as other:
        for name in names:
            for _ in range(TURNS):
                _measure(other, name, before, quick=quick)
                _measure(REPOSITORY, name, after, quick=quick)
    yield f"| What | Figure | {commit} | now | ratio |"
    yield "| --- | --- | --- | --- | --- |"
    for (what, figure), values in after.items():
        if old := before.get((what, figure)):
            ratio = f"{median(values) / median(old):.2f}" if median(old) else "-"
            yield f"| {what} | {figure} | {number(median(old))} | {number(median(values))} | {ratio} |"
        else:
            yield f"| {what} | {figure} | | {number(median(values))} | |"


@contextmanager
def _work_tree(commit: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="flyte-bench-against-"))
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    try:
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
        shutil.rmtree(folder / "bench")
        shutil.copytree(REPOSITORY / "bench", folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _measure(tree: Path, name: str, found: Found, *, quick: bool) -> None:
    """One measurement. What a commit can't do yet has no figures."""
    result = tree / "bench" / "results" / "against.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench", f"--only={name}", f"--into={result}", *(["--quick"] if quick else [])]
    subprocess.run(command, cwd=tree, check=False)
    rows = json.loads(result.read_text())["rows"]
    for row in rows:
        for figure in row["figures"]:
            key = row["what"], f"{figure['name']} {figure['unit']}".strip()
            found.setdefault(key, []).append(figure["value"])
        for process, seconds in row["cpu"].items():
            found.setdefault((row["what"], f"CPU of {process}, s"), []).append(seconds)
