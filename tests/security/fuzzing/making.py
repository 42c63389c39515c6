"""Makes requests with hypothesis: good ones whose fields are changed as their descriptors allow, or whose bytes are."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.security.asking import ASKED, METHODS, SPEC, TEMPLATE, Body
from tests.security.fuzzing.odd_values import JSON, NUMBERS, TEXTS

MOST_CHANGES = 5
DEEPEST = 8
LONGEST_TARGET = 8000
PREFIXES = ("/blobs/", "/blobs/read/../", "/blobs//", "//blobs/", "/", "http://x/")
Draw = Callable[[st.SearchStrategy[Any]], Any]

_TEXTS = st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8"), max_size=30)
_BYTES = st.binary(max_size=40) | st.sampled_from((b"", bytes(300), b"\xff\xfe", b'{"a": 1}', b"\x80" * 30))
_FEW = st.integers(0, MOST_CHANGES)
_CHOICE = st.integers(0, 7)


def good(method: str) -> Sequence[Message]:
    """The empty request, and the good ones of `ASKED`; their tasks end at once."""
    made = GetMessageClass(METHODS[method].input_type)
    bodies = [_quick(body) for asked, body in ASKED if asked == method]
    return [made(), *(json_format.ParseDict(body, made()) for body in bodies)]


def _quick(body: Body) -> Body:
    quick = {"taskTemplate": {**TEMPLATE, "container": {"args": ["true"]}}}
    return {
        key: quick if value is SPEC else _quick(value) if isinstance(value, dict) else value
        for key, value in body.items()
    }


@st.composite
def messages(draw: Draw, method: str) -> Message:
    """A good request with up to MOST_CHANGES fields changed, at any depth."""
    message = GetMessageClass(METHODS[method].input_type)()
    empty, *rest = good(method)
    message.CopyFrom(draw(st.sampled_from(rest)) if rest and draw(_CHOICE) else empty)
    for _ in range(draw(_FEW)):
        _change(draw, message)
    return message


def _change(draw: Draw, message: Message) -> None:
    """Walks down to one field, mostly one that is set, and gives it another value, or none."""
    for _ in range(DEEPEST):
        fields = [cast(FieldDescriptor, each) for each in message.DESCRIPTOR.fields]
        if not fields:
            return
        known = [field for field, _ in message.ListFields()]
        field = draw(st.sampled_from(known if known and draw(_CHOICE) < 4 else fields))
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            _set(draw, message, field)
            return
        what = draw(_CHOICE)
        if field.message_type.name.endswith("Identifier") and what > 1:
            return  # what is named must mostly exist, or nothing else of the request is looked at
        if what == 0:
            message.ClearField(field.name)
            return
        value = getattr(message, field.name)
        if field.is_repeated:
            value = value.add() if what == 1 or not value else value[draw(st.integers(0, len(value) - 1))]
        else:
            value.SetInParent()
        message = value


def _set(draw: Draw, message: Message, field: FieldDescriptor) -> None:
    if field.message_type is not None:  # a map
        key, value = (_value(draw, each) for each in field.message_type.fields)
        entries = getattr(message, field.name)
        if value is None:
            entries[key].SetInParent()
        else:
            entries[key] = value
    elif field.is_repeated:
        getattr(message, field.name).append(_value(draw, field))
    else:
        setattr(message, field.name, _value(draw, field))


def _value(draw: Draw, field: FieldDescriptor) -> object:
    if field.message_type is not None:
        return None
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(_BYTES)
    return draw(st.sampled_from(NUMBERS[field.cpp_type]))


@st.composite
def broken(draw: Draw, method: str) -> bytes:
    """The bytes of a request, some of them lost, doubled, flipped or made up."""
    found = bytearray(draw(messages(method)).SerializeToString())
    for _ in range(1 + draw(_FEW)):
        start = draw(st.integers(0, len(found)))
        end = min(len(found), start + draw(st.integers(0, 8)))
        match draw(_CHOICE):
            case 0:
                del found[start:]
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case 3:
                found[start:start] = draw(_BYTES)
            case _ if start < len(found):
                found[start] ^= 1 << draw(_CHOICE)
    return bytes(found)


@st.composite
def documents(draw: Draw, method: str) -> bytes:
    """A request in JSON with parts that are of another kind, or no JSON at all."""
    try:
        whole = {"it": json_format.MessageToDict(draw(messages(method)))}
    except json_format.SerializeToJsonError:  # a time or a duration that no JSON can tell
        whole = {"it": json_format.MessageToDict(good(method)[-1])}
    for _ in range(1 + draw(_FEW)):
        _spoil(draw, whole)
    text = json.dumps(whole["it"])
    if draw(_CHOICE) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.sampled_from(("", '"', "}", "[" * 5000, "\\ud8", "//"))) + text[cut + 1 :]
    return text.encode()


def _spoil(draw: Draw, place: dict[str, Any]) -> None:
    for _ in range(DEEPEST):
        if not place:
            return
        key = draw(st.sampled_from(sorted(place)))
        below = place[key]
        if isinstance(below, dict) and below and draw(_CHOICE):
            place = below
        else:
            place[key if draw(_CHOICE) else draw(_TEXTS)] = copy.deepcopy(draw(st.sampled_from(JSON)))
            return


@st.composite
def targets(draw: Draw, target: str) -> bytes:
    """A path with its query, in which some parts are others."""
    path, _, query = target.partition("?")
    match draw(st.integers(0, 3)):
        case 0:
            path = path + "/" + quote(draw(_TEXTS), safe="/.%\\#?")
        case 1:
            path = (
                draw(st.sampled_from(("/blobs/", "/blobs/read/../", "/blobs//", "//blobs/", "/", "http://x/"))) + path
            )
        case 2:
            query = query + "&" + quote(draw(_TEXTS), safe="=%&;.#")
    found = bytearray(f"{path}?{query}"[:LONGEST_TARGET].encode())
    for _ in range(draw(_FEW)):
        place = draw(st.integers(0, len(found) - 1))
        found[place : place + draw(_CHOICE)] = quote(draw(_TEXTS), safe="%./=").encode()[:20]
    return bytes(found)
