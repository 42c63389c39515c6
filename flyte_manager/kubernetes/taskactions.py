"""TaskActions: made from rows, told what the rows tell, found when others made them.

    make ── name free ─▶ created              show ── the version that was seen ─▶ patched
      └─ taken: this very action? ─▶ adopted    └─ another one by now: look, try again; gone: fine
               another's? ─▶ a second name

All that is kept in memory comes by the informer, and what our own requests answer goes there at once, so that the watch
event that follows is no news. What others do is news: an object that is new, deleted, ordered otherwise, or whose
status is no longer what the manager wrote wakes its action.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flyte_manager.domain import ports
from flyte_manager.domain.actions import Action, ActionHistory, Resource, Run
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.ports import FoundAction, LaunchRefused, Standing
from flyte_manager.kubernetes import bodies, orders, status
from flyte_manager.kubernetes.api_errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from flyte_manager.kubernetes.bodies import Making
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.crd import INSTALL
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.informer import Informer
from flyte_manager.kubernetes.objects import Kept, kept
from flyte_manager.kubernetes.permissions import rule_text
from flyte_manager.kubernetes.resources import TASK_ACTIONS

log = logging.getLogger(__name__)

PATCH_TRIES = 5

NO_RECORD = (
    "the record of this action is gone: this manager's database, which it was made from, knows nothing of it. Start "
    "the run again"
)


class TaskActionRefused(LaunchRefused):
    """the cluster refuses the TaskAction: {words}"""


class TaskActionsNotAllowed(LaunchRefused):
    """this manager may not create TaskActions: {words} (its Role needs the rule {rule})"""


class NamesTaken(LaunchRefused):
    """TaskActions {first} and {second} are there already and belong to others: delete one (`kubectl delete taskaction
    {first}`), then start the run again."""


class NoRoom(Unavailable):
    """the namespace's quota has no room for the TaskAction: {words}"""


class KindMissing(Unavailable):
    """the cluster has no TaskActions: install their definition with `{install}`. It is tried again."""


class NamespaceMissing(Unavailable):
    """the cluster has no namespace {namespace}: `kubectl create namespace {namespace}`. It is tried again."""


class StillLeaving(Unavailable):
    """a TaskAction {name} is being deleted; it is made anew when it is gone. `kubectl describe taskaction {name}` shows
    what it waits for."""


class KeepsChanging(Unavailable):
    """TaskAction {name} was changed by somebody else each time that its status was written; it is tried again."""


