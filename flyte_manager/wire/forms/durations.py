"""Durations as Go writes them, which is what consoles expect: 1h30m0s, 1.5s, 250ms."""

import re
from decimal import Decimal

from google.protobuf.duration_pb2 import Duration

_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "μs": 10**3, "ns": 1}
_PART = r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(ms|us|µs|μs|ns|h|m|s)"
_WHOLE = re.compile(rf"(-|\+)?((?:{_PART})+)")
_SECONDS = re.compile(r"-?\d{1,12}(\.\d{1,9})?")
_LONGEST = 315_576_000_000 * 10**9
"""ten thousand years, the most that google.protobuf.Duration holds"""


def text_of(duration: Duration) -> str:
    nanos = duration.seconds * 10**9 + duration.nanos
    sign, nanos = ("-" if nanos < 0 else ""), abs(nanos)
    if 0 < nanos < 10**9:
        unit = next(unit for unit in ("ms", "µs", "ns") if nanos >= _UNITS[unit])
        return f"{sign}{_decimal(nanos, _UNITS[unit])}{unit}"
    hours, rest = divmod(nanos, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    text = f"{hours}h" if hours else ""
    if hours or minutes:
        text += f"{minutes}m"
    return f"{sign}{text}{_decimal(rest, 10**9)}s"


def duration_of(text: str) -> Duration:
    """Also a bare number of seconds. Raises ValueError."""
    if _SECONDS.fullmatch(text):
        return _duration(int(Decimal(text) * 10**9))
    matched = _WHOLE.fullmatch(text)
    if matched is None:
        raise ValueError(text)
    nanos = sum(int(Decimal(number) * _UNITS[unit]) for number, unit in re.findall(_PART, matched[2]))
    return _duration(-nanos if matched[1] == "-" else nanos)


def _duration(nanos: int) -> Duration:
    if abs(nanos) > _LONGEST:
        raise ValueError(nanos)
    result = Duration()
    result.FromNanoseconds(nanos)
    return result


def _decimal(amount: int, unit: int) -> str:
    """amount / unit without zeros at the end."""
    return f"{Decimal(amount) / unit:f}"
