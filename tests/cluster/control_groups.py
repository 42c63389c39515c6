"""This cluster's own top of every cgroup hierarchy; one, if the machine has version 2."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

TOP = Path("/sys/fs/cgroup")


def make_control_groups(name: str) -> None:
    for group in _groups(name):
        with contextlib.suppress(FileNotFoundError):  # version 1; in 2 controllers are passed on by hand
            wanted = (group.parent / "cgroup.controllers").read_text().split()
            (group.parent / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in wanted))
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts these empty
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((group.parent / setting).read_text())


def remove_control_groups(name: str) -> None:
    for top in _groups(name):
        for group in [*sorted(top.rglob("*/"), reverse=True), top] if top.is_dir() else ():
            with contextlib.suppress(OSError):  # rmdir refuses files, of which rglob gives some
                group.rmdir()


def _groups(name: str) -> Iterator[Path]:
    unified = (TOP / "cgroup.controllers").exists()
    return (folder / name for folder in ([TOP] if unified else TOP.iterdir()) if folder.is_dir())
