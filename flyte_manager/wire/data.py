"""Inputs and outputs of actions, and their logs."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from flyteidl2.core import literals_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.logs.dataplane import payload_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf.message import DecodeError

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt
from flyte_manager.domain.errors import Unready
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import LogLine
from flyte_manager.wire import places
from flyte_manager.wire.times import timestamp

PAGE_LINES = 500
PAGE_BYTES = 256 << 10


class Unreadable(Unready):
    """{uri} can't be read as a flyteidl2 {kind}: it was damaged, or something else was written there."""


def completed(inputs: common_pb2.Inputs, spec: task_definition_pb2.TaskSpec) -> common_pb2.Inputs:
    """The inputs, with the task's defaults for those that are missing."""
    full = common_pb2.Inputs()
    full.CopyFrom(inputs)
    given = {literal.name for literal in inputs.literals}
    for default in spec.default_inputs:
        if default.name not in given and default.parameter.HasField("default"):
            full.literals.add(name=default.name, value=default.parameter.default)
    return full


def inputs_hash(inputs: common_pb2.Inputs, spec: task_definition_pb2.TaskSpec) -> str:
    """What the inputs add to a cache key: the task may leave out some of them. Never empty."""
    ignored = set(spec.task_template.metadata.cache_ignore_input_vars)
    counted = common_pb2.Inputs(
        literals=[literal for literal in inputs.literals if literal.name not in ignored], context=inputs.context
    )
    return base64.b64encode(hashlib.sha256(content(counted)).digest()).decode()


def damage(outputs: bytes, names: Sequence[str]) -> str:
    """What is wrong with the content of an `outputs.pb`; empty when all that the task declares is there. One that was
    cut off may still parse."""
    try:
        literals = common_pb2.Outputs.FromString(outputs).literals
    except DecodeError:
        return f"its outputs.pb ({len(outputs)} bytes) can't be read"
    found = {literal.name for literal in literals if literal.HasField("value")}
    missing = [name for name in names if name not in found]
    return f"its outputs.pb lacks {', '.join(missing)}" if missing else ""


def content(inputs: common_pb2.Inputs) -> bytes:
    """The bytes of inputs.pb."""
    return inputs.SerializeToString(deterministic=True)


def inputs_file(action: Action) -> str:
    """The file with the action's inputs. A condition has none: the SDK names a place where it writes nothing."""
    return "" if action.kind is Kind.CONDITION else action.input_uri


def outputs_file(action: Action) -> str:
    """The file with the action's outputs, "" when it has none (yet). A trace names the file, a task its folder. Only
    after success: while a task writes, the file is there in part, and a part can be read like a whole."""
    if not action.output_uri or action.phase not in (Phase.SUCCEEDED, Phase.RECOVERED) or action.kind is Kind.CONDITION:
        return ""
    return action.output_uri if action.kind is Kind.TRACE else f"{action.output_uri.rstrip('/')}/outputs.pb"


def answer_of(condition: Action) -> common_pb2.Outputs:
    """The answer to a condition, as its one output."""
    answer = common_pb2.NamedLiteral(name="o0", value=literals_pb2.Literal.FromString(condition.value))
    return common_pb2.Outputs(literals=[answer])


def report_file(attempt: Attempt) -> str:
    """Where the attempt's report lies, if its task wrote one."""
    return attempt.report_uri or f"{attempt.output_uri}/report.html"


def parse_inputs(found: bytes, uri: str) -> common_pb2.Inputs:
    """Raises Unreadable."""
    try:
        return common_pb2.Inputs.FromString(found)
    except DecodeError:
        raise Unreadable(uri=uri, kind="Inputs") from None


def input_texts(inputs: common_pb2.Inputs) -> Mapping[str, str]:
    """Inputs as texts for a command line: primitives as they are, files and directories by their uri. Others have no
    text."""
    texts = {}
    for named in inputs.literals:
        scalar = named.value.scalar
        match scalar.WhichOneof("value"):
            case "primitive":
                texts[named.name] = _primitive(scalar.primitive)
            case "blob":
                texts[named.name] = scalar.blob.uri
    return texts


def _primitive(value: literals_pb2.Primitive) -> str:
    match value.WhichOneof("value"):
        case "boolean":
            return str(value.boolean).lower()
        case "datetime":
            return value.datetime.ToJsonString()
        case "duration":
            return value.duration.ToJsonString()
        case None:
            return ""
        case kind:
            return str(getattr(value, kind))


def parse_outputs(found: bytes, uri: str) -> common_pb2.Outputs:
    """Raises Unreadable."""
    try:
        return common_pb2.Outputs.FromString(found)
    except DecodeError:
        raise Unreadable(uri=uri, kind="Outputs") from None


def log_pages(lines: Sequence[LogLine], attempt: Attempt) -> Iterator[dataproxy_service_pb2.TailLogsResponse]:
    """The lines in messages of at most PAGE_LINES lines and about PAGE_BYTES bytes."""
    page: list[payload_pb2.LogLine] = []
    size = 0
    for line in lines:
        proto = _line(line)
        if page and (len(page) == PAGE_LINES or size + proto.ByteSize() > PAGE_BYTES):
            yield _page(page, attempt)
            page, size = [], 0
        page.append(proto)
        size += proto.ByteSize()
    if page:
        yield _page(page, attempt)


def _line(line: LogLine) -> payload_pb2.LogLine:
    """The SDK prints messages as they are, so that each brings its own end of line."""
    return payload_pb2.LogLine(
        timestamp=timestamp(line.at),
        message=line.message if line.message.endswith("\n") else f"{line.message}\n",
        originator=payload_pb2.LogLineOriginator.SYSTEM if line.system else payload_pb2.LogLineOriginator.USER,
    )


def _page(lines: Sequence[payload_pb2.LogLine], attempt: Attempt) -> dataproxy_service_pb2.TailLogsResponse:
    logs = dataproxy_service_pb2.TailLogsResponse.Logs(lines=lines, container=places.container(attempt))
    return dataproxy_service_pb2.TailLogsResponse(logs=[logs])
