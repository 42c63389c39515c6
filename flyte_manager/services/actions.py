"""ActionsService: how tasks enqueue and follow their children with `_U_USE_ACTIONS=1`."""

from collections.abc import AsyncIterator

from flyteidl2.actions import actions_service_connect
from flyteidl2.actions import actions_service_pb2 as pb
from flyteidl2.workflow import run_definition_pb2

from flyte_manager.domain.attempts import AttemptReport
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.lifecycle import NO_RETRIES
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.ports import Clock
from flyte_manager.ledger.ledger import Ledger, NotACondition
from flyte_manager.ledger.watch import Reader
from flyte_manager.services.aborting import reason_of
from flyte_manager.services.callers import Callers
from flyte_manager.services.context import Context
from flyte_manager.services.enqueue import Enqueue
from flyte_manager.services.state import told_failure
from flyte_manager.wire import ids
from flyte_manager.wire.caching import status_of
from flyte_manager.wire.conditions import check_literal
from flyte_manager.wire.phases import phase_of
from flyte_manager.wire.plan import parse_spec, retry_budget
from flyte_manager.wire.updates import SENTINEL, action_update


class ActionsService(actions_service_connect.ActionsService):
    def __init__(self, *, reader: Reader, ledger: Ledger, enqueue: Enqueue, callers: Callers, clock: Clock) -> None:
        self._reader = reader
        self._ledger = ledger
        self._enqueue = enqueue
        self._callers = callers
        self._clock = clock

    async def enqueue(self, request: pb.EnqueueRequest, _ctx: Context) -> pb.EnqueueResponse:
        if not request.HasField("action"):
            raise NotGiven(field="action")
        await self._enqueue(request.action)
        return pb.EnqueueResponse()

    async def watch_for_updates(
        self, request: pb.WatchForUpdatesRequest, _ctx: Context
    ) -> AsyncIterator[pb.WatchForUpdatesResponse]:
        async for page in self._reader.follow_children(ids.action_id(request.parent_action_id)):
            if page is None:
                yield pb.WatchForUpdatesResponse(control_message=SENTINEL)
            else:
                for action in page:
                    yield pb.WatchForUpdatesResponse(action_update=action_update(action))

    async def update(self, request: pb.UpdateRequest, _ctx: Context) -> pb.UpdateResponse:
        """A report about an attempt by another client; attempt 0 means the present one."""
        action = await self._reader.action(ids.action_id(request.action_id))
        phase = phase_of(request.status.phase)
        attempt = AttemptId(action.id, request.attempt or action.attempt)
        told = AttemptReport(
            attempt,
            phase,
            self._clock(),
            failure=told_failure(phase, "ActionsService.Update"),
            cache_status=status_of(request.status.cache_status),
        )
        budget = NO_RETRIES
        if action.kind is Kind.TASK:
            budget = retry_budget(parse_spec(await self._reader.spec(action.spec_digest)))
        await self._ledger.report(told, budget)
        return pb.UpdateResponse()

    async def abort(self, request: pb.AbortRequest, ctx: Context) -> pb.AbortResponse:
        by = self._callers.by(ctx, request.aborted_by)
        await self._ledger.abort_action(ids.action_id(request.action_id), reason_of(request), by=by)
        return pb.AbortResponse()

    async def signal(self, request: pb.SignalRequest, ctx: Context) -> pb.SignalResponse:
        action = await self._reader.action(ids.action_id(request.action_id))
        if action.kind is not Kind.CONDITION:
            raise NotACondition(name=action.id.name)
        condition = run_definition_pb2.ConditionAction.FromString(action.spec)
        by = self._callers.by(ctx, request.signalled_by)
        await self._ledger.signal(action.id, check_literal(condition, request.value), by=by)
        return pb.SignalResponse()
