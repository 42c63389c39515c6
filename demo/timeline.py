"""A run's actions as lines of text: the tree of calls, each with its phase, its time and a bar on one common axis.

forecast          SUCCEEDED  3.1 s  ━━━━━━━━━━━━━━━━━━━━━━
  archive x2      SUCCEEDED  0.8 s  ·━━━━━
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

WAITED, DONE, RUNNING, FAILED = "·", "━", "╸", "✗"
LEAST_BAR = 10


class Colour(Enum):
    """ANSI colours."""

    GREEN = "32"
    YELLOW = "33"
    BLUE = "36"
    RED = "31"
    GREY = "90"


COLOURS: Mapping[str, Colour] = {
    "RUNNING": Colour.BLUE,
    "SUCCEEDED": Colour.GREEN,
    "FAILED": Colour.RED,
    "TIMED_OUT": Colour.RED,
    "ABORTED": Colour.RED,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One action. Times are seconds since the epoch."""

    id: str
    parent: str
    name: str
    phase: str
    attempts: int
    asked: float
    """when it was enqueued"""
    started: float | None
    ended: float | None


def lines(bars: Mapping[str, Bar], *, now: float, width: int, colours: bool) -> list[str]:
    """The whole picture; no line is wider than `width` columns."""
    if not bars:
        return []
    tree = list(_tree(bars, "", 0))
    first = min(bar.asked for bar in bars.values())
    last = max(max(bar.ended or now for bar in bars.values()), first + 0.001)
    label = max(len(_label(bar, depth)) for bar, depth in tree)
    phase = max(len(bar.phase) for bar, _ in tree)
    room = max(width - label - phase - 16, LEAST_BAR)
    drawn = []
    for bar, depth in tree:
        seconds = (bar.ended or now) - (bar.started or bar.asked)
        colour = COLOURS.get(bar.phase, Colour.YELLOW)
        told = _paint(f"{bar.phase:<{phase}}", colour, colours)
        stroke = _stroke(bar, now=now, first=first, scale=room / (last - first), colours=colours)
        drawn.append(f"  {_label(bar, depth):<{label}}  {told}  {seconds:5.2f} s  {stroke}")
    return drawn


def _tree(bars: Mapping[str, Bar], parent: str, depth: int) -> Iterator[tuple[Bar, int]]:
    for bar in _children(bars, parent):
        yield bar, depth
        yield from _tree(bars, bar.id, depth + 1)


def _children(bars: Mapping[str, Bar], parent: str) -> Sequence[Bar]:
    return sorted((bar for bar in bars.values() if bar.parent == parent), key=lambda bar: (bar.asked, bar.id))


def _label(bar: Bar, depth: int) -> str:
    tries = f" x{bar.attempts}" if bar.attempts > 1 else ""
    return f"{'  ' * depth}{bar.name}{tries}"


def _stroke(bar: Bar, *, now: float, first: float, scale: float, colours: bool) -> str:
    def column(moment: float) -> int:
        return round((moment - first) * scale)

    end = column(bar.ended or now)
    start = min(column(bar.started if bar.started is not None else now), end)
    asked = min(column(bar.asked), start)
    length = max(end - start, 1) if bar.started is not None else 0
    tip = "" if bar.ended is None else (FAILED if COLOURS.get(bar.phase) is Colour.RED else DONE)
    body = DONE * (length - 1) + (tip or RUNNING) if length else ""
    waited = _paint(WAITED * (start - asked), Colour.GREY, colours)
    return " " * asked + waited + _paint(body, COLOURS.get(bar.phase, Colour.YELLOW), colours)


def _paint(text: str, colour: Colour, colours: bool) -> str:
    return f"\x1b[{colour.value}m{text}\x1b[0m" if colours and text else text


def renewed(bar: Bar, before: Bar | None) -> Bar:
    """The news about an action, with the time at which it was first asked for."""
    return bar if before is None else dataclasses.replace(bar, asked=min(before.asked, bar.asked))
