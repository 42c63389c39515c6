"""StateService: the state document of each action, and how tasks follow their children without `_U_USE_ACTIONS=1`."""

import json
from collections.abc import AsyncIterator

from flyteidl2.workflow import state_service_connect
from flyteidl2.workflow import state_service_pb2 as pb
from google.rpc import status_pb2

from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.errors import Invalid, NotGiven
from flyte_manager.domain.lifecycle import NO_RETRIES
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.watch import Reader
from flyte_manager.services.context import Context
from flyte_manager.wire import ids
from flyte_manager.wire.phases import phase_named
from flyte_manager.wire.plan import parse_spec, retry_budget
from flyte_manager.wire.updates import SENTINEL, action_update


class BadState(Invalid):
    """state must be valid JSON, an object such as {{"phase": "PHASE_RUNNING"}}: {problem}"""


class StateService(state_service_connect.StateService):
    def __init__(self, reader: Reader, ledger: Ledger) -> None:
        self._reader = reader
        self._ledger = ledger

    async def put(self, request: pb.PutRequest, _ctx: Context) -> pb.PutResponse:
        """Keeps the document; a `phase` in it is a report like the executor's."""
        action = await self._reader.action(ids.action_id(request.action_id))
        phase = _phase_in(request.state)
        budget = NO_RETRIES
        if action.kind is Kind.TASK:
            budget = retry_budget(parse_spec(await self._reader.spec(action.spec_digest)))
        failure = told_failure(phase, "StateService.Put")
        await self._ledger.put_state(action.id, request.state, phase=phase, failure=failure, budget=budget)
        return pb.PutResponse(
            action_id=request.action_id, status=status_pb2.Status(message="state updated successfully")
        )

    async def get(self, request: pb.GetRequest, _ctx: Context) -> pb.GetResponse:
        action = await self._reader.action(ids.action_id(request.action_id))
        status = status_pb2.Status(message="state retrieved successfully")
        return pb.GetResponse(action_id=request.action_id, status=status, state=action.state)

    async def watch(self, request: pb.WatchRequest, _ctx: Context) -> AsyncIterator[pb.WatchResponse]:
        async for page in self._reader.follow_children(ids.action_id(request.parent_action_id)):
            if page is None:
                yield pb.WatchResponse(control_message=SENTINEL)
            else:
                for action in page:
                    yield pb.WatchResponse(action_update=action_update(action))


def told_failure(phase: Phase | None, door: str) -> Failure | None:
    """The failure of an attempt that another client reports as failed."""
    if phase not in (Phase.FAILED, Phase.TIMED_OUT):
        return None
    return Failure(ErrorKind.USER, "Reported", f"a client reported {phase.name} through {door}")


def _phase_in(state: str) -> Phase | None:
    """The phase that the document names. Raises NotGiven, BadState, UnknownPhase."""
    if not state:
        raise NotGiven(field="state")
    try:
        document = json.loads(state)
    except (ValueError, RecursionError) as error:
        raise BadState(problem=str(error)) from None
    if not isinstance(document, dict):
        raise BadState(problem=f"it is a {type(document).__name__}")
    name = document.get("phase")
    if name is None:
        return None
    if not isinstance(name, str):
        raise BadState(problem="its phase is not a text")
    return phase_named(name)
