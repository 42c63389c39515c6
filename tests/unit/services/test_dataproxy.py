"""Uploads, inputs, outputs, reports, bundles and logs, as the SDK asks for them."""

import asyncio
import base64
import hashlib
import os
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from connectrpc.code import Code
from flyteidl2.common import identifier_pb2
from flyteidl2.core import interface_pb2, literals_pb2, tasks_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as pb
from flyteidl2.logs.dataplane import payload_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.workflow import run_logs_service_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_manager.domain import lifecycle
from flyte_manager.domain.attempts import ErrorKind, Failure, Place
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import LogLine
from flyte_manager.services import dataproxy
from flyte_manager.store import attempts, tasks
from flyte_manager.wire.ids import action_proto
from tests.unit.services.running import NOW, ROOT, RUN, Manager, refused

BODY = b"a bundle"
MD5 = hashlib.md5(BODY).digest()
SCOPE = identifier_pb2.ProjectIdentifier(name="flytesnacks", domain="development")


def integer(value: int) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar={"primitive": {"integer": value}})


def inputs(**values: int) -> common_pb2.Inputs:
    return common_pb2.Inputs(
        literals=[common_pb2.NamedLiteral(name=name, value=integer(value)) for name, value in values.items()]
    )


def spec(*, ignored: tuple[str, ...] = (), bundle: str = "", **defaults: int) -> task_definition_pb2.TaskSpec:
    metadata = tasks_pb2.TaskMetadata(cache_ignore_input_vars=ignored, code_bundle_uri=bundle)
    made = task_definition_pb2.TaskSpec(task_template=tasks_pb2.TaskTemplate(metadata=metadata))
    made.task_template.id.name = "env.main"
    for name, value in defaults.items():
        parameter = interface_pb2.Parameter(default=integer(value))
        made.default_inputs.append(common_pb2.NamedParameter(name=name, parameter=parameter))
    return made


def location(**fields: object) -> pb.CreateUploadLocationRequest:
    given = {"project": "flytesnacks", "domain": "development", "filename": "code.tgz", "content_md5": MD5} | fields
    return pb.CreateUploadLocationRequest(**given)  # type: ignore[arg-type]


async def test_a_bundle_is_uploaded_under_its_md5_with_the_url_that_was_asked_for(manager: Manager) -> None:
    made = await manager.data.create_upload_location(location(expires_in=Duration(seconds=60)))
    folder = base64.b32encode(MD5).decode().rstrip("=")
    assert made.native_url == manager.directory.join("uploads/flytesnacks/development", folder, "code.tgz")
    assert made.signed_url.startswith(f"{manager.url}/blobs/write?grant=")
    assert made.expires_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=60)
    assert dict(made.headers) == {"Content-MD5": base64.b64encode(MD5).decode()}
    assert (await manager.put(made.signed_url, BODY, **{"content-md5": made.headers["Content-MD5"]})).status_code == 200
    assert await manager.directory.read(made.native_url) == BODY


async def test_files_of_one_directory_share_its_root(manager: Manager) -> None:
    made = await manager.data.create_upload_location(location(filename_root="0af3", filename="a b.txt"))
    assert made.native_url == manager.directory.join("uploads/flytesnacks/development/0af3/a b.txt")
    unnamed = await manager.data.create_upload_location(location(filename=""))
    assert len(os.path.basename(unnamed.native_url)) == 20


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"content_md5": b""}, Code.INVALID_ARGUMENT, "either filename_root or content_md5 must be provided"),
        ({"content_md5": b"abc"}, Code.INVALID_ARGUMENT, "has 3 bytes"),
        ({"project": ""}, Code.INVALID_ARGUMENT, "project is required"),
        ({"project": "../x"}, Code.INVALID_ARGUMENT, "legal name"),
        ({"domain": "moon"}, Code.NOT_FOUND, "use one of development"),
        ({"filename": "../../x"}, Code.INVALID_ARGUMENT, ".. are not allowed"),
        ({"filename": "/etc/passwd"}, Code.INVALID_ARGUMENT, "empty part"),
        ({"filename_root": "a/../.."}, Code.INVALID_ARGUMENT, ".. are not allowed"),
        ({"filename": "a\0b"}, Code.INVALID_ARGUMENT, "control characters"),
        ({"filename": "x" * 256}, Code.INVALID_ARGUMENT, "longer than 255"),
        ({"expires_in": Duration(seconds=3601)}, Code.INVALID_ARGUMENT, "3600"),
        ({"expires_in": Duration(seconds=-1)}, Code.INVALID_ARGUMENT, "3600"),
        ({"content_length": -1}, Code.INVALID_ARGUMENT, "-1 is not a size"),
    ],
)
async def test_an_upload_that_is_asked_for_wrongly_is_refused_and_makes_no_project(
    manager: Manager, fields: dict[str, object], code: Code, says: str
) -> None:
    request = location(**({"project": "new-one"} | fields))
    assert says in await refused(manager.data.create_upload_location(request), code)
    with pytest.raises(Exception, match="was not found"):
        await manager.projects.get("new-one")


