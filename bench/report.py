"""Results: as a table for people, as JSON for comparing two commits.

A row is one measurement: its figures, how much was counted, CPU seconds by process, and the load average around it,
without which a figure of a shared machine tells little.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flyte_manager import __version__

HEADER = ("What", "Result", "Counted", "CPU seconds", "Load")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number; its name and unit are part of the key by which two commits are compared."""

    name: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name} {number(self.value)} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    what: str
    figures: Sequence[Figure]
    counted: str
    cpu: Mapping[str, float] = field(default_factory=dict)
    """process -> CPU seconds during the counted work"""
    load: tuple[float, float] = (0.0, 0.0)
    """load average before and after"""

    def cells(self) -> tuple[str, ...]:
        before, after = self.load
        return (
            self.what,
            ", ".join(map(str, self.figures)),
            self.counted,
            ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.cpu.items()),
            f"{before:.1f} → {after:.1f}",
        )


@dataclass(frozen=True, slots=True)
class Results:
    commit: str
    facts: Mapping[str, str]
    rows: Sequence[Row]

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def as_markdown(self) -> str:
        lines = [f"| {' | '.join(cells)} |" for cells in (HEADER, ("---",) * len(HEADER))]
        lines += [f"| {' | '.join(row.cells())} |" for row in self.rows]
        return "\n".join(lines)


def as_text(rows: Sequence[Row]) -> Iterator[str]:
    """A table for the terminal: one line a measurement, what it counted and cost on the next."""
    width = max((len(row.what) for row in rows), default=0)
    for row in rows:
        what, result, counted, cpu, load = row.cells()
        yield f"{what:<{width}}  {result}"
        yield f"{'':<{width}}  {'; '.join(filter(None, (counted, cpu and f'CPU s: {cpu}', f'load {load}')))}"


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def facts() -> Mapping[str, str]:
    """The machine and what is measured; no paths, no names of hosts."""
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "manager": __version__,
    }


def commit(repository: Path) -> str:
    """The checked-out commit, with `-changed` when tracked files differ from it; `unknown` without git."""
    try:
        name = _git(repository, "rev-parse", "--short", "HEAD")
        return f"{name}-changed" if _git(repository, "status", "--porcelain", "--untracked-files=no") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def compare(before: Path, after: Path) -> Iterator[str]:
    """A line for each figure that both files have: the two values and their ratio (above 1: it grew)."""
    old, new = _figures(json.loads(before.read_text())), _figures(json.loads(after.read_text()))
    yield f"{'':<48} {before.stem:>16} {after.stem:>16}  ratio"
    for name, value in new.items():
        if name in old:
            ratio = f"{value / old[name]:5.2f}" if old[name] else "    -"
            yield f"{name:<48} {number(old[name]):>16} {number(value):>16}  {ratio}"
    for name in sorted(old.keys() ^ new.keys()):
        yield f"{name}: only in {before.stem if name in old else after.stem}"


def _figures(results: Mapping[str, Sequence[Mapping[str, object]]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in results["rows"]:
        figures, cpu = row["figures"], row["cpu"]
        assert isinstance(figures, list)
        assert isinstance(cpu, dict)
        found |= {_key(row["key"], each["name"], f"[{each['unit']}]"): each["value"] for each in figures}
        found |= {_key(row["key"], "CPU of", name, "[s]"): seconds for name, seconds in cpu.items()}
    return found


def _key(*parts: object) -> str:
    return " ".join(filter(None, map(str, parts)))


def _git(repository: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
