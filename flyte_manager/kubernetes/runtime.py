"""The world of pods: a pod per attempt, all knowledge in the cluster, an index of it here.

    launch   create; a pod of that name that is this attempt's is taken as ours
    observe  index ─▶ verdict.py │ not there: never begun ─▶ ABSENT │ begun ─▶ a live look ─▶ verdict.py │ VANISHED
    stop     delete, while its log is followed to the end
    settle   keep the log, then delete what still runs of the pod; a finished pod goes with its TaskAction

"Not in the index" is never taken for "gone": the informer may be late. What was deleted is remembered for a while with
its last state, which usually tells how it ended. A change wakes the attempt when it can change the verdict; where time
alone can, a timer does.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from flyte_manager.domain import ports
from flyte_manager.domain.attempts import Observation, Presence
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes import endings, labels, pods, verdict
from flyte_manager.kubernetes.api_errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.events import PodEvents, Recorder, pod_event
from flyte_manager.kubernetes.informer import Informer
from flyte_manager.kubernetes.log_tail import Tail
from flyte_manager.kubernetes.logs import LIMIT, KeptLogs
from flyte_manager.kubernetes.permissions import rule_text
from flyte_manager.kubernetes.pod_status import Pod, kept
from flyte_manager.kubernetes.resources import EVENTS, POD_TEMPLATES, PODS
from flyte_manager.kubernetes.verdict import VerdictSettings

MOST_GRACE_SECONDS = 30
_GONE_REMEMBERED = 5000
_TIMER_SLACK_SECONDS = 0.05


class PodRefused(ports.LaunchRefused):
    """the cluster refuses the pod: {words}"""


class PodNameTaken(ports.LaunchRefused):
    """pod {name!r} is there already and does not belong to this attempt: delete it (`kubectl delete pod {name}`), then
    start the run again."""


class PodsNotAllowed(ports.LaunchRefused):
    """this manager may not create pods: {words} (its Role needs the rule {rule})"""


class PodNotTaken(Unavailable):
    """the cluster does not take the pod yet: {words}"""


class QuotaExceeded(ports.LaunchDelayed):
    """the namespace's quota has no room for the pod: {words}"""


