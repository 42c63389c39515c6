"""The resources by which others see actions, and order them, kept in step with the rows (DESIGN.md §1).

    row without resource ─▶ make, or take the one that is there ─▶ the row keeps its name and uid
    row changed ─▶ the resource's status tells it; a final one last of all, when the attempt's log is kept
    resource deleted by somebody ─▶ the action is aborted           resource without row ─▶ recorded, and run like ours

Where there are none (local processes) the row itself is the TaskAction: RowsAlone.
"""

import logging
from dataclasses import replace
from typing import Protocol

from flyte_manager.domain.actions import Action, ActionHistory, Resource
from flyte_manager.domain.attempts import ErrorKind, Failure, Presence
from flyte_manager.domain.errors import Ended, Exists, Invalid, Missing, Unavailable, UnknownAction, UnknownRun
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.orders import NewRun
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import FoundAction, Runtime, Standing, TaskActions
from flyte_manager.executor.foreign import ForeignOrders
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.watch import Reader

log = logging.getLogger(__name__)


class ParentWithoutResource(Unavailable):
    """the parent of {action} has no TaskAction yet; it is tried again."""


class ParentNotHere(Unavailable):
    """TaskAction {name} waits for its parent: {problem}"""


class Resources(Protocol):
    """What reconcile asks for beside the runtime."""

    async def hold(self, action: Action) -> Action | None:
        """The action with its resource, as its row is by then; None when the resource was deleted, so that the action
        is aborted now. Raises LaunchRefused, and Unavailable while there can't be one."""

    async def show(self, action: Action) -> None:
        """Lets the resource tell what the rows tell now."""

    async def record(self, key: ActionId) -> None:
        """Gives a row to an action that somebody ordered by a resource."""


class RowsAlone:
    """Implements Resources where the row is all there is."""

    async def hold(self, action: Action) -> Action | None:
        return action

    async def show(self, action: Action) -> None:
        """Nobody looks."""

    async def record(self, key: ActionId) -> None:
        """Nobody orders by other means than the API."""


class Mirrored:
    """Implements Resources with TaskActions."""

    def __init__(
        self,
        *,
        objects: TaskActions,
        reader: Reader,
        ledger: Ledger,
        runtime: Runtime,
        foreign: ForeignOrders,
    ) -> None:
        self._objects = objects
        self._reader = reader
        self._ledger = ledger
        self._runtime = runtime
        self._foreign = foreign

    async def hold(self, action: Action) -> Action | None:
        standing = await self._objects.standing(action)
        if standing is Standing.STANDS:
            return action
        if standing is Standing.DELETED:
            if action.final:
                return action
            name = action.resource.name if action.resource else action.id.name
            await self._ledger.abort_action(action.id, f"its TaskAction {name} was deleted")
            return None
        resource = self._objects.known(action.id)
        if resource is None:
            if action.final:  # nobody ever saw it
                return action
            resource = await self._make(action)
        return await self._ledger.place(action.id, resource)

    async def show(self, action: Action) -> None:
        if action.resource is None or self._objects.shows(action):
            return
        history = await self._reader.history(action.id)
        seen = history.action
        if seen.kind is Kind.TASK and seen.final:
            await self._runtime.settle(seen.attempt_id)
        self._tell(action.resource, history)
        await self._objects.show(history)

    async def record(self, key: ActionId) -> None:
        found = self._objects.found(key)
        if found is None:
            return
        if found.problem:
            await self._stop_all(key)
        try:
            order = await self._foreign.order(found)
            if isinstance(order, NewRun):
                await self._ledger.create_run(order, failure=_failure(found))
            else:
                await self._ledger.enqueue(order, failure=_failure(found))
        except (UnknownRun, UnknownAction) as missing:  # applied together, they come in any order
            self._objects.tell(found.resource, "WaitsForParent", str(missing), warning=True)
            raise ParentNotHere(name=found.resource.name, problem=str(missing)) from None
        except (Invalid, Missing, Exists, Ended) as refusal:
            log.warning("TaskAction %s can't be run: %s", found.resource.name, refusal)
            await self._objects.refuse(found, str(refusal))
            return
        await self._ledger.place(key, found.resource)

    async def _stop_all(self, key: ActionId) -> None:
        """Attempts of an action whose record is gone."""
        attempt = AttemptId(key, 1)
        while (seen := await self._runtime.observe(attempt)).presence is not Presence.ABSENT:
            if seen.presence is Presence.ALIVE:
                await self._runtime.stop(attempt)
            attempt = replace(attempt, number=attempt.number + 1)

    async def _make(self, action: Action) -> Resource:
        run = await self._reader.run(action.id.run)
        parent = None
        if action.parent:
            above = await self._reader.action(ActionId(action.id.run, action.parent))
            parent = above.resource
            if parent is None and not above.elsewhere:
                raise ParentWithoutResource(action=action.id)
        spec = await self._reader.spec(action.spec_digest) if action.kind is Kind.TASK else action.spec
        return await self._objects.make(action, run, spec=spec, parent=parent)

    def _tell(self, resource: Resource, history: ActionHistory) -> None:
        """What went wrong, as events; each has one name, so that telling it again is no news."""
        action = history.action
        for attempt in history.attempts:
            if attempt.failure is not None:
                text = f"attempt {attempt.id.number}: {attempt.failure.code}: {attempt.failure.message}"
                self._objects.tell(resource, "AttemptFailed", text, warning=True)
        if action.phase is Phase.ABORTED:
            self._objects.tell(resource, "Aborted", action.reason or "aborted", warning=True)


def _failure(found: FoundAction) -> Failure | None:
    """Why it can't be run, if it can't; recorded together with it, so that no crash leaves it without."""
    if not found.problem:
        return None
    return Failure(ErrorKind.USER, "InvalidSpec", found.problem, recoverable=False)
