"""Requests to every method, driven by the descriptors, and what they leave behind.

`ASKED` holds a good request for each method that takes identifiers; `spoiled` makes the bad ones of it. Writes name a
project that does not exist, so that a refused one which made it nevertheless is found out.
"""

import copy
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests import rpcs
from tests.managers import Manager, eventually

PACKAGE = "flyteidl2."
OK = "ok"
STREAM_PATIENCE = 1.0

Body = dict[str, Any]

SCOPE = {"project": "flytesnacks", "domain": "development"}
FRESH = {"project": "fresh", "domain": "development"}
PROJECT = {"name": "flytesnacks", "domain": "development"}
FRESH_PROJECT = {"name": "fresh", "domain": "development"}
RUN = {**SCOPE, "name": "known"}
NEW_RUN = {**FRESH, "name": "new"}
ROOT = {"run": RUN, "name": "a0"}
NEW_ACTION = {"run": RUN, "name": "new"}
QUESTION = {"run": RUN, "name": "question"}
TASK = {**SCOPE, "name": "known", "version": "1"}
TASK_NAME = {**SCOPE, "name": "known"}
SPEC = {
    "taskTemplate": {
        "id": {**SCOPE, "resourceType": "TASK", "name": "command", "version": "1"},
        "type": "python-task",
        "container": {"args": ["sleep", "600"]},
    }
}
TEMPLATE: Body = SPEC["taskTemplate"]
CREATE = "workflow.RunService/CreateRun"
CONDITION = {"name": "question", "type": {"simple": "BOOLEAN"}}
CHILD = {"actionId": NEW_ACTION, "parentActionName": "a0", "task": {"spec": SPEC}}
OUTPUT = {"outputLiterals": {"literals": {"o0": {"scalar": {"primitive": {"integer": 1}}}}}}
CALL = {"key": "call", "ownerId": "me"}
TRUE = {"scalar": {"primitive": {"boolean": True}}}