async def test_inputs_are_completed_with_defaults_written_and_hashed(manager: Manager) -> None:
    request = pb.UploadInputsRequest(project_id=SCOPE, task_spec=spec(x=1, y=2), inputs=inputs(y=7))
    told = (await manager.data.upload_inputs(request)).offloaded_input_data
    content = await manager.directory.read(told.uri)
    assert content is not None
    assert common_pb2.Inputs.FromString(content) == inputs(y=7, x=1)
    assert told.uri.startswith(manager.directory.join("flytesnacks/development/_inputs") + "/")
    assert told.uri.endswith("/inputs.pb")
    again = (await manager.data.upload_inputs(request)).offloaded_input_data
    assert again == told


async def test_ignored_inputs_change_the_file_but_not_the_hash(manager: Manager) -> None:
    async def upload(**values: int) -> tuple[str, str]:
        request = pb.UploadInputsRequest(project_id=SCOPE, task_spec=spec(ignored=("x",)), inputs=inputs(**values))
        told = (await manager.data.upload_inputs(request)).offloaded_input_data
        return told.uri, told.inputs_hash

    one, other, third = await upload(x=1, y=1), await upload(x=2, y=1), await upload(x=1, y=2)
    assert one[1] == other[1] != third[1]
    assert len({one[0], other[0], third[0]}) == 3
    assert (await upload())[1]


async def test_the_base_of_a_run_is_honoured_inside_the_store_only(manager: Manager) -> None:
    base = manager.directory.join("elsewhere/deep")
    run_id = identifier_pb2.RunIdentifier(project="flytesnacks", domain="development", name="r1")
    request = pb.UploadInputsRequest(run_id=run_id, task_spec=spec(), base_dir=f"{base}/")
    told = (await manager.data.upload_inputs(request)).offloaded_input_data
    assert told.uri.startswith(f"{base}/_inputs/")
    for outside in ("/etc", "s3://bucket/x", f"{base}/../../../..", "relative", manager.directory.join("a") + "\0"):
        request.base_dir = outside
        await refused(manager.data.upload_inputs(request), Code.INVALID_ARGUMENT)


async def test_inputs_for_a_deployed_task_take_its_defaults(manager: Manager) -> None:
    task_id = task_definition_pb2.TaskIdentifier(
        project="flytesnacks", domain="development", name="env.main", version="v1"
    )
    request = pb.UploadInputsRequest(project_id=SCOPE, task_id=task_id)
    assert "version 'v1'" in await refused(manager.data.upload_inputs(request), Code.NOT_FOUND)
    await manager.tasks.deploy_task(task_service_pb2.DeployTaskRequest(task_id=task_id, spec=spec(x=3)))
    told = (await manager.data.upload_inputs(request)).offloaded_input_data
    content = await manager.directory.read(told.uri)
    assert common_pb2.Inputs.FromString(content or b"") == inputs(x=3)


