"""`python -m bench`: measures, prints the table, writes it to docs/bench.md and bench/results/<commit>.json.

`--kubernetes` measures the other world, and writes the page's last part. `--against COMMIT` measures that commit beside
this one, in turns, and writes the part between.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import kubernetes, measures, processes, report
from bench.against import TURNS, against
from bench.manager import REPOSITORY

Measure = Callable[[], Iterator[report.Row]]
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
`python -m bench --against COMMIT` measures another commit beside this one, in turns: the ratios of CPU hold on a busy
machine, too. `python -m bench --compare A.json B.json` shows what changed between two results.
"""
AGAINST = "\n## Two commits in turns\n"
AGAINST_INTRODUCTION = """
`make bench AGAINST={other}` made this part: {commit}, {when}, Python {python}, {cores} cores ({processor}). Medians of
{turns} runs of each, one after the other; load average at the end {load:.1f}.

"""
KUBERNETES = "\n## Kubernetes\n"
KUBERNETES_INTRODUCTION = """
`make bench-kubernetes` made this part: {commit}, {when}, manager {manager}, Python {python}, {system},
{cores} cores ({processor}), {memory}. It starts its clusters by itself (`tests/cluster`), and an S3 server.

- The control plane is a real one (etcd, API server, controllers, scheduler), on the same cores; KWOK plays the kubelet
  of its nodes: pods succeed after a second, without any process. Their log can't be read, which is tried a few times.
  Most of the many finished TaskActions, and their pods, are copies of one that has ended.
- Requests are those that the manager sent to the API server. "Committed": from the arrival of a pod's event in the
  manager to the commit of what was reported of it; watchers are woken by the commit.
- Aimed at: 8 ms of the manager's CPU and 8 requests for an action, 50 ms (p50) from a pod's event to the commit, 5 s
  from a restart to serving.
- The Go manager, on two such cores with Postgres and S3 (etcd without fsync), needs 3.0 s for a no-op run, 15 s for a
  fan-out of 10 pods, 40 s for one of 30, and runs 36 actions/s at most; 18 to 25 ms of CPU for each short run are its
  own and the database's, 31 to 36 ms are Kubernetes'.

"""


@dataclass(frozen=True, slots=True)
class Suite:
    """One part of the page. `whole` puts its text and table into the page that is there."""

    measures: Mapping[str, Measure]
    mark: str
    """of its files"""
    whole: Callable[[str, str], str]
    introduction: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a measurement failed."""
    given = _parser().parse_args(arguments)
    if given.compare:
        print("\n".join(report.compare(*given.compare)))
        return 0
    suite = _kubernetes(quick=given.quick) if given.kubernetes else _processes(quick=given.quick)
    chosen = given.only or list(suite.measures)
    if unknown := set(chosen) - set(suite.measures):
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(suite.measures)}", file=sys.stderr)
        return 2
    if given.against:
        return _against(given.against, chosen, quick=given.quick, kept=not given.only and not given.quick)
    rows, failed = _measure({name: suite.measures[name] for name in chosen})
    commit, facts = report.commit(REPOSITORY), report.facts()
    results = report.Results(commit, facts, rows)
    whole = not given.quick and not given.only and not failed
    path = given.into or RESULTS / f"{commit}{suite.mark}{'' if whole else '-part'}.json"
    path.write_text(results.as_json() + "\n")
    print(f"\nwritten: {path.name}")
    if whole:
        part = suite.introduction.format(commit=commit, **facts) + results.as_markdown() + "\n"
        PAGE.write_text(suite.whole(PAGE.read_text(), part))
        print(f"written: {PAGE.relative_to(REPOSITORY)}")
    return int(failed)


def _against(other: str, chosen: Sequence[str], *, quick: bool, kept: bool) -> int:
    lines = list(against(other, chosen, quick=quick))
    print("\n" + "\n".join(lines))
    if kept:
        introduction = AGAINST_INTRODUCTION.format(
            other=other, commit=report.commit(REPOSITORY), turns=TURNS, load=processes.load(), **report.facts()
        )
        page = PAGE.read_text()
        before, rest = page.partition(AGAINST)[0].partition(KUBERNETES)[0], "".join(page.partition(KUBERNETES)[1:])
        PAGE.write_text(before + AGAINST + introduction + "\n".join(lines) + "\n" + rest)
    return 0


def _processes(*, quick: bool) -> Suite:
    scale = measures.QUICK if quick else measures.Scale()
    return Suite(
        {name: partial(measure, scale) for name, measure in measures.MEASURES.items()},
        "",
        lambda page, part: part + HOW + page[page.find(AGAINST if AGAINST in page else KUBERNETES) :],
        INTRODUCTION,
    )


def _kubernetes(*, quick: bool) -> Suite:
    scale = kubernetes.QUICK if quick else kubernetes.Scale()
    return Suite(
        {name: partial(measure, scale) for name, measure in kubernetes.MEASURES.items()},
        "-kubernetes",
        lambda page, part: page.partition(KUBERNETES)[0] + KUBERNETES + part,
        KUBERNETES_INTRODUCTION,
    )


def _measure(chosen: Mapping[str, Measure]) -> tuple[list[report.Row], bool]:
    """Prints each row as it comes; one that fails doesn't keep the others from being measured."""
    rows: list[report.Row] = []
    failed = False
    for name, measure in chosen.items():
        started = time.monotonic()
        found: list[report.Row] = []
        try:
            for row in measure():
                found.append(row)
        except Exception as error:
            failed = True
            print(f"{name} failed: {error!r}", file=sys.stderr, flush=True)
        rows += found
        print(f"\n{name} ({time.monotonic() - started:.0f} s)")
        print("\n".join(f"  {line}" for line in report.as_text(found)), flush=True)
    return rows, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the manager.")
    parser.add_argument("--kubernetes", action="store_true", help="with pods, on clusters that it starts")
    parser.add_argument("--quick", action="store_true", help="less work: under a minute, for a first look")
    parser.add_argument("--only", action="append", metavar="NAME", help="this measurement; may be repeated")
    parser.add_argument("--against", metavar="COMMIT", help="measure that commit beside this one, in turns")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="print the ratios of two results"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
