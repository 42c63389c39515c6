"""How a refusal looks on the wire: the table in `wire/statuses.py` in Connect's words.

What is no refusal is a fault of ours: the client gets INTERNAL with a random id and nothing of the text, the log gets
the same id with the traceback.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.rpc import code_pb2

from flyte_manager.domain.errors import Refusal, Unavailable
from flyte_manager.wire.statuses import NUMBERS

CODES: Mapping[type[Refusal], Code] = {kind: Code[code_pb2.Code.Name(code)] for kind, code in NUMBERS.items()}

HTTP_STATUS: Mapping[Code, int] = {
    Code.CANCELED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

STOPPING = "the manager is stopping; it will be back: reconnect"

log = logging.getLogger(__name__)


def to_connect(error: BaseException, *, where: str) -> ConnectError:
    """The error as the client may see it. `where` names the call, for the log.

    A cancel that somebody asked for (the server at its end, the guard when the client has gone) is taken back from the
    task and told as UNAVAILABLE; a CancelledError that nobody asked for is a fault like any other exception. connectrpc
    shows a cancel as CANCELED to who reads the client's messages, and so the end of a client that left.
    """
    task = asyncio.current_task()
    if was_cancelled(error) and task is not None and task.cancelling():
        task.uncancel()
        return ConnectError(Code.UNAVAILABLE, STOPPING)
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, Refusal):
        if isinstance(error, Unavailable):  # no fault of the client, and the SDK shows no more of it than that
            log.warning("%s: %s", where, error)
        for kind in type(error).__mro__:
            if kind in CODES:
                return ConnectError(CODES[kind], str(error))
    return hidden(error, where=where)


def was_cancelled(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError) or (
        isinstance(error, ConnectError) and error.code is Code.CANCELED
    )


def hidden(error: BaseException, *, where: str) -> ConnectError:
    """Logs the fault under a new id and returns the error that tells the client this id only."""
    fault = secrets.token_hex(4)
    log.error("%s failed, id %s", where, fault, exc_info=error)
    return ConnectError(Code.INTERNAL, f"internal error {fault}: the manager's log tells more under this id")
