"""What kind of refusal is which code, and refusals inside of answers."""

from collections.abc import Mapping

from google.rpc import code_pb2, status_pb2

from flyte_manager.domain.errors import (
    Ended,
    Exists,
    Forbidden,
    Invalid,
    Missing,
    Overloaded,
    Refusal,
    TooLarge,
    Unavailable,
    Unready,
    Unsupported,
)

NUMBERS: Mapping[type[Refusal], code_pb2.Code] = {
    Invalid: code_pb2.INVALID_ARGUMENT,
    Missing: code_pb2.NOT_FOUND,
    Exists: code_pb2.ALREADY_EXISTS,
    Unready: code_pb2.FAILED_PRECONDITION,
    Ended: code_pb2.ABORTED,
    Unsupported: code_pb2.UNIMPLEMENTED,
    Forbidden: code_pb2.PERMISSION_DENIED,
    TooLarge: code_pb2.RESOURCE_EXHAUSTED,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    Unavailable: code_pb2.UNAVAILABLE,
}
OK = status_pb2.Status()


def status_of(refusal: Refusal) -> status_pb2.Status:
    kind = next(each for each in type(refusal).__mro__ if each in NUMBERS)
    return status_pb2.Status(code=NUMBERS[kind], message=str(refusal))