ASKED: Sequence[tuple[str, Body]] = (
    ("workflow.RunService/CreateRun", {"runId": NEW_RUN, "taskSpec": SPEC}),
    ("workflow.RunService/CreateRun", {"projectId": FRESH_PROJECT, "taskSpec": SPEC}),
    ("workflow.RunService/CreateRun", {"runId": NEW_RUN, "taskId": TASK}),
    ("workflow.RunService/GetRunDetails", {"runId": RUN}),
    ("workflow.RunService/WatchRunDetails", {"runId": RUN}),
    ("workflow.RunService/GetActionDetails", {"actionId": ROOT}),
    ("workflow.RunService/WatchActionDetails", {"actionId": ROOT}),
    ("workflow.RunService/WatchClusterEvents", {"id": ROOT, "attempt": 1}),
    ("workflow.RunService/GetActionLogContext", {"actionId": ROOT, "attempt": 1}),
    ("workflow.RunService/GetActionData", {"actionId": ROOT}),
    ("workflow.RunService/GetActionDataURIs", {"actionId": ROOT}),
    ("workflow.RunService/ListRuns", {"projectId": PROJECT}),
    ("workflow.RunService/ListRuns", {"taskName": TASK_NAME}),
    ("workflow.RunService/ListRuns", {"taskId": TASK}),
    ("workflow.RunService/WatchRuns", {"projectId": PROJECT}),
    ("workflow.RunService/WatchRuns", {"taskId": TASK}),
    ("workflow.RunService/WatchGroups", {"projectId": PROJECT, "startDate": "2026-01-01T00:00:00Z"}),
    ("workflow.RunService/ListActions", {"runId": RUN}),
    ("workflow.RunService/WatchActions", {"runId": RUN}),
    ("workflow.RunService/AbortRun", {"runId": RUN}),
    ("workflow.RunService/AbortAction", {"actionId": ROOT}),
    ("workflow.RunService/SignalEvent", {"actionId": QUESTION, "payload": {"boolValue": True}}),
    ("workflow.StateService/Put", {"actionId": ROOT, "state": '{"phase": "PHASE_RUNNING", "note": "changed"}'}),
    ("workflow.StateService/Get", {"actionId": ROOT}),
    ("workflow.StateService/Watch", {"parentActionId": ROOT}),
    ("workflow.QueueService/EnqueueAction", CHILD),
    ("workflow.QueueService/AbortQueuedRun", {"runId": RUN}),
    ("workflow.QueueService/AbortQueuedAction", {"actionId": ROOT}),
    ("actions.ActionsService/Enqueue", {"action": CHILD}),
    ("actions.ActionsService/WatchForUpdates", {"parentActionId": ROOT}),
    ("actions.ActionsService/Update", {"actionId": ROOT, "status": {"phase": "ACTION_PHASE_SUCCEEDED"}}),
    ("actions.ActionsService/Abort", {"actionId": ROOT}),
    ("actions.ActionsService/Signal", {"actionId": QUESTION, "value": TRUE}),
    (
        "workflow.TranslatorService/LiteralsToLaunchFormJson",
        {"literalsUri": "/nowhere/inputs.pb", "actionId": ROOT},
    ),
    ("dataproxy.DataProxyService/CreateUploadLocation", {**FRESH, "filename": "f", "filenameRoot": "r"}),
    ("dataproxy.DataProxyService/UploadInputs", {"projectId": FRESH_PROJECT, "taskSpec": SPEC}),
    ("dataproxy.DataProxyService/UploadInputs", {"runId": NEW_RUN, "taskId": TASK}),
    (
        "dataproxy.DataProxyService/CreateDownloadLink",
        {"artifactType": "ARTIFACT_TYPE_REPORT", "actionAttemptId": {"actionId": ROOT, "attempt": 1}},
    ),
    ("dataproxy.DataProxyService/CreateDownloadLink", {"artifactType": "ARTIFACT_TYPE_CODE_BUNDLE", "taskId": TASK}),
    ("dataproxy.DataProxyService/GetActionData", {"actionId": ROOT}),
    ("workflow.RunLogsService/TailLogs", {"actionId": ROOT, "attempt": 1}),
    ("dataproxy.DataProxyService/TailLogs", {"actionId": ROOT, "attempt": 1}),
    ("cacheservice.v2.CacheService/Get", {"baseRequest": {"key": "known"}, "identifier": SCOPE}),
    ("cacheservice.v2.CacheService/Put", {"baseRequest": {"key": "new", "output": OUTPUT}, "identifier": FRESH}),
    ("cacheservice.v2.CacheService/Delete", {"baseRequest": {"key": "known"}, "identifier": SCOPE}),
    ("cacheservice.v2.CacheService/GetOrExtendReservation", {"baseRequest": CALL, "identifier": FRESH}),
    ("cacheservice.v2.CacheService/ReleaseReservation", {"baseRequest": CALL, "identifier": SCOPE}),
    ("task.TaskService/DeployTask", {"taskId": {**FRESH, "name": "new", "version": "new"}, "spec": SPEC}),
    ("task.TaskService/GetTaskDetails", {"taskId": TASK}),
    ("task.TaskService/ListTasks", {"projectId": PROJECT}),
    ("task.TaskService/ListVersions", {"taskName": TASK_NAME}),
    ("org.DomainService/GetDomain", {"id": "development"}),
    ("org.DomainService/UpdateDomain", {"id": "development"}),
    ("org.DomainService/DeleteDomain", {"id": "development"}),
    ("project.ProjectService/CreateProject", {"project": {"id": "new"}}),
    ("project.ProjectService/UpdateProject", {"project": {"id": "flytesnacks", "description": "changed"}}),
    ("project.ProjectService/GetProject", {"id": "flytesnacks"}),
    ("secret.SecretService/CreateSecret", {"id": {**FRESH, "name": "new"}, "secretSpec": {"stringValue": "v"}}),
    ("secret.SecretService/UpdateSecret", {"id": {**SCOPE, "name": "known"}, "secretSpec": {"stringValue": "v"}}),
    ("secret.SecretService/GetSecret", {"id": {**SCOPE, "name": "known"}}),
    ("secret.SecretService/DeleteSecret", {"id": {**SCOPE, "name": "known"}}),
    ("secret.SecretService/ListSecrets", {**SCOPE}),
)

