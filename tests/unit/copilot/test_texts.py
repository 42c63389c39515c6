"""Simple values as texts of files, and back."""

import pytest
from flyteidl2.core import literals_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_manager.copilot.texts import NotThatType, Simple, primitive_of, text_of

Primitive = literals_pb2.Primitive


@pytest.mark.parametrize(
    ("value", "text", "simple"),
    [
        (Primitive(integer=-7), "-7", Simple.INTEGER),
        (Primitive(integer=2**63 - 1), "9223372036854775807", Simple.INTEGER),
        (Primitive(float_value=0.1), "0.1", Simple.FLOAT),
        (Primitive(float_value=3.0), "3", Simple.FLOAT),
        (Primitive(float_value=1e22), "10000000000000000000000", Simple.FLOAT),
        (Primitive(float_value=1e-7), "0.0000001", Simple.FLOAT),
        (Primitive(float_value=float("inf")), "+Inf", Simple.FLOAT),
        (Primitive(string_value="a\n b "), "a\n b ", Simple.STRING),
        (Primitive(string_value=""), "", Simple.STRING),
        (Primitive(boolean=True), "true", Simple.BOOLEAN),
        (Primitive(boolean=False), "false", Simple.BOOLEAN),
        (Primitive(datetime=Timestamp(seconds=1_700_000_000)), "2023-11-14T22:13:20Z", Simple.DATETIME),
        (Primitive(duration=Duration(seconds=3723, nanos=500_000_000)), "1h2m3.5s", Simple.DURATION),
        (Primitive(duration=Duration(seconds=60)), "1m0s", Simple.DURATION),
        (Primitive(duration=Duration()), "0s", Simple.DURATION),
        (Primitive(duration=Duration(seconds=-90)), "-1m30s", Simple.DURATION),
    ],
)
def test_a_value_is_a_text_and_comes_back(value: Primitive, text: str, simple: int) -> None:
    assert text_of(value) == text
    assert primitive_of(text, simple) == value


@pytest.mark.parametrize(
    ("text", "simple", "value"),
    [
        (" 42\n", Simple.INTEGER, Primitive(integer=42)),
        ("1e3\n", Simple.FLOAT, Primitive(float_value=1000)),
        ("True\n", Simple.BOOLEAN, Primitive(boolean=True)),
        ("0", Simple.BOOLEAN, Primitive(boolean=False)),
        ("NO", Simple.BOOLEAN, Primitive(boolean=False)),
        ("2023-11-14 22:13:20", Simple.DATETIME, Primitive(datetime=Timestamp(seconds=1_700_000_000))),
        ("2023-11-14T23:13:20+01:00", Simple.DATETIME, Primitive(datetime=Timestamp(seconds=1_700_000_000))),
        ("1:02:03", Simple.DURATION, Primitive(duration=Duration(seconds=3723))),
        ("1 day, 0:00:01.5", Simple.DURATION, Primitive(duration=Duration(seconds=86401, nanos=500_000_000))),
        ("250ms", Simple.DURATION, Primitive(duration=Duration(nanos=250_000_000))),
        ("0", Simple.DURATION, Primitive(duration=Duration())),
    ],
)
def test_what_programs_write_is_understood(text: str, simple: int, value: Primitive) -> None:
    assert primitive_of(text, simple) == value


@pytest.mark.parametrize(
    ("text", "simple", "words"),
    [
        ("x", Simple.INTEGER, "'x' is not an integer"),
        ("1.5", Simple.INTEGER, "not an integer"),
        (str(2**63), Simple.INTEGER, "not an integer of 64 bits"),
        ("", Simple.FLOAT, "not a number"),
        ("maybe", Simple.BOOLEAN, "not true or false"),
        ("yesterday", Simple.DATETIME, "not a date and time"),
        ("9" * 5000, Simple.INTEGER, "not an integer"),
        ("soon", Simple.DURATION, "not a duration"),
        ("99999999999999999h", Simple.DURATION, "not a duration"),
        ("x", Simple.ERROR, "can't be a ERROR"),
    ],
)
def test_what_is_no_value_of_the_type_is_refused_with_an_example(text: str, simple: int, words: str) -> None:
    with pytest.raises(NotThatType, match=words):
        primitive_of(text, simple)