class Pods:
    """Implements ports.Runtime and ports.Logs. `wake` is called on the loop; `run` must run for anything to be seen."""

    def __init__(
        self,
        *,
        client: Client,
        pod_settings: pods.PodSettings,
        verdict_settings: VerdictSettings,
        blobs: ports.Blobs,
        wake: ports.Wake,
        clock: ports.Clock,
        recorder: Recorder | None = None,
        log_limit: int = LIMIT,
    ) -> None:
        self._client = client
        self._pod_settings = pod_settings
        self._verdict_settings = verdict_settings
        self._namespace = pod_settings.namespace
        self._wake = wake
        self._clock = clock
        self._recorder = recorder
        self._pods: dict[AttemptId, Pod] = {}
        self._attempts: dict[str, AttemptId] = {}
        self._gone: OrderedDict[AttemptId, Pod] = OrderedDict()
        self._told: set[AttemptId] = set()
        """which pods were told to stop by this manager, as long as they are remembered"""
        self._timers: dict[AttemptId, asyncio.TimerHandle] = {}
        self._logs = KeptLogs(
            source=self._open_log,
            blobs=blobs,
            latest=lambda attempt: self._pods.get(attempt) or self._gone.get(attempt),
            why=self._why_failed,
            clock=clock,
            limit=log_limit,
        )
        self._events = PodEvents(self._warned)
        self._pod_informer = Informer(
            client,
            PODS,
            namespace=self._namespace,
            selector=labels.MANAGED_SELECTOR,
            keep=kept,
            changed=self._changed,
        )
        self._event_informer = Informer[None](
            client,
            EVENTS,
            namespace=self._namespace,
            fields="involvedObject.kind=Pod",
            keep=self._hear,
            changed=lambda *_: None,
        )

    async def run(self) -> None:
        """Works until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pod_informer.run(), name="pods")
                group.create_task(self._event_informer.run(), name="pods' events")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            await self._logs.stop()

    async def synced(self) -> None:
        """Waits until all pods are known: before that `observe` must not be asked."""
        await self._pod_informer.synced.wait()

    async def launch(self, launch: ports.Launch) -> None:
        if launch.attempt in self._pods:
            return
        document = pods.build(launch, settings=self._pod_settings, template=await self._template(launch))
        name = document["metadata"]["name"]
        if launch.notes:
            document["metadata"]["annotations"][labels.NOTES] = "\n".join(launch.notes)
        try:
            found: Mapping[str, Any] = await self._client.create(PODS, document)
        except AlreadyExists:
            found = await self._taken(launch, name)
        except Invalid as error:
            raise PodRefused(words=error.words) from error
        except Forbidden as error:
            raise _refusal(error) from error
        except ApiError as error:
            raise PodNotTaken(words=error.words) from error
        self._take(found)
        if self._recorder and launch.resource:
            self._recorder.tell(launch.resource, "PodCreated", f"attempt {launch.attempt.number} runs in pod {name}")

    async def observe(self, attempt: AttemptId, *, begun: bool = False) -> Observation:
        pod = self._pods.get(attempt)
        if pod is None:
            gone = self._gone.get(attempt)
            if gone is None and not begun:
                return Observation(Presence.ABSENT)
            if gone is None or not gone.over:
                pod = await self._look(attempt)
            if pod is None:
                return self._vanished(attempt, gone)
        judged = verdict.judge(pod, now=self._clock(), settings=self._verdict_settings)
        self._look_again(attempt, judged.again)
        if pod.held_up and pod.delete_at is None:
            await self._delete(pod, pod.grace_seconds)
        return self._with_events(pod, judged.observation)

    async def stop(self, attempt: AttemptId) -> None:
        pod = self._pods.get(attempt)
        if pod is None or pod.all_over:
            asyncio.get_running_loop().call_soon(self._wake, attempt)
            return
        self._told.add(attempt)
        self._logs.keep_to_the_end(pod)  # also of one that was deleted before a restart
        if pod.delete_at is None or (pod.delete_at - self._clock()).total_seconds() > 2 * MOST_GRACE_SECONDS:
            await self._delete(pod, min(pod.grace_seconds, MOST_GRACE_SECONDS))

    async def settle(self, attempt: AttemptId) -> None:
        """Raises LogUnread."""
        pod = self._pods.get(attempt)
        if pod is None:
            await self._logs.finish(attempt)
            return
        seen = verdict.observe(pod, now=self._clock(), settings=self._verdict_settings)
        if seen.presence is Presence.VANISHED:
            await self._logs.give_up(pod, "The log could not be read: its node does not answer.")
            await self._delete(pod, 0)
        elif seen.presence is Presence.EXITED:
            await self._logs.keep(pod)
            if not pod.all_over and pod.delete_at is None:
                await self._delete(pod, min(pod.grace_seconds, MOST_GRACE_SECONDS))

    async def forget(self, attempt: AttemptId, results: bytes) -> None:
        """A pod's files went with it."""

    def tail(
        self, attempt: AttemptId, *, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[Sequence[ports.LogLine]]:
        reader = Tail(
            attempt,
            kept=self._logs,
            source=self._open_log,
            find=self._pods.get,
            says=self._says,
            clock=self._clock,
        )
        return reader.run(ended)

    def alive(self) -> list[AttemptId]:
        """Attempts whose pods have not ended."""
        return [attempt for attempt, pod in self._pods.items() if not pod.over]

    def _take(self, document: Mapping[str, Any]) -> None:
        """Into the cache, unless its deletion was told before the answer came."""
        pod = kept(document)
        gone = self._gone.get(pod.attempt) if pod else None
        if pod and (gone is None or gone.uid != pod.uid):
            self._pod_informer.put(document)

    def _hear(self, document: Mapping[str, Any]) -> None:
        """Of an event; the informer need not keep it."""
        if told := pod_event(document):
            self._events.tell(told)

    def _changed(self, _: str, old: Pod | None, new: Pod | None) -> None:
        """What the informer tells; None for what was not there before, or is no more."""
        if new is None:
            if old is not None:
                self._removed(old)
            return
        known = self._pods.get(new.attempt)
        if known is not None and known.uid != new.uid and known.created_at <= new.created_at:
            return  # somebody's copy of the attempt's pod
        self._pods[new.attempt] = new
        self._attempts[new.uid] = new.attempt
        self._gone.pop(new.attempt, None)
        if known != new and not (known is not None and known.over):
            self._wake(new.attempt)

    def _removed(self, old: Pod) -> None:
        self._attempts.pop(old.uid, None)
        known = self._pods.get(old.attempt)
        if known is None or known.uid != old.uid:
            return
        del self._pods[old.attempt]
        self._gone[old.attempt] = old
        if len(self._gone) > _GONE_REMEMBERED:
            self._told.discard(self._gone.popitem(last=False)[0])
        if timer := self._timers.pop(old.attempt, None):
            timer.cancel()
        if not known.over:
            self._wake(old.attempt)

    def _warned(self, uid: str) -> None:
        attempt = self._attempts.get(uid)
        if attempt is not None and not self._pods[attempt].over:
            self._wake(attempt)

    def _look_again(self, attempt: AttemptId, after: float | None) -> None:
        if timer := self._timers.pop(attempt, None):
            timer.cancel()
        if after is not None:
            loop = asyncio.get_running_loop()
            self._timers[attempt] = loop.call_later(after + _TIMER_SLACK_SECONDS, self._time_is_up, attempt)

    def _time_is_up(self, attempt: AttemptId) -> None:
        del self._timers[attempt]
        self._wake(attempt)

    async def _look(self, attempt: AttemptId) -> Pod | None:
        """Asks the API server itself."""
        found = await self._client.list(
            PODS, namespace=self._namespace, selector=labels.selector(labels.of_attempt(attempt))
        )
        for document in found:
            self._take(document)
        return self._pods.get(attempt)

    def _vanished(self, attempt: AttemptId, gone: Pod | None) -> Observation:
        if gone is None:
            run = attempt.action.run.name
            failure = endings.deleted_externally(f"of attempt {attempt.number} of {run}/{attempt.action.name}")
            return Observation(Presence.VANISHED, failure=failure)
        if gone.over:
            seen = verdict.observe(gone, now=self._clock(), settings=self._verdict_settings)
        else:
            seen = replace(
                verdict.observe(gone, now=self._clock(), settings=self._verdict_settings),
                presence=Presence.VANISHED,
                reason="",
                failure=endings.removed(gone),
            )
        return self._with_events(gone, seen)

    def _with_events(self, pod: Pod, seen: Observation) -> Observation:
        events = self._events.of(pod.uid)
        reason = seen.reason
        if seen.presence is Presence.ALIVE and seen.phase is Phase.INITIALIZING:
            warning = self._events.last_warning(pod.uid)
            if warning and warning not in reason:  # volumes that don't come are told in events only
                reason = f"{reason}: {warning}"
        return replace(seen, events=events, reason=reason)

    def _says(self, pod: Pod) -> str:
        seen = self._with_events(pod, verdict.observe(pod, now=self._clock(), settings=self._verdict_settings))
        return seen.failure.message if seen.failure else seen.reason

    def _why_failed(self, pod: Pod) -> str:
        if pod.attempt in self._told:
            return "The attempt was stopped."
        seen = verdict.observe(pod, now=self._clock(), settings=self._verdict_settings)
        return seen.failure.message if seen.failure else ""

    async def _template(self, launch: ports.Launch) -> Mapping[str, Any] | None:
        name = pods.needs_template(launch, self._pod_settings)
        if name is None:
            return None
        try:
            return await self._client.get(POD_TEMPLATES, name, namespace=self._namespace)
        except NotFound:
            return None  # which `build` refuses

    async def _taken(self, launch: ports.Launch, name: str) -> Mapping[str, Any]:
        """The pod that has the name, when it is this attempt's."""
        found = await self._client.get(PODS, name, namespace=self._namespace)
        metadata = found["metadata"]
        owners = [owner.get("uid") for owner in metadata.get("ownerReferences") or ()]
        ours = labels.attempt_of(metadata.get("labels") or {}) == launch.attempt
        if not ours or launch.resource is None or launch.resource.uid not in owners:
            raise PodNameTaken(name=name)
        return found

    async def _delete(self, pod: Pod, grace_seconds: int) -> None:
        """A pod that is gone already, or was replaced by another one of its name, is no error."""
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(
                PODS, pod.name, namespace=self._namespace, uid=pod.uid, grace_seconds=grace_seconds
            )

    def _open_log(
        self, pod: Pod, container: str, *, follow: bool, since: datetime | None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._client.open_log(
            pod.name, container, namespace=self._namespace, follow=follow, timestamps=True, since=since
        )


def _refusal(error: Forbidden) -> ports.LaunchRefused | QuotaExceeded:
    if error.quota:
        return QuotaExceeded(words=error.words)
    if error.rule:
        return PodsNotAllowed(words=error.words, rule=rule_text("", "pods"))
    return PodRefused(words=error.words)
