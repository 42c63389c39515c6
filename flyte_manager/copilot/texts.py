"""Simple values as the texts of files: what Flyte's own helper writes, and what programs are likely to write back."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

Simple = types_pb2.SimpleType

_TRUE = {"1", "t", "true", "yes"}
_FALSE = {"0", "f", "false", "no"}
_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_GO = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:h|ms|m|s|us|µs|μs|ns))+")
_GO_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(h|ms|m|s|us|µs|μs|ns)")
_PYTHON = re.compile(r"(?:(-?[0-9]+) days?, )?([0-9]+):([0-9]{1,2})(?::([0-9]{1,2}(?:\.[0-9]{1,9})?))?")


class NotThatType(ValueError):  # noqa: N818 - a fact about a text
    """A file's text is no value of the type that its output has."""


def text_of(primitive: literals_pb2.Primitive) -> str:
    match primitive.WhichOneof("value"):
        case "boolean":
            return "true" if primitive.boolean else "false"
        case "integer":
            return str(primitive.integer)
        case "float_value":
            return _float_text(primitive.float_value)
        case "string_value":
            return primitive.string_value
        case "datetime":
            return primitive.datetime.ToJsonString()
        case "duration":
            return _duration_text(primitive.duration)
    return "null"


def primitive_of(text: str, simple: int) -> literals_pb2.Primitive:
    """Raises NotThatType. Space around all but strings does not count: shells end lines."""
    if simple == Simple.STRING:
        return literals_pb2.Primitive(string_value=text)
    word = text.strip()
    try:
        match simple:
            case Simple.INTEGER:
                return literals_pb2.Primitive(integer=int(word))
            case Simple.FLOAT:
                return literals_pb2.Primitive(float_value=float(word))
            case Simple.BOOLEAN:
                return literals_pb2.Primitive(boolean=_boolean(word))
            case Simple.DATETIME:
                return literals_pb2.Primitive(datetime=_datetime(word))
            case Simple.DURATION:
                return literals_pb2.Primitive(duration=_duration(word))
    except (ValueError, OverflowError):
        raise NotThatType(f"{word[:80]!r} is not {_EXAMPLES[simple]}") from None
    raise NotThatType(f"a text can't be a {Simple.Name(simple)}")


_EXAMPLES: Mapping[int, str] = {
    Simple.INTEGER: "an integer of 64 bits such as 42",
    Simple.FLOAT: "a number such as 0.5",
    Simple.BOOLEAN: "true or false",
    Simple.DATETIME: "a date and time such as 2026-01-31T12:00:00Z",
    Simple.DURATION: "a duration such as 1h30m, 90s or 1:30:00",
}


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _boolean(word: str) -> bool:
    if word.lower() not in _TRUE | _FALSE:
        raise ValueError(word)
    return word.lower() in _TRUE


def _datetime(word: str) -> Timestamp:
    moment = datetime.fromisoformat(word)
    made = Timestamp()
    made.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return made


def _duration_text(duration: Duration) -> str:
    """As Go writes it: 1h2m3.5s."""
    nanos = duration.seconds * 1_000_000_000 + duration.nanos
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    hours, rest = divmod(nanos, 3600 * 1_000_000_000)
    minutes, rest = divmod(rest, 60 * 1_000_000_000)
    seconds = format(Decimal(rest) / 1_000_000_000, "f")
    seconds = seconds.rstrip("0").rstrip(".") if "." in seconds else seconds
    before = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "")
    return f"{sign}{before}{seconds}s"


def _duration(word: str) -> Duration:
    """As Go writes it, or Python."""
    if word == "0":
        return Duration()
    if _GO.fullmatch(word):
        total = sum((Decimal(amount) * _SECONDS[unit] for amount, unit in _GO_PART.findall(word)), Decimal(0))
        return _of_seconds(-total if word.startswith("-") else total)
    match = _PYTHON.fullmatch(word)
    if match is None:
        raise ValueError(word)
    days, hours, minutes = (int(match[part] or 0) for part in (1, 2, 3))
    return _of_seconds(Decimal((days * 24 + hours) * 3600 + minutes * 60) + Decimal(match[4] or 0))


def _of_seconds(total: Decimal) -> Duration:
    made = Duration()
    made.FromNanoseconds(int(total * 1_000_000_000))
    return made
