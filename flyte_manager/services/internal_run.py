"""InternalRunService and EventsProxyService: the door for executors that run apart (docs/decisions/0008).

What is wrong with an item is told in its answer's status, never as an error of the call.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing

from flyteidl2.actions import actions_service_pb2
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import (
    events_proxy_service_connect,
    events_proxy_service_pb2,
    internal_run_service_connect,
    run_definition_pb2,
)
from flyteidl2.workflow import internal_run_service_pb2 as pb
from google.rpc import status_pb2

from flyte_manager.domain.attempts import AttemptReport
from flyte_manager.domain.errors import Invalid, NotGiven, Refusal
from flyte_manager.domain.features import RECOVER, NotYet
from flyte_manager.domain.identities import Identity
from flyte_manager.domain.ids import ROOT, ProjectId
from flyte_manager.domain.orders import NewRun
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Blobs, Clock
from flyte_manager.ledger.ledger import Ledger, NotACondition
from flyte_manager.ledger.outside import Outside
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.watch import Reader
from flyte_manager.services.context import Context
from flyte_manager.services.enqueue import Enqueue
from flyte_manager.services.pipelined import pipelined
from flyte_manager.wire import ids
from flyte_manager.wire.conditions import check_literal
from flyte_manager.wire.identities import enriched
from flyte_manager.wire.orders import spec_digest
from flyte_manager.wire.plan import check_spec, summary
from flyte_manager.wire.statuses import OK, status_of
from flyte_manager.wire.told import event_report, status_report

LONGEST_BATCH = 10_000


class NotTheRoot(Invalid):
    """action {name!r} has no parent: only a run's root action, {root!r}, has none."""


class RootNotATask(Invalid):
    """the root action of run {run!r} is no task: only a task starts a run."""


class TooManyEvents(Invalid):
    """{count} events in one request are too many: send at most {most}."""


