"""The two encodings of messages, so that what a client sent wrong is told as INVALID_ARGUMENT.

connectrpc's own codecs let the parser's exception through; it would reach the client as UNKNOWN and the log as a fault.
Unknown fields: ignored in the binary encoding (a newer SDK may send them), refused in JSON (a person mistyped them).
"""

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import DecodeError, Message

from flyte_manager.rpc.errors import hidden
from flyte_manager.rpc.tellable import tellable

LONGEST_REASON = 500


class BinaryCodec:
    """Protocol Buffers' binary encoding."""

    def name(self) -> str:
        return "proto"

    def encode(self, message: Message) -> bytes:
        try:
            return message.SerializeToString()
        except Exception as error:
            raise hidden(error, where="encoding a reply") from None

    def decode(self, data: bytes | bytearray, message: Message) -> Message:
        try:
            message.ParseFromString(data)  # type: ignore[arg-type]  # a bytearray will do, the stubs don't know
        except DecodeError:
            name = message.DESCRIPTOR.full_name
            raise ConnectError(Code.INVALID_ARGUMENT, f"the request is not a valid {name}") from None
        return message


class JsonCodec:
    """Protocol Buffers' JSON encoding."""

    def name(self) -> str:
        return "json"

    def encode(self, message: Message) -> bytes:
        try:
            return MessageToJson(message).encode()
        except Exception:  # the parser's of values, and what lies below it
            return self._corrected(message)

    def _corrected(self, message: Message) -> bytes:
        try:
            return MessageToJson(tellable(message)).encode()
        except Exception as error:
            raise hidden(error, where="encoding a reply") from None

    def decode(self, data: bytes | bytearray, message: Message) -> Message:
        try:
            Parse(bytes(data), message)
        except Exception as error:  # whatever the parser says, it says it about the client's bytes
            name = message.DESCRIPTOR.full_name
            reason = str(error)[:LONGEST_REASON]
            raise ConnectError(Code.INVALID_ARGUMENT, f"the request is not a valid {name} in JSON: {reason}") from None
        return message
