"""Recording a child action, as QueueService and ActionsService both do."""

from dataclasses import dataclass, replace

from flyteidl2.actions import actions_service_pb2
from flyteidl2.workflow import queue_service_pb2

from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.errors import Invalid, NotGiven
from flyte_manager.domain.features import QUEUES, RECOVER, NotYet
from flyte_manager.domain.orders import NewAction
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Blobs
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.wire.orders import new_action
from flyte_manager.wire.updates import read_error


class WebhookAsked(Invalid):
    """condition {name!r} asks for a webhook, which this manager does not call: leave it out, and tell whoever answers
    before you wait (`flyte signal condition RUN ACTION VALUE` answers it)."""


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
        unsupported = None if elsewhere else _unsupported(asked)
        await self.ledger.enqueue(order, failure=unsupported or await self._trace_failure(order))

    async def _trace_failure(self, order: NewAction) -> Failure | None:
        """A failed trace carries no error in the request: it lies beside its inputs (sdk-contract.md §5.1)."""
        if order.kind is not Kind.TRACE or order.phase is not Phase.FAILED:
            return None
        if not order.base_uri:
            raise NotGiven(field="run_output_base (a failed trace's error.pb lies below it)")
        failure = await read_error(self.blobs, f"{order.base_uri.rstrip('/')}/{order.id.name}/error.pb")
        return failure or Failure(ErrorKind.USER, "TraceFailed", "the trace failed and left no error.pb")


def _unsupported(asked: queue_service_pb2.EnqueueActionRequest | actions_service_pb2.Action) -> Failure | None:
    """Why the task can't be run as asked: it fails with that, because the SDK tries a call that is UNIMPLEMENTED again
    for minutes. Raises NotYet, WebhookAsked."""
    if isinstance(asked, actions_service_pb2.Action) and asked.HasField("recovered_from"):
        raise NotYet("an action that another run's result stands for", RECOVER)
    if asked.condition.HasField("webhook"):
        raise WebhookAsked(name=asked.condition.name)
    if not asked.task.queue:
        return None
    problem = NotYet(f"a task in queue {asked.task.queue[:80]!r}", QUEUES)
    return Failure(ErrorKind.USER, "InvalidSpec", str(problem), recoverable=False)