async def test_inputs_without_a_scope_or_task_or_for_a_trigger_are_refused(manager: Manager) -> None:
    upload = manager.data.upload_inputs
    assert "project_id or run_id" in await refused(upload(pb.UploadInputsRequest()), Code.INVALID_ARGUMENT)
    scoped = pb.UploadInputsRequest(project_id=SCOPE)
    assert "task_id or task_spec" in await refused(upload(scoped), Code.INVALID_ARGUMENT)
    scoped.trigger_name.name = "nightly"
    assert "trigger" in await refused(upload(scoped), Code.UNIMPLEMENTED)


def asked(action: ActionId = ROOT) -> pb.GetActionDataRequest:
    return pb.GetActionDataRequest(action_id=action_proto(action))


async def test_data_of_a_task_is_read_from_its_files_once_it_has_succeeded(manager: Manager) -> None:
    action = manager.action(phase=Phase.RUNNING, input_uri=manager.directory.join("in/inputs.pb"))
    succeeded = manager.action(
        ActionId(RUN, "done"), phase=Phase.SUCCEEDED, input_uri=action.input_uri, output_uri=action.output_uri
    )
    await manager.add(action)
    await manager.add(succeeded)
    await manager.directory.write(action.input_uri, inputs(x=1).SerializeToString())
    outputs = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name="o0", value=integer(5))])
    await manager.directory.write(f"{action.output_uri}/outputs.pb", outputs.SerializeToString())
    early = await manager.data.get_action_data(asked())
    assert early.inputs == inputs(x=1)
    assert not early.HasField("outputs")
    late = await manager.data.get_action_data(asked(succeeded.id))
    assert late.outputs == outputs
    assert late.inputs_uri == action.input_uri
    assert late.outputs_uri == f"{action.output_uri}/outputs.pb"


async def test_missing_outputs_are_left_unset_and_missing_inputs_are_not_found(manager: Manager) -> None:
    await manager.add(manager.action(phase=Phase.SUCCEEDED, input_uri=manager.directory.join("in/inputs.pb")))
    assert "inputs" in await refused(manager.data.get_action_data(asked()), Code.NOT_FOUND)
    await manager.directory.write(manager.directory.join("in/inputs.pb"), b"")
    assert not (await manager.data.get_action_data(asked())).HasField("outputs")
    unknown = ActionId(RUN, "nobody")
    assert "'nobody'" in await refused(manager.data.get_action_data(asked(unknown)), Code.NOT_FOUND)


async def test_the_outputs_of_a_trace_are_the_file_that_it_names(manager: Manager) -> None:
    uri = manager.directory.join("flytesnacks/development/r1/t1/outputs.pb")
    trace = ActionId(RUN, "t1")
    await manager.add(manager.action(trace, kind=Kind.TRACE, phase=Phase.SUCCEEDED, output_uri=uri))
    await manager.directory.write(uri, common_pb2.Outputs().SerializeToString())
    told = await manager.data.get_action_data(asked(trace))
    assert told.HasField("outputs")
    assert told.outputs_uri == uri


async def test_damaged_data_and_data_outside_the_store_are_refused(manager: Manager) -> None:
    damaged = manager.directory.join("in/inputs.pb")
    await manager.directory.write(damaged, b"\xff\xff\xff")
    await manager.add(manager.action(input_uri=damaged))
    assert damaged in await refused(manager.data.get_action_data(asked()), Code.FAILED_PRECONDITION)
    trace = ActionId(RUN, "t1")
    await manager.add(manager.action(trace, kind=Kind.TRACE, phase=Phase.SUCCEEDED, output_uri="/etc/passwd"))
    assert "outside" in await refused(manager.data.get_action_data(asked(trace)), Code.INVALID_ARGUMENT)


def report(attempt: int = 0, **fields: object) -> pb.CreateDownloadLinkRequest:
    asked_for = identifier_pb2.ActionAttemptIdentifier(action_id=action_proto(ROOT), attempt=attempt)
    given = {"artifact_type": pb.ARTIFACT_TYPE_REPORT, "action_attempt_id": asked_for} | fields
    return pb.CreateDownloadLinkRequest(**given)  # type: ignore[arg-type]


