"""`python -m bench`: measures, prints the table, writes it to docs/bench.md and bench/results/<commit>.json."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.manager import REPOSITORY
from bench.measures import MEASURES, QUICK, Scale

PAGE = REPOSITORY / "docs" / "bench.md"
RESULTS = REPOSITORY / "bench" / "results"
INTRODUCTION = """\
# Measurements

`make bench` made this page: {commit}, {when}, manager {manager}, Python {python}, {system},
{cores} cores ({processor}), {memory}.

- p50 and p99 are exact, of all that was counted. Clients are processes of their own on the same cores, and use what
  the SDK uses: the generated Connect clients, HTTP/1.1, gzip.
- CPU seconds are user and system time of those processes during the counted work; "zygote and tasks" has all that was
  forked there. Load is the load average of the last minute, before and after: with other work on the machine, compare
  CPU seconds, not wall time.
- "A fake world" is the whole manager with nothing but its processes replaced (`bench/instant.py`): tasks end as soon
  as they have been seen to run. CreateRun, Enqueue and the watchers are measured there; latencies with 50 callers
  contain the execution of what was asked for before.
- RUNNING means that the task's process was forked; "first line" is when the task's own code began, which tells what a
  cold start costs. PSS counts a page that n processes share as 1/n of a page, so it falls when other Pythons run.

"""
HOW = """
`python -m bench --quick` takes less than a minute, `--only NAME` one measurement; neither writes this page.
`python -m bench --compare A.json B.json` shows what changed between two commits.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a measurement failed."""
    given = _parser().parse_args(arguments)
    if given.compare:
        print("\n".join(report.compare(*given.compare)))
        return 0
    chosen = given.only or list(MEASURES)
    rows, failed = _measure(chosen, QUICK if given.quick else Scale())
    commit, facts = report.commit(REPOSITORY), report.facts()
    results = report.Results(commit, facts, rows)
    whole = not given.quick and not given.only and not failed
    path = RESULTS / f"{commit}{'' if whole else '-part'}.json"
    path.write_text(results.as_json() + "\n")
    print(f"\nwritten: {path.relative_to(REPOSITORY)}")
    if whole:
        PAGE.write_text(INTRODUCTION.format(commit=commit, **facts) + results.as_markdown() + "\n" + HOW)
        print(f"written: {PAGE.relative_to(REPOSITORY)}")
    return int(failed)


def _measure(chosen: Sequence[str], scale: Scale) -> tuple[list[report.Row], bool]:
    """Prints each row as it comes; one that fails doesn't keep the others from being measured."""
    rows: list[report.Row] = []
    failed = False
    for name in chosen:
        started = time.monotonic()
        found: list[report.Row] = []
        try:
            for row in MEASURES[name](scale):
                found.append(row)
        except Exception as error:
            failed = True
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        rows += found
        print(f"\n{name} ({time.monotonic() - started:.0f} s)")
        print("\n".join(f"  {line}" for line in report.as_text(found)), flush=True)
    return rows, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the manager.")
    parser.add_argument("--quick", action="store_true", help="less work: under a minute, for a first look")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="this measurement; may be repeated")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="print the ratios of two results"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
