"""The same bytes by every protocol, and what came back: its code, and all texts in it that a user could see."""

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import httpx
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from tests.managers import Manager
from tests.security.asking import METHODS, PACKAGE

PATIENCE = 0.25
"""how long a stream may be silent until it is left"""

OK = "ok"
LONGEST_QUERY = 20_000
Send = Callable[[str, bytes], "Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    code: str
    text: str
    """what is told about an error; empty when there is none"""


class Wires:
    """A client of one manager. `messages` are the roads for binary messages, `documents` those for JSON."""

    def __init__(self, manager: Manager) -> None:
        self._url = f"{manager.url}/{PACKAGE}"
        self._closing = ExitStack()
        self._http = self._closing.enter_context(httpx.Client(trust_env=False, timeout=20))
        self._grpc = self._closing.enter_context(closing(grpc.insecure_channel(manager.endpoint)))
        self.messages: Mapping[str, Send] = {
            "connect": lambda method, body: self._connect(method, body, "proto"),
            "grpc": self._by_grpc,
            "grpc-web": self._by_grpc_web,
            "get": lambda method, body: self._get(method, body, "proto"),
            "framed": self._framed,
        }
        self.documents: Mapping[str, Send] = {
            "connect": lambda method, body: self._connect(method, body, "json"),
            "get": lambda method, body: self._get(method, body, "json"),
        }

    def close(self) -> None:
        self._closing.close()

    def _connect(self, method: str, body: bytes, codec: str) -> Answer:
        if _is_stream(METHODS[method]):
            return self._stream(method, frame(body), f"application/connect+{codec}")
        return _unary(
            self._http.post(self._url + method, content=body, headers={"content-type": f"application/{codec}"})
        )

    def _get(self, method: str, body: bytes, codec: str) -> Answer:
        query = {"message": base64.urlsafe_b64encode(body).decode(), "base64": "1", "encoding": codec, "connect": "v1"}
        reads = METHODS[method].GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        if not reads or len(query["message"]) > LONGEST_QUERY:
            return self._connect(method, body, codec)
        return _unary(self._http.get(self._url + method, params=query))

    def _framed(self, method: str, body: bytes) -> Answer:
        """Bytes in the place of a frame: its flags and length too are what they are."""
        return self._stream(method, body, "application/connect+proto")

    def _by_grpc_web(self, method: str, body: bytes) -> Answer:
        return self._stream(method, frame(body), "application/grpc-web+proto")

    def _stream(self, method: str, content: bytes, kind: str) -> Answer:
        found = bytearray()
        try:
            url, headers = self._url + method, {"content-type": kind}
            with self._http.stream("POST", url, content=content, headers=headers, timeout=PATIENCE) as response:
                if response.status_code != httpx.codes.OK or not response.headers["content-type"].startswith(kind):
                    response.read()
                    return _unary(response)
                if "grpc-status" in response.headers:
                    return _of_trailers(dict(response.headers))
                for piece in response.iter_bytes():
                    found += piece
                    for flags, message in frames(found):
                        if flags & 0x80:
                            return _of_trailers(dict(_trailers(message)))
                        if flags & 2:
                            error = json.loads(message).get("error", {})
                            return Answer(error.get("code", OK), json.dumps(error) if error else "")
                        return Answer(OK, "")
        except httpx.ReadTimeout:
            return Answer(OK, "")
        raise AssertionError(f"{method}: the stream was cut")

    def _by_grpc(self, method: str, body: bytes) -> Answer:
        path = f"/{PACKAGE}{method}"
        try:
            if not _is_stream(METHODS[method]):
                self._grpc.unary_unary(path)(body, timeout=20)
            else:
                call = self._grpc.stream_stream(path)(iter((body,)), timeout=PATIENCE)
                next(call, None)
                call.cancel()
        except grpc.RpcError as error:
            if _is_stream(METHODS[method]) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Answer(OK, "")
            return Answer(error.code().name.lower(), error.details())
        return Answer(OK, "")


def _is_stream(method: MethodDescriptor) -> bool:
    return bool(method.server_streaming or method.client_streaming)


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def frames(content: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """The whole ones that there are so far, with their flags."""
    place = 0
    while len(content) >= place + 5:
        flags, size = struct.unpack_from(">BI", content, place)
        if len(content) < place + 5 + size:
            return
        yield flags, bytes(content[place + 5 : place + 5 + size])
        place += 5 + size


def _trailers(content: bytes) -> Iterator[tuple[str, str]]:
    for line in content.decode().splitlines():
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def _of_trailers(trailers: Mapping[str, str]) -> Answer:
    number = int(trailers["grpc-status"])
    code = next(each.name.lower() for each in grpc.StatusCode if each.value[0] == number)
    return Answer(code, unquote(trailers.get("grpc-message", "")))


def _unary(response: httpx.Response) -> Answer:
    if response.status_code == httpx.codes.OK:
        return Answer(OK, "")
    try:
        told: dict[str, Any] = response.json()
    except ValueError:
        return Answer(f"http {response.status_code}", response.text)
    return Answer(told["code"], response.text)