WITHOUT_IDENTIFIERS = frozenset(
    {
        "cacheservice.CacheService/Get",  # its keys have no scope
        "cacheservice.CacheService/Put",
        "cacheservice.CacheService/Delete",
        "cacheservice.CacheService/GetOrExtendReservation",
        "cacheservice.CacheService/ReleaseReservation",
        "workflow.InternalRunService/RecordAction",  # what is wrong is told in each answer's status, with HTTP 200
        "workflow.InternalRunService/RecordActionStream",
        "workflow.InternalRunService/UpdateActionStatus",
        "workflow.InternalRunService/UpdateActionStatusStream",
        "workflow.InternalRunService/RecordActionEvents",
        "workflow.InternalRunService/RecordActionEventStream",
        "workflow.EventsProxyService/Record",  # many events, of which any may be wrong
        "cluster.ClusterService/SelectCluster",  # any resource gets the same answer
        "imagebuilder.ImageService/GetImage",  # any image exists
        "org.DomainService/CreateDomain",  # refuses them all
        "org.DomainService/ListDomains",
        "project.ProjectService/ListProjects",
        "auth.IdentityService/UserInfo",
        "workflow.TranslatorService/LaunchFormJsonToLiterals",
        "workflow.TranslatorService/TaskSpecToLaunchFormJson",
        "workflow.TranslatorService/JsonValuesToLiterals",
        "auth.AuthMetadataService/GetPublicClientConfig",
    }
)
METHODS = {name.removeprefix(PACKAGE): method for name, method in rpcs.every_method().items()}
SERVED = frozenset(name.removeprefix(PACKAGE) for name in rpcs.served())

