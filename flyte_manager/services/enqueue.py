"""Recording a child action, as QueueService and ActionsService both do."""

from dataclasses import dataclass, replace

from flyteidl2.actions import actions_service_pb2
from flyteidl2.workflow import queue_service_pb2

from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.orders import NewAction
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Blobs
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.wire.orders import new_action
from flyte_manager.wire.updates import read_error


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Calls `ledger.enqueue` with what the request says."""

    ledger: Ledger
    blobs: Blobs

    async def __call__(
        self,
        asked: queue_service_pb2.EnqueueActionRequest | actions_service_pb2.Action,
        *,
        elsewhere: bool = False,
    ) -> None:
        """`elsewhere`: another executor runs it."""
        order = replace(new_action(asked), elsewhere=elsewhere)
        for uri in (order.input_uri, order.output_uri):
            if uri:
                self.blobs.checked(uri)
        await self.ledger.enqueue(order, failure=await self._trace_failure(order))

    async def _trace_failure(self, order: NewAction) -> Failure | None:
        """A failed trace carries no error in the request: it lies beside its inputs (sdk-contract.md §5.1)."""
        if order.kind is not Kind.TRACE or order.phase is not Phase.FAILED:
            return None
        if not order.base_uri:
            raise NotGiven(field="run_output_base (a failed trace's error.pb lies below it)")
        failure = await read_error(self.blobs, f"{order.base_uri.rstrip('/')}/{order.id.name}/error.pb")
        return failure or Failure(ErrorKind.USER, "TraceFailed", "the trace failed and left no error.pb")