async def test_a_report_is_downloaded_by_a_link(manager: Manager) -> None:
    action = manager.action()
    await manager.add(action)
    assert "has no report" in await refused(manager.data.create_download_link(report()), Code.NOT_FOUND)
    await manager.directory.write(f"{action.output_uri}/report.html", b"<h1>done</h1>")
    for attempt in (0, 1):
        link = (await manager.data.create_download_link(report(attempt))).pre_signed_urls
        got = await manager.get(link.signed_url[0])
        assert (got.status_code, got.text) == (200, "<h1>done</h1>")
        assert link.expires_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=900)
    assert "has had 1" in await refused(manager.data.create_download_link(report(2)), Code.NOT_FOUND)


async def test_a_code_bundle_is_downloaded_by_action_or_task(manager: Manager) -> None:
    uri = manager.directory.join("uploads/flytesnacks/development/X/code.tgz")
    content = spec(bundle=uri)
    task_id = task_definition_pb2.TaskIdentifier(
        project="flytesnacks", domain="development", name="env.main", version="v1"
    )
    await manager.tasks.deploy_task(task_service_pb2.DeployTaskRequest(task_id=task_id, spec=content))
    await manager.database.write(lambda tx: tasks.keep_spec(tx, "d1", content.SerializeToString()))
    await manager.add(manager.action(spec_digest="d1"))
    by_action = report(artifact_type=pb.ARTIFACT_TYPE_CODE_BUNDLE)
    by_task = pb.CreateDownloadLinkRequest(artifact_type=pb.ARTIFACT_TYPE_CODE_BUNDLE, task_id=task_id)
    assert "is gone" in await refused(manager.data.create_download_link(by_action), Code.NOT_FOUND)
    await manager.directory.write(uri, BODY)
    for request in (by_action, by_task):
        link = (await manager.data.create_download_link(request)).pre_signed_urls
        assert (await manager.get(link.signed_url[0])).content == BODY


async def test_links_to_nothing_in_particular_are_refused(manager: Manager) -> None:
    await manager.add(manager.action())
    link = manager.data.create_download_link
    unsaid = report(artifact_type=pb.ARTIFACT_TYPE_UNSPECIFIED)
    assert "artifact_type" in await refused(link(unsaid), Code.INVALID_ARGUMENT)
    nobody = pb.CreateDownloadLinkRequest(artifact_type=pb.ARTIFACT_TYPE_REPORT)
    assert "action_attempt_id" in await refused(link(nobody), Code.INVALID_ARGUMENT)
    bundle = report(artifact_type=pb.ARTIFACT_TYPE_CODE_BUNDLE)
    assert "no code bundle" in await refused(link(bundle), Code.NOT_FOUND)
    too_long = report(expires_in=Duration(seconds=4000))
    assert "3600" in await refused(link(too_long), Code.INVALID_ARGUMENT)


def tail(attempt: int = 0, action: ActionId = ROOT) -> pb.TailLogsRequest:
    return pb.TailLogsRequest(action_id=action_proto(action), attempt=attempt)


async def test_logs_come_in_pages_with_time_origin_and_line_ends(manager: Manager) -> None:
    await manager.add(manager.action())
    manager.logs.pages = [
        [LogLine(NOW, "made ready", system=True), LogLine(NOW, "hello\n"), *(LogLine(NOW, "x") for _ in range(600))],
        [LogLine(NOW, "y" * 200_000) for _ in range(3)],
    ]
    got = [message async for message in manager.data.tail_logs(tail())]
    sizes = [len(message.logs[0].lines) for message in got]
    assert sizes == [500, 102, 1, 1, 1]
    first, second = got[0].logs[0].lines[:2]
    assert (first.message, first.originator) == ("made ready\n", payload_pb2.SYSTEM)
    assert (second.message, second.originator) == ("hello\n", payload_pb2.USER)
    assert first.timestamp.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    assert got[0].logs[0].container.kubernetes_pod_name == "r1-a0-0"


async def test_logs_of_an_attempt_are_followed_until_that_attempt_is_final(manager: Manager) -> None:
    action = manager.action(attempt=2)
    await manager.add(action)
    first = replace(lifecycle.new_attempt(action, 1, NOW), phase=Phase.FAILED)
    await manager.database.write(lambda tx: attempts.insert(tx, first))
    manager.logs.later = [LogLine(NOW, "the end")]
    assert len([message async for message in manager.data.tail_logs(tail(1))]) == 1
    assert [message async for message in manager.data.tail_logs(tail())] == []
    assert [attempt.number for attempt in manager.logs.asked] == [1, 2]


