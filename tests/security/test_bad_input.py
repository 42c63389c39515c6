"""Whatever is wrong in a request gets a precise code and a sentence, and changes nothing: no row, no blob.

Driven over every method that is served (`asking.py`): identifiers, then transport; then the particular cases.
"""

import base64
import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import MethodOptions

from tests.managers import Manager, eventually
from tests.security.asking import (
    ASKED,
    CHILD,
    CREATE,
    FRESH,
    FRESH_PROJECT,
    METHODS,
    NEW_ACTION,
    NEW_RUN,
    OK,
    QUESTION,
    ROOT,
    RUN,
    SCOPE,
    SPEC,
    TASK,
    TEMPLATE,
    WITHOUT_IDENTIFIERS,
    Answer,
    Asker,
    Body,
    everything,
    prepared,
    spoiled,
)

LIST = "workflow.RunService/ListRuns"
WATCH = "workflow.RunService/WatchActions"
PUT = "workflow.StateService/Put"
UPLOAD = "dataproxy.DataProxyService/UploadInputs"
LOCATION = "dataproxy.DataProxyService/CreateUploadLocation"
FORM = "workflow.TranslatorService/LiteralsToLaunchFormJson"
DOWNLOAD = "dataproxy.DataProxyService/CreateDownloadLink"
ROADS = {"workflow.QueueService/EnqueueAction": None, "actions.ActionsService/Enqueue": "action"}
LIMIT = 64 << 20
BOMB = gzip.compress(bytes(LIMIT + (1 << 20)), 1)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with Manager(tmp_path_factory.mktemp("bad")) as started:
        yield started


@pytest.fixture(scope="module")
def asker(manager: Manager) -> Iterator[Asker]:
    with prepared(manager) as made:
        yield made


@contextmanager
def unchanged(manager: Manager) -> Iterator[None]:
    before = everything(manager)
    yield
    after = everything(manager)
    assert after == before


def is_sentence(answer: Answer) -> bool:
    """Tells a person something, on one line of bearable length, and nothing of our insides."""
    said = answer.message
    return 10 < len(said) < 800 and said.isprintable() and " " in said and "Traceback" not in said


def refuse(asker: Asker, method: str, body: Body, code: str, *words: str) -> None:
    answer = asker.ask(method, body)
    assert answer.code == code, f"{method}: {answer}"
    assert is_sentence(answer), answer
    for word in words:
        assert word in answer.message


def named(number: int, case: tuple[str, Body]) -> str:
    return f"{case[0].rpartition('/')[2]}-{number}"


def test_every_method_that_is_served_is_driven(asker: Asker) -> None:
    assert set(asker.methods) == {method for method, _ in ASKED} | WITHOUT_IDENTIFIERS


@pytest.mark.parametrize("case", ASKED, ids=[named(*each) for each in enumerate(ASKED)])
def test_a_wrong_identifier_is_refused(manager: Manager, asker: Asker, case: tuple[str, Body]) -> None:
    with unchanged(manager):
        for bad in spoiled(*case):
            answer = asker.ask(bad.method, bad.body)
            assert answer.code == bad.code, f"{bad.method}: {bad.what}: {answer}"
            assert is_sentence(answer), f"{bad.method}: {bad.what}: {answer}"


def test_the_requests_that_were_spoiled_are_good_as_they_stand(tmp_path_factory: pytest.TempPathFactory) -> None:
    def comes_late(case: tuple[str, Body]) -> bool:
        return any(word in case[0] for word in ("Abort", "ActionsService/Update", "DeleteSecret"))

    with Manager(tmp_path_factory.mktemp("good")) as fresh, prepared(fresh) as asker:
        found = [(method, asker.ask(method, body)) for method, body in sorted(ASKED, key=comes_late)]
    others = {method: answer.message for method, answer in found if answer.code != OK}
    assert set(others) == {DOWNLOAD, "org.DomainService/DeleteDomain", FORM}, others


def test_what_is_not_there_yet_says_so(manager: Manager, asker: Asker) -> None:
    with unchanged(manager):
        for method in set(METHODS) - set(asker.methods):
            answer = asker.send(method, b"")
            assert answer.code == "unimplemented"
            assert is_sentence(answer)
            assert f"{method} needs " in answer.message
            assert "; instead: " in answer.message


