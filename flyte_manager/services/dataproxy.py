"""DataProxyService: uploads, inputs, outputs, reports, bundles and logs."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

from flyteidl2.dataproxy import dataproxy_service_connect
from flyteidl2.dataproxy import dataproxy_service_pb2 as pb
from flyteidl2.task import task_definition_pb2

from flyte_manager.blobs.signed import BadLifetime, lifetime_of
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt
from flyte_manager.domain.errors import Invalid, Missing, NotGiven, UnknownAction, UnknownTask
from flyte_manager.domain.features import APPS, TRIGGERS, NotYet
from flyte_manager.domain.ids import ActionId, AttemptId, ProjectId, check_scope
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.ports import Blobs, Links, Logs
from flyte_manager.ledger.projects import Projects
from flyte_manager.services.context import Context
from flyte_manager.services.last_words import last_words
from flyte_manager.services.quiet import with_pauses
from flyte_manager.store import actions, attempts, tasks
from flyte_manager.store.engine import Database
from flyte_manager.wire import data, deployed, ids, plan
from flyte_manager.wire.times import seconds, timestamp

UPLOADS = "uploads"
INPUTS = "_inputs"
"""Folder of uploaded inputs beside the runs; no run can have that name."""

LARGEST = 64 << 20
"""Bytes of inputs.pb or outputs.pb that an answer may carry; more than a request can bring."""

QUIET_SECONDS = 15.0
"""after which a log says that it is still there: the SDK ends `--follow` with "Request was cancelled" after 30"""


class NoUploadName(Invalid):
    """either filename_root or content_md5 must be provided."""


class BadMd5(Invalid):
    """content_md5 has {found} bytes: it is the 16 bytes of an MD5 digest, not its hex text."""


class BadSize(Invalid):
    """content_length {found} is not a size in bytes."""


class UnknownAttempt(Missing):
    """attempt {number} of {action} was not found: it has had {count} so far."""


class NoLogs(Missing):
    """{action} is a {kind}: it runs inside its parent's process, whose log tells of it."""


class InputsGone(Missing):
    """the inputs of {action} are gone from the manager's store ({uri}): pass every input anew."""


class NoReport(Missing):
    """{attempt} has no report: a task writes one with report=True and flyte.report.flush()."""


class NoBundle(Missing):
    """{what} has no code bundle: its code lies in its image."""


class BundleMissing(Missing):
    """the code bundle {uri} is gone from the manager's store."""