class InternalRunService(internal_run_service_connect.InternalRunService):
    def __init__(
        self,
        *,
        reader: Reader,
        ledger: Ledger,
        outside: Outside,
        enqueue: Enqueue,
        projects: Projects,
        blobs: Blobs,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._outside = outside
        self._enqueue = enqueue
        self._projects = projects
        self._blobs = blobs
        self._clock = clock

    async def record_action(self, request: pb.RecordActionRequest, _ctx: Context) -> pb.RecordActionResponse:
        return await self._record(request)

    async def record_action_stream(
        self, request: AsyncIterator[pb.RecordActionStreamRequest], _ctx: Context
    ) -> AsyncIterator[pb.RecordActionStreamResponse]:
        async def answer(each: pb.RecordActionStreamRequest) -> pb.RecordActionStreamResponse:
            return pb.RecordActionStreamResponse(response=await self._record(each.request))

        async with aclosing(pipelined(request, answer)) as answers:
            async for each in answers:
                yield each

    async def update_action_status(
        self, request: pb.UpdateActionStatusRequest, _ctx: Context
    ) -> pb.UpdateActionStatusResponse:
        return await self._update(request)

    async def update_action_status_stream(
        self, request: AsyncIterator[pb.UpdateActionStatusStreamRequest], _ctx: Context
    ) -> AsyncIterator[pb.UpdateActionStatusStreamResponse]:
        async def answer(each: pb.UpdateActionStatusStreamRequest) -> pb.UpdateActionStatusStreamResponse:
            return pb.UpdateActionStatusStreamResponse(response=await self._update(each.request), nonce=each.nonce)

        async with aclosing(pipelined(request, answer)) as answers:
            async for each in answers:
                yield each

    async def record_action_events(
        self, request: pb.RecordActionEventsRequest, _ctx: Context
    ) -> pb.RecordActionEventsResponse:
        refusal = await self.keep(request.events)
        return pb.RecordActionEventsResponse(status=status_of(refusal) if refusal else OK)

    async def record_action_event_stream(
        self, request: AsyncIterator[pb.RecordActionEventStreamRequest], _ctx: Context
    ) -> AsyncIterator[pb.RecordActionEventStreamResponse]:
        async def answer(each: pb.RecordActionEventStreamRequest) -> pb.RecordActionEventStreamResponse:
            event = each.request.event
            refusal = await self.keep([event])
            told = pb.RecordActionEventResponse(action_id=event.id, status=status_of(refusal) if refusal else OK)
            return pb.RecordActionEventStreamResponse(response=told, nonce=each.nonce)

        async with aclosing(pipelined(request, answer)) as answers:
            async for each in answers:
                yield each

    async def keep(self, events: Sequence[run_definition_pb2.ActionEvent]) -> Refusal | None:
        """Keeps the events that can be kept; what was wrong with the first that could not."""
        if len(events) > LONGEST_BATCH:
            return TooManyEvents(count=len(events), most=LONGEST_BATCH)
        wrong: Refusal | None = None
        reports: list[AttemptReport] = []
        now = self._clock()
        for event in events:
            try:
                report = event_report(event, now)
                for uri in (report.output_uri, report.report_uri):
                    if uri:
                        self._blobs.checked(uri)
                reports.append(report)
            except Refusal as refusal:
                wrong = wrong or refusal
        if not reports:
            return wrong
        try:
            return wrong or await self._outside.events(reports)
        except Refusal as refusal:  # of the database
            return wrong or refusal

    async def _record(self, request: pb.RecordActionRequest) -> pb.RecordActionResponse:
        return pb.RecordActionResponse(action_id=request.action_id, status=await _told(self._recorded(request)))

    async def _recorded(self, request: pb.RecordActionRequest) -> None:
        action = ids.action_id(request.action_id)
        if request.HasField("recovered_from"):
            raise NotYet("an action that another run's result stands for", RECOVER)
        if not request.parent:
            await self._record_run(request)
            return
        asked = actions_service_pb2.Action(
            action_id=request.action_id,
            parent_action_name=request.parent,
            input_uri=request.input_uri,
            group=request.group,
        )
        match request.WhichOneof("spec"):
            case "task":
                asked.task.CopyFrom(request.task)
            case "condition":
                asked.condition.CopyFrom(request.condition)
            case "trace":
                asked.trace.CopyFrom(request.trace)
                asked.trace.phase = request.trace.phase or phase_pb2.ACTION_PHASE_SUCCEEDED
                asked.run_output_base = (await self._reader.run(action.run)).base_uri
        await self._enqueue(asked, elsewhere=True)

    async def _record_run(self, request: pb.RecordActionRequest) -> None:
        action = ids.action_id(request.action_id)
        run = action.run
        if action.name != ROOT:
            raise NotTheRoot(name=action.name, root=ROOT)
        if request.WhichOneof("spec") is None:
            raise NotGiven(field="spec (task, trace or condition)")
        if request.WhichOneof("spec") != "task":
            raise RootNotATask(run=run.name)
        check_spec(request.task.spec)
        if request.input_uri:
            self._blobs.checked(request.input_uri)
        digest, content = spec_digest(request.task.spec)
        order = NewRun(
            id=run,
            task=summary(request.task.spec),
            spec=content,
            spec_digest=digest,
            digest=hashlib.sha256(f"{digest}\n{request.input_uri}".encode()).hexdigest(),
            input_uri=request.input_uri,
            base_uri=self._blobs.join(run.project, run.domain, run.name),
            run_spec=b"",
            created_by=enriched(Identity(request.subject)).SerializeToString() if request.subject else b"",
            created_by_subject=request.subject,
            elsewhere=True,
        )
        await self._projects.admit_write(ProjectId(run.project, run.domain, run.org))
        await self._ledger.create_run(order)

    async def _update(self, request: pb.UpdateActionStatusRequest) -> pb.UpdateActionStatusResponse:
        return pb.UpdateActionStatusResponse(action_id=request.action_id, status=await _told(self._updated(request)))

    async def _updated(self, request: pb.UpdateActionStatusRequest) -> None:
        report = status_report(request, self._clock())
        if request.HasField("output") and report.phase is Phase.SUCCEEDED:
            await self._answer(request, report)
        else:
            await self._outside.status(report, by=_principal(request))

    async def _answer(self, request: pb.UpdateActionStatusRequest, report: AttemptReport) -> None:
        action = await self._reader.action(report.attempt.action)
        if action.kind is not Kind.CONDITION:
            raise NotACondition(name=action.id.name)
        condition = run_definition_pb2.ConditionAction.FromString(action.spec)
        answer = check_literal(condition, request.output)
        await self._ledger.signal(action.id, answer, by=_principal(request))


class EventsProxyService(events_proxy_service_connect.EventsProxyService):
    """Its answer has no status: what is wrong is an error of the call, after all that could be kept was kept."""

    def __init__(self, internal: InternalRunService) -> None:
        self._internal = internal

    async def record(
        self, request: events_proxy_service_pb2.RecordRequest, _ctx: Context
    ) -> events_proxy_service_pb2.RecordResponse:
        refusal = await self._internal.keep(request.events)
        if refusal is not None:
            raise refusal
        return events_proxy_service_pb2.RecordResponse()


def _principal(request: pb.UpdateActionStatusRequest) -> bytes:
    return request.principal.SerializeToString(deterministic=True)


async def _told(work: Awaitable[None]) -> status_pb2.Status:
    """How it ended, as an answer's status."""
    try:
        await work
    except Refusal as refusal:
        return status_of(refusal)
    return OK