LONG = "x" * 300
UNKNOWN = "unknown"
MADE_BY_WRITES = ("fresh", "new")
PATHS = ("a/b", "../up", "..", ".", ".dot", "%2e%2e", "a\\b", "#", "?", "/abs", "file://x", "-dash")
NO_LETTERS = ("a\0b", "line\n", "nai\u0308ve", "\u4e2d", "with space")
NO_LABEL = (LONG, *PATHS, *NO_LETTERS)
ILLEGAL: Mapping[str, Sequence[str]] = {
    "project": (*NO_LABEL, "UPPER"),
    "domain": (*NO_LABEL, "UPPER"),
    "run": (*NO_LABEL, "UPPER", "1st", "x" * 31),
    "action": NO_LABEL,
    "secret": NO_LABEL,
    "task": (LONG, "a\0b", "line\n"),
}
MAY_BE_EMPTY = frozenset(
    {
        ("secret.SecretService", "project"),  # a secret of the whole domain
        ("workflow.RunService/ListRuns", "task version"),
        ("workflow.RunService/WatchRuns", "task version"),
    }
)
LISTS_NONE = frozenset(
    {"workflow.RunService/ListRuns", "workflow.RunService/WatchRuns", "task.TaskService/ListVersions"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    code: str
    """Connect's, or ok, or http and the status where the body is no Connect error"""
    message: str


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A request that must be refused with this code."""

    method: str
    body: Body
    what: str
    code: str


class Asker:
    """A client of one manager without any manners."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self.http = httpx.Client(trust_env=False, timeout=20)
        self.methods = {name: method for name, method in METHODS.items() if name in SERVED}

    def close(self) -> None:
        self.http.close()

    def message(self, method: str, body: Mapping[str, Any]) -> Message:
        return json_format.ParseDict(dict(body), GetMessageClass(METHODS[method].input_type)())

    def ask(self, method: str, body: Mapping[str, Any]) -> Answer:
        return self.send(method, self.message(method, body).SerializeToString())

    def send(self, method: str, message: bytes, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends these bytes as the method's message. For a stream, its first word is the answer."""
        stream = METHODS[method].server_streaming
        given = {"content-type": "application/connect+proto" if stream else "application/proto", **(headers or {})}
        content = struct.pack(">BI", int("connect-content-encoding" in given), len(message)) + message
        if stream:
            return self._stream(method, content, given)
        response = self.http.post(self.url(method), content=message, headers=given)
        return answer_of(response.status_code, response.content)

    def url(self, method: str) -> str:
        return f"{self._manager.url}/{PACKAGE}{method}"

    def _stream(self, method: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        found = b""
        try:
            with self.http.stream(
                "POST", self.url(method), content=content, headers=dict(headers), timeout=STREAM_PATIENCE
            ) as response:
                if response.status_code != httpx.codes.OK:
                    return answer_of(response.status_code, response.read())
                for piece in response.iter_bytes():
                    found += piece
                    flags, size = struct.unpack(">BI", found[:5]) if len(found) >= 5 else (0, 0)
                    if size and not flags & 2:
                        return Answer(OK, "")
                    if flags & 2 and len(found) >= 5 + size:
                        error = json.loads(found[5 : 5 + size]).get("error", {})
                        return Answer(error.get("code", OK), error.get("message", ""))
        except httpx.ReadTimeout:
            return Answer(OK, "it waits")
        raise AssertionError(f"{method}: the stream was cut")


def answer_of(status: int, content: bytes) -> Answer:
    if status == httpx.codes.OK:
        return Answer(OK, "")
    try:
        told = json.loads(content)
    except ValueError:
        return Answer(f"http {status}", content.decode())
    return Answer(told["code"], told.get("message", ""))


def everything(manager: Manager) -> dict[str, str]:
    """What must not change: each table's rows, and the blobs."""
    tables = [name for (name,) in manager.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {}
    for table in tables:
        rows = sorted(map(repr, manager.rows(f'SELECT * FROM "{table}"')))
        found[table] = f"{len(rows)} rows, {hashlib.sha256(''.join(rows).encode()).hexdigest()[:12]}"
    for path in (manager.data / "blobs").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(manager.data))] = hashlib.sha256(content).hexdigest()[:12]
    return found


def spoiled(method: str, body: Body) -> Iterator[Spoiled]:
    """The good request with one identifier spoiled, each in every way."""
    for path, value in leaves(body):
        kind = kind_of(method, path)
        if kind is None or "taskTemplate" in path:
            continue
        for bad, code in ways(method, kind, value):
            yield Spoiled(method, changed(body, path, bad), f"{'.'.join(path)} = {bad[:20]!r}", code)
    for path in identifiers(body):
        yield Spoiled(method, changed(body, path, None), f"no {'.'.join(path)}", "invalid_argument")


def ways(method: str, kind: str, value: str) -> Iterator[tuple[str, str]]:
    """Values in the place of this good one, and the code that each gets."""
    rule = kind.removesuffix(" version").removesuffix(" name")
    if not {(method, kind), (method.partition("/")[0], kind)} & MAY_BE_EMPTY:
        yield "", "invalid_argument"
    for bad in ILLEGAL[rule]:
        yield bad, "invalid_argument"
    if value not in MADE_BY_WRITES and not (rule == "task" and method in LISTS_NONE):
        yield UNKNOWN, "not_found"


def leaves(body: Body, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in body.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        elif isinstance(value, str):
            yield (*path, key), value


def identifiers(body: Body, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of messages that name something and can't be left out."""
    for key, value in body.items():
        if isinstance(value, dict) and key not in ("spec", "taskSpec", "type"):
            if key in ("run", "runId", "actionId", "parentActionId"):
                yield (*path, key)
            yield from identifiers(value, (*path, key))


def kind_of(method: str, path: tuple[str, ...]) -> str | None:
    parent, leaf = (path[-2] if len(path) > 1 else ""), path[-1]
    if leaf == "project" or (parent, leaf) in (("projectId", "name"), ("project", "id")):
        return "project"
    if leaf == "id" and method.startswith("project."):
        return "project"
    if leaf == "domain" or (leaf == "id" and method.startswith("org.")):
        return "domain"
    kinds = {
        ("runId", "name"): "run",
        ("run", "name"): "run",
        ("actionId", "name"): "action",
        ("parentActionId", "name"): "action",
        ("taskId", "name"): "task name",
        ("taskId", "version"): "task version",
        ("taskName", "name"): "task name",
        ("id", "name"): "secret",
    }
    return "action" if leaf == "parentActionName" else kinds.get((parent, leaf))


def changed(body: Body, path: tuple[str, ...], value: str | None) -> Body:
    """The body with another value there; None leaves it out."""
    result = copy.deepcopy(body)
    place = result
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


@contextmanager
def prepared(manager: Manager) -> Iterator[Asker]:
    """One run that goes on with a question in it, one that has ended, one deployed task, one secret."""
    ended = {**SPEC, "taskTemplate": {**TEMPLATE, "container": {"args": ["true"]}}}
    condition = {"actionId": QUESTION, "parentActionName": "a0", "condition": CONDITION}
    call = {"baseRequest": {"key": "known", "output": OUTPUT}, "identifier": SCOPE}
    starting = (
        ("cacheservice.v2.CacheService/Put", call),
        (CREATE, {"runId": RUN, "taskSpec": SPEC}),
        (CREATE, {"runId": {**RUN, "name": "ended"}, "taskSpec": ended}),
        ("actions.ActionsService/Enqueue", {"action": condition}),
        ("task.TaskService/DeployTask", {"taskId": TASK, "spec": SPEC}),
        ("secret.SecretService/CreateSecret", {"id": {**SCOPE, "name": "known"}, "secretSpec": {"stringValue": "v"}}),
    )
    quiet = {("known", "RUNNING"), ("ended", "SUCCEEDED")}
    query = "SELECT run, phase FROM actions WHERE name = 'a0'"
    with closing(Asker(manager)) as asker:
        for method, body in starting:
            assert asker.ask(method, body).code == OK
        eventually(lambda: set(manager.rows(query)) == quiet, what="a quiet manager")
        yield asker