class DataProxyService(dataproxy_service_connect.DataProxyService):
    """`links`: makes the URLs that are given out."""

    def __init__(self, *, projects: Projects, blobs: Blobs, links: Links, database: Database, logs: Logs) -> None:
        self._projects = projects
        self._blobs = blobs
        self._links = links
        self._database = database
        self._logs = logs

    async def create_upload_location(
        self, request: pb.CreateUploadLocationRequest, ctx: Context
    ) -> pb.CreateUploadLocationResponse:
        check_scope(request.project, request.domain)
        if not request.filename_root and not request.content_md5:
            raise NoUploadName
        if request.content_md5 and len(request.content_md5) != 16:
            raise BadMd5(found=len(request.content_md5))
        if request.content_length < 0:
            raise BadSize(found=request.content_length)
        folder = request.filename_root or base64.b32encode(request.content_md5).decode().rstrip("=")
        name = request.filename or secrets.token_hex(10)
        uri = self._blobs.join(UPLOADS, request.project, request.domain, folder, name)
        signed = await self._links.upload(
            uri,
            md5=request.content_md5,
            limit=request.content_length,
            lifetime=_lifetime(request),
            host=_host(ctx),
        )
        await self._projects.admit_write(ProjectId(request.project, request.domain, request.org))
        return pb.CreateUploadLocationResponse(
            signed_url=signed.url,
            native_url=uri,
            expires_at=timestamp(signed.expires_at),
            headers=signed.headers,
        )

    async def upload_inputs(self, request: pb.UploadInputsRequest, _ctx: Context) -> pb.UploadInputsResponse:
        scope = ids.scope_of(request, field="project_id or run_id")
        spec = await self._spec(request)
        inputs = data.completed(request.inputs, spec)
        content = data.content(inputs)
        base = request.base_dir.rstrip("/") or self._blobs.join(scope.project, scope.domain)
        # By its content: the same inputs are the same file, and what one run reads no other changes.
        uri = f"{base}/{INPUTS}/{hashlib.sha256(content).hexdigest()[:32]}/inputs.pb"
        self._blobs.checked(uri)
        await self._projects.admit_write(scope)
        await self._blobs.write(uri, content)
        response = pb.UploadInputsResponse()
        response.offloaded_input_data.uri = uri
        response.offloaded_input_data.inputs_hash = data.inputs_hash(inputs, spec)
        return response

    async def create_download_link(
        self, request: pb.CreateDownloadLinkRequest, ctx: Context
    ) -> pb.CreateDownloadLinkResponse:
        lifetime = _lifetime(request)
        match request.artifact_type:
            case pb.ARTIFACT_TYPE_REPORT:
                uri = await self._report(request)
            case pb.ARTIFACT_TYPE_CODE_BUNDLE:
                uri = await self._bundle(request)
            case _:
                raise NotGiven(field="artifact_type (ARTIFACT_TYPE_REPORT or ARTIFACT_TYPE_CODE_BUNDLE)")
        signed = await self._links.download(uri, lifetime=lifetime, host=_host(ctx))
        return pb.CreateDownloadLinkResponse(
            pre_signed_urls=pb.PreSignedURLs(signed_url=[signed.url], expires_at=timestamp(signed.expires_at))
        )

    async def get_action_data(self, request: pb.GetActionDataRequest, _ctx: Context) -> pb.GetActionDataResponse:
        action = await self._action(ids.action_id(request.action_id))
        response = pb.GetActionDataResponse(inputs_uri=data.inputs_file(action), outputs_uri=data.outputs_file(action))
        if action.value:
            response.outputs.CopyFrom(data.answer_of(action))
        if response.inputs_uri:
            found = await self._blobs.read(response.inputs_uri, limit=LARGEST)
            if found is None:
                raise InputsGone(action=action.id, uri=response.inputs_uri)
            response.inputs.CopyFrom(data.parse_inputs(found, response.inputs_uri))
        if response.outputs_uri:
            found = await self._blobs.read(response.outputs_uri, limit=LARGEST)
            if found is not None:
                response.outputs.CopyFrom(data.parse_outputs(found, response.outputs_uri))
        return response

    async def tail_logs(self, request: pb.TailLogsRequest, _ctx: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """An attempt is one process, so that every pod selector means the same."""
        attempt = await self._attempt(ids.action_id(request.action_id), request.attempt)

        async def look() -> Attempt | None:
            return await self._database.read(lambda connection: attempts.get(connection, attempt.id))

        async def ended() -> bool:
            found = await look()
            return found is None or found.phase.final

        placed: Attempt | None = None
        async for lines in with_pauses(self._logs.tail(attempt.id, ended=ended), QUIET_SECONDS):
            if lines is None:
                yield pb.TailLogsResponse()
                continue
            placed = placed or await look()  # where there is a log, there is a pod
            for page in data.log_pages(lines, placed or attempt):
                yield page
        if over := await look():
            for page in data.log_pages(last_words(over), over):
                yield page

    async def _spec(self, request: pb.UploadInputsRequest) -> task_definition_pb2.TaskSpec:
        """The task that the inputs are for."""
        match request.WhichOneof("task"):
            case "task_spec":
                return request.task_spec
            case "task_id":
                return await self._deployed(request.task_id)
            case "trigger_name":
                raise NotYet("an upload for a trigger", TRIGGERS)
            case _:
                raise NotGiven(field="task_id or task_spec")

    async def _deployed(self, task_id: task_definition_pb2.TaskIdentifier) -> task_definition_pb2.TaskSpec:
        name = deployed.version_name(task_id)
        found = await self._database.read(lambda connection: tasks.get(connection, name))
        if found is None:
            raise UnknownTask(name=name.name, version=name.version, project=name.project, domain=name.domain)
        return await self._stored_spec(found.spec_digest)

    async def _stored_spec(self, digest: str) -> task_definition_pb2.TaskSpec:
        found = await self._database.read(lambda connection: tasks.spec(connection, digest))
        return plan.parse_spec(found or b"")

    async def _report(self, request: pb.CreateDownloadLinkRequest) -> str:
        if request.WhichOneof("source") != "action_attempt_id":
            raise NotGiven(field="action_attempt_id")
        asked = request.action_attempt_id
        attempt = await self._attempt(ids.action_id(asked.action_id), asked.attempt)
        uri = data.report_file(attempt)
        if not await self._blobs.exists(uri):
            raise NoReport(attempt=attempt.id)
        return uri

    async def _bundle(self, request: pb.CreateDownloadLinkRequest) -> str:
        match request.WhichOneof("source"):
            case "action_attempt_id":
                action = await self._action(ids.action_id(request.action_attempt_id.action_id))
                what, spec = f"action {action.id}", await self._stored_spec(action.spec_digest)
            case "task_id":
                what, spec = f"task {request.task_id.name!r}", await self._deployed(request.task_id)
            case "app_id":
                raise NotYet("the code of an app", APPS)
            case _:
                raise NotGiven(field="action_attempt_id or task_id")
        uri = spec.task_template.metadata.code_bundle_uri
        if not uri:
            raise NoBundle(what=what)
        if not await self._blobs.exists(uri):
            raise BundleMissing(uri=uri)
        return uri

    async def _action(self, action_id: ActionId) -> Action:
        found = await self._database.read(lambda connection: actions.get(connection, action_id))
        if found is None:
            run = action_id.run
            raise UnknownAction(name=action_id.name, run=run.name, project=run.project, domain=run.domain)
        return found

    async def _attempt(self, action_id: ActionId, number: int) -> Attempt:
        """The attempt with that number, 0 = the present one."""
        action = await self._action(action_id)
        if action.kind is not Kind.TASK:
            raise NoLogs(action=action_id, kind=action.kind.name.lower())
        asked = AttemptId(action_id, number or action.attempt)
        found = await self._database.read(lambda connection: attempts.get(connection, asked))
        if found is None:
            raise UnknownAttempt(number=number, action=action_id, count=action.attempt)
        return found


def _host(ctx: Context) -> str:
    """The host that the client used, which the gate has checked."""
    return ctx.request_headers().get("host") or ctx.server_address() or ""


def _lifetime(request: pb.CreateUploadLocationRequest | pb.CreateDownloadLinkRequest) -> timedelta:
    if not request.HasField("expires_in"):
        return lifetime_of(None)
    try:
        return lifetime_of(timedelta(seconds=seconds(request.expires_in)))
    except OverflowError:
        raise BadLifetime(seconds=seconds(request.expires_in)) from None
