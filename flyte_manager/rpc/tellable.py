"""Brings into the bounds of JSON what only the binary encoding can tell.

Clients may store such values, and one of them in a run's task must not hide the whole run from those who ask in JSON:
times and durations go to the nearest end of what there is, numbers that are none become texts, as those of float fields
do, an Any of a type that is not known here becomes empty.
"""

import math
from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
LONGEST = 315_576_000_000
"""seconds of a duration"""

Sent = TypeVar("Sent", bound=Message)


def tellable(message: Sent) -> Sent:
    """A copy that JSON can tell."""
    copy = type(message)()
    copy.CopyFrom(message)
    _correct(copy)
    return copy


def _correct(message: Message) -> None:
    match message:
        case Timestamp():
            message.seconds = min(max(message.seconds, FIRST_SECOND), LAST_SECOND)
            message.nanos = message.nanos if 0 <= message.nanos < 1_000_000_000 else 0
        case Duration():
            message.seconds = min(max(message.seconds, -LONGEST), LONGEST)
            agrees = message.nanos * message.seconds >= 0 and abs(message.nanos) < 1_000_000_000
            message.nanos = message.nanos if agrees else 0
        case Value(number_value=number) if not math.isfinite(number):
            message.string_value = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        case Any():
            try:
                MessageToJson(message)
            except Exception:  # whatever is wrong with it
                message.Clear()
        case _:
            for below in _below(message):
                _correct(below)


def _below(message: Message) -> Iterator[Message]:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            yield from (each for each in value.values() if isinstance(each, Message))
        elif field.is_repeated:
            yield from value
        else:
            yield value