class TaskActionObjects:
    """Implements ports.TaskActions. `wake` is called on the loop; `run` must run for anything to be seen."""

    def __init__(
        self,
        *,
        client: Client,
        namespace: str,
        wake: Callable[[ActionId], None],
        recorder: Recorder,
        clock: ports.Clock,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._wake = wake
        self._recorder = recorder
        self._clock = clock
        self._by_uid: dict[str, Kept] = {}
        self._by_action: dict[ActionId, tuple[Kept, ...]] = {}
        self._own_doing = False
        self._informer = Informer(client, TASK_ACTIONS, namespace=namespace, keep=kept, changed=self._changed)

    async def run(self) -> None:
        """Works until it is cancelled."""
        await self._informer.run()

    async def synced(self) -> None:
        """Waits until all TaskActions are known: before that too much is asked of the API server."""
        await self._informer.synced.wait()

    def all(self) -> list[Kept]:
        """All TaskActions that are known, for the Collector."""
        return list(self._by_uid.values())

    async def standing(self, action: Action) -> Standing:
        resource = action.resource
        if resource is None:
            return Standing.NEVER_MADE
        await self._refuse_others(action.id, resource)
        seen = self._by_uid.get(resource.uid)
        if seen is None or seen.leaving:
            seen = await self._look(resource)
        return Standing.DELETED if seen is None or seen.leaving else Standing.STANDS

    async def make(self, action: Action, run: Run, *, spec: bytes, parent: Resource | None) -> Resource:
        making = Making(action, run, spec, parent)
        names = (bodies.object_name(action.id), bodies.other_name(action.id))
        for name in names:
            seen = await self._create(bodies.body(making, name))
            if seen.id != action.id or seen.final:
                continue  # another's, or left over from before the database was made anew
            if seen.leaving:
                raise StillLeaving(name=name)
            return seen.resource
        raise NamesTaken(first=names[0], second=names[1])

    def known(self, action: ActionId) -> Resource | None:
        seen = next(self._candidates(action), None)
        return seen.resource if seen else None

    def shows(self, action: Action) -> bool:
        seen = self._by_uid.get(action.resource.uid) if action.resource else None
        return seen is not None and seen.row == status.digest(action)

    async def show(self, history: ActionHistory) -> None:
        if history.action.resource and not self.shows(history.action):
            await self._patch(history.action.resource, status.patch(status.status(history)))

    def tell(self, resource: Resource, reason: str, message: str, *, warning: bool) -> None:
        self._recorder.tell(resource, reason, message, warning=warning)

    def found(self, action: ActionId) -> FoundAction | None:
        for seen in self._candidates(action):
            if seen.order is not None:
                return orders.order(seen.resource, seen.order["spec"], seen.order["metadata"])
            return FoundAction(seen.resource, seen.id, parent=seen.parent, problem=NO_RECORD)
        return None

    async def refuse(self, found: FoundAction, problem: str) -> None:
        await self._patch(found.resource, status.patch(status.invalid(found.problem or problem, self._clock())))
        self._recorder.tell(found.resource, status.INVALID_SPEC, found.problem or problem, warning=True)

    async def delete(self, seen: Kept) -> None:
        """Deletes it as it was seen, with all that it owns. One that is gone, or has changed since, is no error."""
        try:
            await self._client.delete(
                TASK_ACTIONS,
                seen.name,
                namespace=self._namespace,
                uid=seen.uid,
                resource_version=seen.version,
                propagation="Background",
            )
        except (NotFound, Conflict) as error:
            log.debug("TaskAction %s is not deleted: %s", seen.name, error)

    def _candidates(self, action: ActionId) -> Iterator[Kept]:
        """Those that may stand for the action, what waits for its record first, then the oldest."""
        live = (each for each in self._by_action.get(action, ()) if not each.final and not each.leaving)
        yield from sorted(live, key=lambda each: (each.order is None, each.created_at, each.name))

    async def _create(self, body: bodies.Body) -> Kept:
        """What is there under that name now."""
        name = body["metadata"]["name"]
        try:
            return self._put(await self._client.create(TASK_ACTIONS, body, namespace=self._namespace))
        except AlreadyExists:
            found = await self._get(name)
            if found is None:
                raise StillLeaving(name=name) from None
            return found
        except Invalid as error:
            raise TaskActionRefused(words=error.words) from error
        except NotFound as error:
            raise self._missing(error) from error
        except Forbidden as error:
            if error.quota:
                raise NoRoom(words=error.words) from error
            if not error.rule:
                raise TaskActionRefused(words=error.words) from error
            rule = rule_text(TASK_ACTIONS.group, TASK_ACTIONS.plural)
            raise TaskActionsNotAllowed(words=error.words, rule=rule) from error

    def _missing(self, error: NotFound) -> Unavailable:
        if error.words.startswith("namespaces "):
            return NamespaceMissing(namespace=self._namespace)
        return KindMissing(install=INSTALL)

    async def _patch(self, resource: Resource, patch: Mapping[str, Any]) -> None:
        """Only that very object is changed: the version says which one it is."""
        seen = self._by_uid.get(resource.uid) or await self._look(resource)
        for _ in range(PATCH_TRIES):
            if seen is None:
                return
            document = {**patch, "metadata": {"resourceVersion": seen.version}}
            try:
                answer = await self._client.patch(
                    TASK_ACTIONS, seen.name, document, namespace=self._namespace, subresource="status"
                )
            except NotFound:
                return
            except Conflict:
                seen = await self._look(resource)
                continue
            self._put(answer)
            return
        raise KeepsChanging(name=resource.name)

    async def _look(self, resource: Resource) -> Kept | None:
        """Asks the API server itself; None when that very object is gone."""
        found = await self._get(resource.name)
        return found if found is not None and found.uid == resource.uid else None

    async def _get(self, name: str) -> Kept | None:
        try:
            return self._put(await self._client.get(TASK_ACTIONS, name, namespace=self._namespace))
        except NotFound as error:
            if not error.kind_known:
                raise self._missing(error) from error
            return None

    def _put(self, found: Mapping[str, Any]) -> Kept:
        """Makes it known without waking anybody; a newer state that is known already stays."""
        self._own_doing = True
        try:
            self._informer.put(found)
        finally:
            self._own_doing = False
        return kept(found)

    async def _refuse_others(self, action: ActionId, resource: Resource) -> None:
        """Somebody may have made a second TaskAction for an action that has one."""
        for each in self._by_action.get(action, ()):
            if each.order is not None and each.uid != resource.uid:
                problem = f"action {action} is recorded already, with TaskAction {resource.name} of uid {resource.uid}"
                await self.refuse(FoundAction(each.resource, action), problem)

    def _changed(self, _: str, old: Kept | None, new: Kept | None) -> None:
        """What the informer tells; None for what was not there before, or is no more."""
        if old is not None:
            self._remove(old)
        if new is not None:
            self._add(new)
        about = new or old
        if about is not None and not self._own_doing and self._is_news(old, new):
            self._wake(about.id)

    def _is_news(self, old: Kept | None, new: Kept | None) -> bool:
        if new is None:
            return old is not None and not old.final
        if old is None or old.uid != new.uid:
            # ours are made by reconcile; those that are there at the start are looked at, their rows may be gone
            return not new.final and not (new.ours and self._informer.synced.is_set())
        return new.leaving > old.leaving or bool(old.row and not new.row) or (not new.final and new.order != old.order)

    def _add(self, new: Kept) -> None:
        self._by_uid[new.uid] = new
        self._by_action[new.id] = (*self._by_action.get(new.id, ()), new)

    def _remove(self, old: Kept) -> None:
        self._by_uid.pop(old.uid, None)
        left = tuple(each for each in self._by_action.get(old.id, ()) if each.uid != old.uid)
        if left:
            self._by_action[old.id] = left
        else:
            self._by_action.pop(old.id, None)