@pytest.mark.parametrize(
    ("content", "headers", "codes"),
    [
        (b"\x0a\xff", {}, {"invalid_argument"}),
        (b"\xff" * 40, {}, {"invalid_argument"}),
        (b"no gzip", {"content-encoding": "gzip"}, {"invalid_argument"}),
        (gzip.compress(bytes(200))[:-9], {"content-encoding": "gzip"}, {"invalid_argument"}),
        (BOMB, {"content-encoding": "gzip"}, {"resource_exhausted"}),
        (b"", {"content-encoding": "br"}, {"unimplemented"}),
        (b"", {"origin": "http://evil.example"}, {"permission_denied"}),
        (b"", {"origin": "null"}, {"permission_denied"}),
        (b"", {"host": "evil.example"}, {"permission_denied"}),
        (b"", {"host": "a b"}, {"invalid_argument"}),
        (b"", {"content-type": "text/plain"}, {"http 415"}),
        (b"", {"content-type": "application/x-www-form-urlencoded"}, {"http 415"}),
    ],
    ids=[
        *(
            "truncated",
            "garbage",
            "no-gzip",
            "cut-gzip",
            "bomb",
            "encoding",
            "origin",
            "null-origin",
            "host",
            "no-host",
        ),
        *("text", "form"),
    ],
)
def test_a_broken_or_foreign_message_is_refused_by_every_method(
    manager: Manager, asker: Asker, content: bytes, headers: dict[str, str], codes: set[str]
) -> None:
    with unchanged(manager):
        for name, method in asker.methods.items():
            encoded = "connect-content-encoding" if method.server_streaming else "content-encoding"
            given = {encoded if key == "content-encoding" else key: value for key, value in headers.items()}
            answer = asker.send(name, content, headers=given)
            assert answer.code in codes, f"{name}: {answer}"
            assert is_sentence(answer) or answer.code.startswith("http"), f"{name}: {answer}"


def test_a_message_that_announces_too_much_is_refused_unread_by_every_method(manager: Manager, asker: Asker) -> None:
    with unchanged(manager):
        for name in asker.methods:
            lines = [
                f"POST /flyteidl2.{name} HTTP/1.1",
                f"host: {manager.endpoint}",
                "content-type: application/proto",
                f"content-length: {LIMIT + 1}",
                "connection: close",
            ]
            with socket.create_connection(("127.0.0.1", manager.ports["api"]), timeout=10) as connection:
                connection.sendall("\r\n".join([*lines, "", ""]).encode())
                answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
            assert answer.startswith("HTTP/1.1 413 "), f"{name}: {answer}"
            assert "resource_exhausted" in answer


def test_json_that_is_none_or_has_other_fields_is_refused_by_every_method(manager: Manager, asker: Asker) -> None:
    with unchanged(manager):
        for name, method in asker.methods.items():
            if method.server_streaming:
                continue
            for body, words in (('{"noSuchField": 1}', "noSuchField"), ("{", "JSON"), ("nonsense", "JSON")):
                response = asker.http.post(asker.url(name), content=body, headers={"content-type": "application/json"})
                assert response.status_code == 400, f"{name}: {response.text}"
                assert response.json()["code"] == "invalid_argument"
                assert words in response.json()["message"]


def test_get_is_for_methods_that_only_read(manager: Manager, asker: Asker) -> None:
    query = {"connect": "v1", "encoding": "json", "message": "{}"}
    with unchanged(manager):
        for name, method in asker.methods.items():
            answer = asker.http.get(asker.url(name), params=query)
            if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS:
                assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED, name


def of_template(**changes: object) -> Body:
    return {"runId": NEW_RUN, "taskSpec": {"taskTemplate": {**TEMPLATE, **changes}}}


