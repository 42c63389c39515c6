"""QueueService: how tasks enqueue their children without `_U_USE_ACTIONS=1`."""

from flyteidl2.workflow import queue_service_connect
from flyteidl2.workflow import queue_service_pb2 as pb

from flyte_manager.ledger.ledger import Ledger
from flyte_manager.services.aborting import reason_of
from flyte_manager.services.callers import Callers
from flyte_manager.services.context import Context
from flyte_manager.services.enqueue import Enqueue
from flyte_manager.wire import ids


class QueueService(queue_service_connect.QueueService):
    def __init__(self, ledger: Ledger, enqueue: Enqueue, callers: Callers) -> None:
        self._ledger = ledger
        self._enqueue = enqueue
        self._callers = callers

    async def enqueue_action(self, request: pb.EnqueueActionRequest, _ctx: Context) -> pb.EnqueueActionResponse:
        await self._enqueue(request)
        return pb.EnqueueActionResponse()

    async def abort_queued_run(self, request: pb.AbortQueuedRunRequest, ctx: Context) -> pb.AbortQueuedRunResponse:
        await self._ledger.abort_run(ids.run_id(request.run_id), reason_of(request), by=self._callers.by(ctx))
        return pb.AbortQueuedRunResponse()

    async def abort_queued_action(
        self, request: pb.AbortQueuedActionRequest, ctx: Context
    ) -> pb.AbortQueuedActionResponse:
        await self._ledger.abort_action(ids.action_id(request.action_id), reason_of(request), by=self._callers.by(ctx))
        return pb.AbortQueuedActionResponse()