async def test_a_log_says_from_which_pod_it_comes_even_if_that_came_after_the_question(manager: Manager) -> None:
    action = manager.action()
    await manager.add(action)
    manager.logs.pages = [[LogLine(NOW, "hello")]]
    asked = manager.data.tail_logs(tail())
    placed = replace(lifecycle.new_attempt(action, 1, NOW), place=Place("flyte", "r1-a0-0", "uid-1", "main", "node-1"))

    async def place() -> None:
        await manager.database.write(lambda tx: attempts.update(tx, placed))

    manager.logs.before_first = place
    (message,) = [each async for each in asked]
    container = message.logs[0].container
    assert (container.kubernetes_namespace, container.kubernetes_container_name) == ("flyte", "main")


async def test_a_log_of_a_quiet_task_says_that_it_is_still_there(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataproxy, "QUIET_SECONDS", 0.01)
    await manager.add(manager.action())
    manager.logs.pages = [[LogLine(NOW, "hello")]]
    manager.logs.before_first = partial(asyncio.sleep, 0.1)
    *quiet, message = [each async for each in manager.data.tail_logs(tail())]
    assert quiet
    assert not any(each.logs for each in quiet)
    assert message.logs[0].lines[0].message == "hello\n"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("the task asks for secret 'X'", ["FAILED (Code): the task asks for secret 'X'\n"]),
        ("No module named 'x'\n\nAdd it", ["FAILED (Code): No module named 'x'\n", "Add it\n"]),
        ("\n\nFull traceback:\n" + "a line\n" * 9 + "\nAdd it", ["FAILED (Code): Add it\n"]),
        ("", ["FAILED (Code)\n"]),
    ],
)
async def test_a_log_ends_with_why_its_attempt_failed(manager: Manager, message: str, told: list[str]) -> None:
    action = manager.action()
    await manager.add(action)
    failed = replace(
        lifecycle.new_attempt(action, 1, NOW), phase=Phase.FAILED, failure=Failure(ErrorKind.USER, "Code", message)
    )
    await manager.database.write(lambda tx: attempts.update(tx, failed))
    manager.logs.pages = [[LogLine(NOW, "hello")]]
    got = [message async for message in manager.data.tail_logs(tail())]
    lines = [line for message in got for line in message.logs[0].lines]
    assert [line.message for line in lines] == ["hello\n", *told]
    assert {line.originator for line in lines[1:]} == {payload_pb2.SYSTEM}


async def test_the_service_of_run_logs_gives_the_same_log(manager: Manager) -> None:
    await manager.add(manager.action())
    manager.logs.pages = [[LogLine(NOW, "hello")], [LogLine(NOW, "again")]]
    request = run_logs_service_pb2.TailLogsRequest(action_id=action_proto(ROOT))
    got = [each async for each in manager.run_logs.tail_logs(request)]
    assert [line.message for each in got for logs in each.logs for line in logs.lines] == ["hello\n", "again\n"]
    request.attempt = 7

    async def read() -> None:
        async for _ in manager.run_logs.tail_logs(request):
            pass

    assert "has had 1" in await refused(read(), Code.NOT_FOUND)


async def test_logs_of_what_has_none_are_not_found(manager: Manager) -> None:
    async def read(request: pb.TailLogsRequest) -> None:
        async for _ in manager.data.tail_logs(request):
            pass

    trace = ActionId(RUN, "t1")
    await manager.add(manager.action())
    await manager.add(manager.action(trace, kind=Kind.TRACE))
    assert "'nobody'" in await refused(read(tail(action=ActionId(RUN, "nobody"))), Code.NOT_FOUND)
    assert "has had 1" in await refused(read(tail(7)), Code.NOT_FOUND)
    assert "is a trace" in await refused(read(tail(action=trace)), Code.NOT_FOUND)