def token_of(*parts: object) -> str:
    """A page's token as the manager makes them."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def of_run_spec(**run_spec: object) -> Body:
    return {"runId": NEW_RUN, "taskSpec": SPEC, "runSpec": run_spec}


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"taskSpec": SPEC}, "invalid_argument", "run_id or project_id"),
        ({"runId": NEW_RUN}, "invalid_argument", "task_spec or task_id"),
        ({"runId": NEW_RUN, "taskSpec": {}}, "invalid_argument", "task_template is required"),
        (of_template(id={}), "invalid_argument", "task_template.id.name is required"),
        (of_template(type="spark"), "unimplemented", "plain Python task"),
        (of_template(type="raw-container"), "unimplemented", "Kubernetes"),
        (of_template(container=None), "unimplemented", "no container"),
        (of_template(container={"args": ["a0", "--tgz", "/etc/passwd"]}), "invalid_argument", "outside"),
        (
            of_template(container={"args": ["a0", "--tgz", "/old/x.tgz"]}),
            "invalid_argument",
            "`flyte delete local-cache`",
        ),
        (
            of_template(container={"args": ["true"], "resources": {"requests": [{"name": "CPU", "value": "many"}]}}),
            "invalid_argument",
            "'many'",
        ),
        (of_template(container={"args": ["true", "a\0b"]}), "invalid_argument", "has a NUL"),
        (of_template(container={"args": ["true"], "env": [{"key": "A=B"}]}), "invalid_argument", "'A=B'"),
        (of_run_spec(envs={"values": [{"key": "", "value": "x"}]}), "invalid_argument", "environment variable ''"),
        (of_run_spec(envs={"values": [{"key": "A", "value": "\0"}]}), "invalid_argument", "environment variable 'A'"),
        ({"runId": NEW_RUN, "triggerName": {"name": "t"}}, "unimplemented", "triggers"),
        (of_run_spec(relation={"relationType": "RELATION_TYPE_RECOVER"}), "unimplemented", "flyte rerun"),
        (of_run_spec(recover={"forceRerunActions": ["a1"]}), "unimplemented", "flyte rerun"),
        (of_run_spec(queue="fast"), "unimplemented", "leave the queue out"),
        (of_run_spec(maxActionConcurrency=3), "unimplemented", "asyncio.Semaphore"),
        (of_run_spec(relation={"relationType": 999}), "invalid_argument", "999"),
        (
            {"runId": NEW_RUN, "taskSpec": SPEC, "offloadedInputData": {}},
            "invalid_argument",
            "offloaded_input_data.uri",
        ),
    ],
)
def test_a_run_that_can_not_be_is_refused(manager: Manager, asker: Asker, body: Body, code: str, words: str) -> None:
    with unchanged(manager):
        refuse(asker, CREATE, body, code, words)


def test_times_and_durations_beyond_all_calendars_are_refused(manager: Manager, asker: Asker) -> None:
    run = json_format.ParseDict({"runId": NEW_RUN, "taskSpec": SPEC}, run_service_pb2.CreateRunRequest())
    location = json_format.ParseDict(
        {**FRESH, "filename": "f", "filenameRoot": "r"}, dataproxy_service_pb2.CreateUploadLocationRequest()
    )
    with unchanged(manager):
        for seconds in (1 << 62, -(1 << 62), 1 << 40):
            run.run_spec.run_start_time.seconds = seconds
            location.expires_in.seconds = seconds
            for answer in (
                asker.send(CREATE, run.SerializeToString()),
                asker.send(LOCATION, location.SerializeToString()),
            ):
                assert answer.code == "invalid_argument", answer
                assert is_sentence(answer)


def test_a_taken_name_with_other_content_is_refused(manager: Manager, asker: Asker) -> None:
    other_task = {"taskTemplate": {**TEMPLATE, "container": {"args": ["sleep", "601"]}}}
    other_inputs = {"literals": [{"name": "x", "value": {"scalar": {"primitive": {"integer": 1}}}}]}
    secret = {"id": {**SCOPE, "name": "known"}, "secretSpec": {"stringValue": "w"}}
    with unchanged(manager):
        refuse(asker, CREATE, {"runId": RUN, "taskSpec": other_task}, "already_exists", "choose another name")
        refuse(
            asker, CREATE, {"runId": RUN, "taskSpec": SPEC, "inputs": other_inputs}, "already_exists", "other inputs"
        )
        refuse(asker, "task.TaskService/DeployTask", {"taskId": TASK, "spec": other_task}, "already_exists", "version")
        refuse(asker, "secret.SecretService/CreateSecret", secret, "already_exists")
        refuse(asker, "project.ProjectService/CreateProject", {"project": {"id": "flytesnacks"}}, "already_exists")


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"task": None}, "invalid_argument", "spec"),
        ({"task": {}}, "invalid_argument", "task_template"),
        ({"task": {"spec": {"taskTemplate": {}}}}, "invalid_argument", "task_template.id.name"),
        ({"actionId": QUESTION}, "invalid_argument", "enqueued before"),
        ({"actionId": {**NEW_ACTION, "run": {**RUN, "name": "ended"}}}, "aborted", "has ended"),
        (
            {"task": None, "trace": {"name": "t", "phase": "ACTION_PHASE_RUNNING"}},
            "invalid_argument",
            "when it is over",
        ),
        ({"task": None, "condition": {"name": "c", "type": {"simple": "BINARY"}}}, "invalid_argument", "bool"),
    ],
)
def test_an_action_that_can_not_be_is_refused(
    manager: Manager, asker: Asker, road: str, change: Body, code: str, words: str
) -> None:
    if road.startswith("workflow") and "condition" in change:
        change, words = {"task": None}, "_U_USE_ACTIONS"  # that road has no conditions
    with unchanged(manager):
        refuse(asker, road, on(road, change), code, words)


def on(road: str, change: Body) -> Body:
    """A request to enqueue, by this road, with that change."""
    body = {key: value for key, value in {**CHILD, **change}.items() if value is not None}
    wrapped = ROADS[road]
    return {wrapped: body} if wrapped else body


@pytest.mark.parametrize(
    ("method", "body", "words"),
    [
        (PUT, {"actionId": ROOT, "state": ""}, "state"),
        (PUT, {"actionId": ROOT, "state": "{"}, "JSON"),
        (PUT, {"actionId": ROOT, "state": "[1]"}, "object"),
        (PUT, {"actionId": ROOT, "state": '{"phase": ' + "[" * 20_000}, "JSON"),
        (PUT, {"actionId": ROOT, "state": '{"phase": "PHASE_HAPPY"}'}, "PHASE_HAPPY"),
        ("actions.ActionsService/Update", {"actionId": ROOT, "status": {"phase": 999}}, "999"),
        ("workflow.RunService/SignalEvent", {"actionId": QUESTION, "payload": {"stringValue": "yes"}}, "bool"),
        ("workflow.RunService/SignalEvent", {"actionId": QUESTION}, "none was given"),
        (LIST, {"request": {"limit": 1001}}, "1000"),
        (LIST, {"request": {"token": "../1"}}, "page token"),
        (LIST, {"request": {"token": token_of(["-created_at", "-name"], ["\ud800", "x"])}}, "page token"),
        (LIST, {"request": {"sortBy": {"key": "1; DROP TABLE runs"}}}, "is not a field"),
        (LIST, {"request": {"filters": [{"field": "name' OR 1=1", "values": ["x"]}]}}, "is not a field"),
        (LIST, {"request": {"filters": [{"field": "name", "function": 999, "values": ["x"]}]}}, "999"),
        (LIST, {"request": {"rawFilters": ["x"]}}, "filters"),
        (WATCH, {"runId": RUN, "filter": [{"field": "PHASE", "function": 999}]}, "999"),
        (
            WATCH,
            {"runId": RUN, "filter": [{"field": "PHASE", "function": "VALUE_IN", "values": ["9" * 5000]}]},
            "phase",
        ),
        ("project.ProjectService/ListProjects", {"filters": "eq(name"}, "filters"),
        ("project.ProjectService/UpdateProject", {"project": {"id": "flytesnacks", "state": 999}}, "999"),
        (LOCATION, {**FRESH, "filename": "f", "contentMd5": "c2hvcnQ="}, "16 bytes"),
        (LOCATION, {**FRESH, "filename": "f"}, "filename_root or content_md5"),
        (LOCATION, {**FRESH, "filename": "f", "filenameRoot": "r", "expiresIn": "3601s"}, "3600"),
        (DOWNLOAD, {"artifactType": "ARTIFACT_TYPE_REPORT"}, "action_attempt_id"),
    ],
)
def test_a_value_that_can_not_be_is_refused(
    manager: Manager, asker: Asker, method: str, body: Body, words: str
) -> None:
    with unchanged(manager):
        refuse(asker, method, body, "invalid_argument", words)


@pytest.mark.parametrize(
    "tail",
    [
        *("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "file://{store}/x", "s3://bucket/x"),
        *("http://169.254.169.254/latest", "{store}", "{store}-other/x", "{store}/../urls.key", "{store}/a/../../x"),
        *("{store}//etc/passwd", "{store}/a\0b", "{store}/.incoming/x", "{store}/" + "y" * 300, "{store}/./x"),
    ],
)
def test_a_path_that_leads_out_of_the_store_is_refused_everywhere(manager: Manager, asker: Asker, tail: str) -> None:
    path = tail.format(store=manager.data / "blobs")
    trace = {"name": "t", "phase": "ACTION_PHASE_SUCCEEDED", "outputs": {"outputUri": path}}
    bundle = of_template(container={"args": ["a0", "--tgz", path]})
    with unchanged(manager):
        offloaded = {"runId": NEW_RUN, "taskSpec": SPEC, "offloadedInputData": {"uri": path, "inputsHash": "h"}}
        refuse(asker, CREATE, offloaded, "invalid_argument")
        refuse(asker, CREATE, bundle, "invalid_argument")
        if path != str(manager.data / "blobs"):  # the store itself may be a run's base
            refuse(asker, CREATE, of_run_spec(runBaseDir=path), "invalid_argument")
            refuse(asker, UPLOAD, {"projectId": FRESH_PROJECT, "taskSpec": SPEC, "baseDir": path}, "invalid_argument")
        for road in ROADS:
            refuse(asker, road, on(road, {"inputUri": path}), "invalid_argument")
            refuse(asker, road, on(road, {"runOutputBase": path}), "invalid_argument", "run's base")
            refuse(asker, road, on(road, {"task": None, "trace": trace}), "invalid_argument")


@pytest.mark.parametrize("name", ["../up", "a/../../b", "/abs", "", ".", "..", "a\0b", "line\n", "y" * 300])
def test_an_upload_can_not_be_named_out_of_its_folder(manager: Manager, asker: Asker, name: str) -> None:
    with unchanged(manager):
        refuse(asker, LOCATION, {**FRESH, "filename": "f", "filenameRoot": name}, "invalid_argument")
        if name:  # without one, the manager makes a name
            refuse(asker, LOCATION, {**FRESH, "filename": name, "filenameRoot": "r"}, "invalid_argument")


def test_a_signed_url_that_was_altered_forged_or_outlived_writes_and_reads_nothing(
    manager: Manager, asker: Asker
) -> None:
    asked = {**SCOPE, "filename": "f", "filenameRoot": "r", "expiresIn": "1s"}
    told = asker.http.post(asker.url(LOCATION), json=asked).json()
    url = httpx.URL(told["signedUrl"])
    body, signature = url.params["grant"].split(".")
    grants = {
        "no grant": "",
        "no signature": body,
        "signature altered": f"{body}.{signature[:-2]}{'AA' if signature[-2:] != 'AA' else 'BB'}",
        "grant altered": f"{body[:-4]}AAAA.{signature}",
        "signature of nothing": f".{signature}",
        "garbage": "x" * 100,
        "endless": "x" * 20_000,
    }
    with unchanged(manager):
        for what, grant in grants.items():
            answer = asker.http.put(url.copy_with(params={"grant": grant}), content=b"x")
            assert answer.status_code == 403, f"{what}: {answer}"
            assert is_sentence(Answer("", answer.text.strip())), answer.text
        for path in ("/blobs/read", "/blobs/../urls.key", "/blobs/write/../../x", "/blobs/"):
            answer = asker.http.get(url.copy_with(path=path))
            assert answer.status_code in (403, 404, 405), f"{path}: {answer}"
        time.sleep(max(0.0, 2.1 - (time.time() % 1)))
        expired = asker.http.put(url, content=b"x")
        assert (expired.status_code, "has expired" in expired.text) == (403, True)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_page_of_another_origin_can_not_use_a_signed_url(manager: Manager, asker: Asker, origin: str) -> None:
    told = asker.http.post(asker.url(LOCATION), json={**SCOPE, "filename": "f", "filenameRoot": "r"}).json()
    with unchanged(manager):
        assert asker.http.put(told["signedUrl"], content=b"x", headers={"origin": origin}).status_code == 403


def test_runs_that_can_not_start_fail_with_a_sentence_and_hold_up_nobody(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    secret = {"key": "nobody-has-it", "envVar": "X", "mountRequirement": "ENV_VAR"}
    poison: list[dict[str, Any]] = [
        {"container": {"args": ["no-such-command"]}},
        {"container": {"args": ["/etc"]}},
        {"container": {"args": []}},
        {"id": {**TEMPLATE["id"], "name": "a\0b"}},
        {"container": {"args": ["true"]}, "securityContext": {"secrets": [secret]}},
    ]
    with Manager(tmp_path_factory.mktemp("poison"), {"embedded.cpu": "1"}) as manager:
        with closing(Asker(manager)) as asker:
            for number, change in enumerate(poison):
                body = {**of_template(**change), "runId": {**NEW_RUN, "name": f"poison{number}"}}
                answer = asker.ask(CREATE, body)
                assert answer.code == OK, (change, answer)
            for container in (
                {"args": ["a\0b"]},
                {"args": ["sh", "-c", "a\0b"]},
                {"args": ["true"], "env": [{"key": "A=B", "value": "v"}]},
                {"args": ["true"], "env": [{"key": "A", "value": "v\0"}]},
            ):
                refused = asker.ask(CREATE, of_template(container=container))
                assert refused.code == "invalid_argument"
                assert is_sentence(refused), refused
            assert asker.ask(CREATE, of_template(container={"args": ["true"]})).code == OK
        query = "SELECT run, phase, error_message FROM actions WHERE ended_at IS NOT NULL"
        eventually(lambda: len(manager.rows(query)) > len(poison), 20, what="the end of all runs")
        ended = {run: (phase, message) for run, phase, message in manager.rows(query)}
    assert ended.pop("new")[0] == "SUCCEEDED"
    for run, (phase, message) in ended.items():
        assert phase == "FAILED", run
        assert is_sentence(Answer("", message)), f"{run}: {message}"
