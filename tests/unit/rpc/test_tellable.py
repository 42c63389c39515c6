"""Replies in JSON, also of values that JSON knows not."""

import json
from typing import Any as Anything

import pytest
from flyteidl2.core.literals_pb2 import Literal
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_manager.rpc.codecs import JsonCodec

NAN = float("nan")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Timestamp(seconds=2**62), "9999-12-31T23:59:59Z"),
        (Timestamp(seconds=-(2**62), nanos=-1), "0001-01-01T00:00:00Z"),
        (Timestamp(nanos=2**31 - 1), "1970-01-01T00:00:00Z"),
        (Timestamp(seconds=1, nanos=500_000_000), "1970-01-01T00:00:01.500Z"),
        (Duration(seconds=2**62), "315576000000s"),
        (Duration(seconds=-(2**62)), "-315576000000s"),
        (Duration(seconds=1, nanos=-1), "1s"),
        (Duration(nanos=2**31 - 1), "0s"),
        (Value(number_value=NAN), "NaN"),
        (Value(list_value=ListValue(values=[Value(number_value=float("-inf"))])), ["-Infinity"]),
        (Struct(fields={"a": Value(number_value=float("inf")), "b": Value(number_value=1)}), {"a": "Infinity", "b": 1}),
        (Any(type_url="type.googleapis.com/no.Such", value=b"x"), {}),
        (
            Literal(map={"literals": {"a": {"scalar": {"primitive": {"duration": {"seconds": 2**62}}}}}}),
            {"map": {"literals": {"a": {"scalar": {"primitive": {"duration": "315576000000s"}}}}}},
        ),
    ],
    ids=str,
)
def test_what_json_can_not_tell_is_told_as_near_as_it_can(message: Message, told: Anything) -> None:
    before = message.SerializeToString()
    assert json.loads(JsonCodec().encode(message)) == told
    assert message.SerializeToString() == before
