"""What running parents see of their children: ActionUpdate, and the error documents that tasks write."""

from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.workflow import state_service_pb2
from google.protobuf.message import DecodeError

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.errors import TooLarge
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Blobs
from flyte_manager.wire.ids import action_proto
from flyte_manager.wire.phases import phase_proto

_KINDS = {
    ErrorKind.UNKNOWN: execution_pb2.ExecutionError.UNKNOWN,
    ErrorKind.USER: execution_pb2.ExecutionError.USER,
    ErrorKind.SYSTEM: execution_pb2.ExecutionError.SYSTEM,
}
ERROR_LIMIT = 1 << 20
"""Bytes of an error.pb; tracebacks are much smaller."""
SENTINEL = state_service_pb2.ControlMessage(sentinel=True)


def action_update(record: Action) -> state_service_pb2.ActionUpdate:
    """`output_uri` is a folder for tasks and the file itself for traces (sdk-contract.md §5.1); it is in every update,
    because the SDK warns in the user's log where it is missing: also of conditions, which have nothing there. Only a
    trace without outputs has none, because it would be looked for."""
    uri = record.output_prefix(record.attempt) if record.kind is Kind.CONDITION else record.output_uri
    update = state_service_pb2.ActionUpdate(
        action_id=action_proto(record.id), phase=phase_proto(record.phase), output_uri=uri
    )
    if record.failure and record.phase in (Phase.FAILED, Phase.TIMED_OUT):
        update.error.CopyFrom(_error(record.failure))
    if record.value:
        update.value.CopyFrom(literals_pb2.Literal.FromString(record.value))
    return update


async def read_error(blobs: Blobs, uri: str) -> Failure | None:
    """What the `error.pb` there says; None when there is none."""
    try:
        content = await blobs.read(uri, limit=ERROR_LIMIT)
    except TooLarge:
        message = f"its error is larger than {ERROR_LIMIT >> 20} MiB and is not shown; it lies in {uri}"
        return Failure(ErrorKind.USER, "ErrorTooLarge", message)
    return None if content is None else parse_error_document(content)


def parse_error_document(content: bytes) -> Failure:
    """What an `error.pb` says; a broken one is a system failure."""
    try:
        document = execution_pb2.ErrorDocument.FromString(content)
    except DecodeError:
        document = execution_pb2.ErrorDocument()
    if not document.HasField("error"):
        return Failure(ErrorKind.SYSTEM, "BrokenErrorDocument", "the task's error.pb can't be read")
    error = document.error
    kind = ErrorKind.SYSTEM if error.origin == execution_pb2.ExecutionError.SYSTEM else ErrorKind.USER
    recoverable = error.kind == execution_pb2.ContainerError.RECOVERABLE
    code = error.code or "Unknown"
    told = error.message.strip() != ""  # it is not by `assert x == 1`
    return Failure(kind, code, error.message if told else f"{code}, without a message: see its log", recoverable)


def _error(failure: Failure) -> execution_pb2.ExecutionError:
    kind = execution_pb2.ContainerError
    return execution_pb2.ExecutionError(
        code=failure.code,
        message=failure.message,
        kind=_KINDS[failure.kind],
        recoverability=kind.RECOVERABLE if failure.recoverable else kind.NON_RECOVERABLE,
    )
