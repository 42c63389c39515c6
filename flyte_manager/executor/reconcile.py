"""One action: read its row, look at the world, do what `domain.lifecycle` decides, report. READ THIS to know how an
action runs; everything here may run any number of times.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure, Observation, Presence, Transition
from flyte_manager.domain.errors import Invalid, Refusal, TooLarge, Unavailable, UnknownAction
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.lifecycle import Do, Step
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Clock, LaunchDelayed, LaunchRefused, Runtime, Unsettled
from flyte_manager.domain.tasks import TaskPlan
from flyte_manager.executor.admission import DEFAULT_CPU, DEFAULT_MEMORY, Admission, Demand
from flyte_manager.executor.caching import UNCACHED, Caching, Looked
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.executor.launching import Launching
from flyte_manager.executor.outcome import Outcomes, running, sharpened
from flyte_manager.executor.plans import Plans
from flyte_manager.executor.resources import ParentWithoutResource, Resources
from flyte_manager.executor.rows import Rows
from flyte_manager.executor.sleeping import Sleeping
from flyte_manager.executor.timing import Timing
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.watch import Reader
from flyte_manager.wire.conditions import timeout_seconds
from flyte_manager.wire.data import Unreadable
from flyte_manager.wire.sleep import SLEEP

log = logging.getLogger(__name__)

STOP_CHECK_SECONDS = 0.2
"""how long to wait for a former attempt's process to end"""

SETTLE_CHECK_SECONDS = 10.0
"""how long to wait before asking again for the log of an attempt that can't be read"""

PARENT_CHECK_SECONDS = 0.05
ROOM_CHECK_SECONDS = 5.0
"""how long to wait before asking again a world that has no room"""


class Reconciler:
    """Makes the world match the rows, one action at a time."""

    def __init__(
        self,
        *,
        reader: Reader,
        ledger: Ledger,
        runtime: Runtime,
        admission: Admission,
        plans: Plans,
        launching: Launching,
        outcomes: Outcomes,
        resources: Resources,
        clock: Clock,
        timing: Timing,
        caching: Caching,
    ) -> None:
        self._rows = Rows(reader, ledger)
        self._ledger = ledger
        self._runtime = runtime
        self._admission = admission
        self._plans = plans
        self._launching = launching
        self._outcomes = outcomes
        self._resources = resources
        self._clock = clock
        self._timing = timing
        self._caching = caching
        self._sleeping = Sleeping(reader, ledger, plans, timing, outcomes.blobs, clock)

    async def list_all(self) -> Iterable[ActionId]:
        """All that must be looked at: what has not ended in the rows, but for those in line: their turn wakes them."""
        live = await self._rows.live()
        for action in live:
            self._admission.track(action)
        return [action.id for action in live if not action.elsewhere and not self._admission.waits(action.id)]

    def changed(self, action: Action) -> bool:
        """Takes note of what was written of an action. Whether that needs a turn: what the executor has not to do with
        needs none, nor does who stands in line, since the turn in which it was put there has looked at all else."""
        self._admission.track(action)
        waits = action.phase is Phase.WAITING_FOR_RESOURCES and self._admission.waits(action.id)
        return action.operated and not waits

    async def reconcile(self, key: ActionId) -> Done | Requeue:
        try:
            action = await self._rows.get(key)
        except UnknownAction:
            await self._resources.record(key)
            return Done()
        # also frees what an earlier turn took after the action had ended: every end brings one more turn
        self._admission.track(action)
        if not action.operated:
            return Done()
        try:
            held = await self._resources.hold(action)
        except LaunchRefused as refusal:
            return await self._refuse(action, refusal)
        except ParentWithoutResource:  # it is being made
            return Requeue(PARENT_CHECK_SECONDS)
        except Unavailable as trouble:
            if action.kind is Kind.TASK and action.phase in (Phase.QUEUED, Phase.WAITING_FOR_RESOURCES):
                await self._report_waiting(action, str(trouble))
            raise
        if held is None:
            return Done()
        self._rows.replace(action, held)
        result = await (self._task(held) if held.kind is Kind.TASK else self._condition(held))
        try:
            await self._resources.show(held)
        except Unsettled as trouble:
            log.info("%s", trouble)
            return Requeue(SETTLE_CHECK_SECONDS)
        return result

    async def _condition(self, action: Action) -> Done | Requeue:
        timeout = timeout_seconds(action.spec)
        if action.final or not timeout:
            self._timing.forget(action)
            return Done()
        left = self._timing.left_of(action, since=action.started_at or action.created_at, seconds=timeout)
        if left > 0:
            return Requeue(left)
        await self._ledger.expire(action.id, f"nobody answered condition {action.task.short_name!r} in {timeout:g} s")
        return Done()

    async def _task(self, action: Action) -> Done | Requeue:
        if action.task.type == SLEEP:
            try:
                return await self._sleeping.turn(action)
            except (Invalid, Unreadable, TooLarge) as refusal:
                return await self._refuse(action, refusal)
        seen = await self._runtime.observe(action.attempt_id, begun=_begun(action))
        step = lifecycle.step(action, seen, await self._timing.left(action, seen))
        result = await self._act(action, seen, step)
        return replace(result, after=min(result.after, step.after))

    async def _act(self, action: Action, seen: Observation, step: Step) -> Done | Requeue:
        match step.do:
            case Do.NOTHING:
                await self._ledger.note(action.attempt_id, seen)
                if action.final:
                    await self._former_attempt_lives(action)
                elif seen.presence is Presence.ALIVE:
                    self._admission.adopt(action, _demand(await self._plans.plan(action)))
                return Done()
            case Do.STOP:
                await self._runtime.stop(action.attempt_id)
                return Done()
            case Do.WAIT:
                self._admission.release(action.id)
                await self._former_attempt_lives(action)
                return Requeue(step.after)
            case Do.LAUNCH:
                return await self._launch(action)
            case Do.REPORT_PROGRESS:
                return await self._report_progress(action, seen)
            case Do.REPORT_END:
                return await self._report_end(action, seen)
            case Do.EXPIRE:
                return await self._expire(action, seen, step.failure)

    async def _launch(self, action: Action) -> Done | Requeue:
        if await self._former_attempt_lives(action):
            return Requeue(STOP_CHECK_SECONDS)
        if action.attempt > 1:
            try:
                await self._runtime.settle(AttemptId(action.id, action.attempt - 1))
            except Unavailable as trouble:
                await self._report_waiting(action, str(trouble))
                raise
        try:
            plan = await self._plans.plan(action)
            if plan.unsupported:
                raise LaunchRefused(problem=plan.unsupported)
        except Unavailable:
            raise
        except Refusal as refusal:
            return await self._refuse(action, refusal)
        looked = await self._caching.look_up(action, plan)
        if looked.hit is not None:
            self._admission.release(action.id)
            await self._ledger.report(looked.hit, plan.budget)
            return Done()
        if looked.waits:
            self._admission.release(action.id)
            await self._report_waiting(action, looked.waits, looked)
            return Requeue(looked.after) if looked.after else Done()
        reason = self._admission.ask(action, _demand(plan))
        if reason:
            # what is free changes with each start and end: the row tells what was at first
            first = action.reason if _waits_for(action.reason) == _waits_for(reason) else reason
            return await self._report_waiting(action, first)
        return await self._start(action, plan, looked)

    async def _start(self, action: Action, plan: TaskPlan, looked: Looked) -> Done | Requeue:
        try:
            run, settings = await self._plans.run(action)
            launch = await self._launching.launch(action, run, plan=plan, settings=settings)
            await self._runtime.launch(replace(launch, notes=(*launch.notes, *self._clamping(plan))))
        except LaunchDelayed as delay:
            await self._report_waiting(action, str(delay))
            return Requeue(ROOM_CHECK_SECONDS)
        except Unavailable as trouble:
            await self._report_waiting(action, str(trouble))
            raise  # it keeps its place: the next in line would find the world no better
        except Refusal as refusal:  # no time will mend it
            return await self._refuse(action, refusal)
        except Exception:
            self._admission.release(action.id)  # while it backs off, others must not wait for it
            raise
        seen = await self._runtime.observe(action.attempt_id, begun=True)
        if seen.presence is Presence.ALIVE and seen.failure is None:
            return await self._report_progress(action, seen, looked)
        return await self._report_end(action, seen, looked)

    def _clamping(self, plan: TaskPlan) -> Iterator[str]:
        asked, given = _demand(plan), self._admission.clamped(_demand(plan))
        if asked != given:
            yield (
                f"it asks for {asked.cpu:g} CPU and {asked.memory >> 20} MiB, more than this machine gives to tasks; "
                f"it was started when {given.cpu:g} CPU and {given.memory >> 20} MiB were free"
            )

    async def _former_attempt_lives(self, action: Action) -> bool:
        """A former attempt's process can outlive its end in the rows when somebody else reported that end. It is told
        to stop."""
        if action.attempt == 1:
            return False
        former = AttemptId(action.id, action.attempt - 1)
        if (await self._runtime.observe(former)).presence is not Presence.ALIVE:
            return False
        await self._runtime.stop(former)
        return True

    async def _report_waiting(self, action: Action, reason: str, looked: Looked = UNCACHED) -> Done:
        if action.phase is not Phase.WAITING_FOR_RESOURCES or action.reason != reason:
            phase = Phase.WAITING_FOR_RESOURCES
            told = AttemptReport(action.attempt_id, phase, self._clock(), reason=reason)
            await self._ledger.report(looked.told(told), lifecycle.NO_RETRIES)  # which count only at the end
        return Done()

    async def _report_progress(self, action: Action, seen: Observation, looked: Looked = UNCACHED) -> Done:
        plan = await self._plans.plan(action)
        self._admission.adopt(action, _demand(plan))
        if seen.phase is Phase.QUEUED and looked is UNCACHED:
            return Done()
        now = self._clock()
        started = sharpened(seen.started_at, now) if seen.started_at else now
        told = AttemptReport(
            action.attempt_id,
            seen.phase,
            started if seen.phase is Phase.RUNNING else now,
            transitions=_precise(seen, started) or (running(started) if seen.phase is Phase.RUNNING else ()),
            events=seen.events,
            reason=seen.reason,
            place=seen.place,
        )
        await self._ledger.report(looked.told(told), plan.budget)
        return Done()

    async def _report_end(self, action: Action, seen: Observation, looked: Looked = UNCACHED) -> Done:
        plan = await self._plans.plan(action)
        told, outputs = await self._outcomes.report(action, plan=plan, seen=seen, now=self._clock())
        told = self._caching.ended(action, told, looked)
        self._admission.release(action.id)
        await self._ledger.report(told, plan.budget)
        if told.phase is Phase.SUCCEEDED:  # after a failure children of this attempt may still read what it left
            await self._runtime.forget(action.attempt_id, outputs)
        return Done()

    async def _expire(self, action: Action, seen: Observation, failure: Failure | None) -> Done:
        """A bound is reached. Reported first: one that was told to stop would look as if somebody else had done it."""
        plan = await self._plans.plan(action)
        log.info("%s: %s", action.attempt_id, failure.message if failure else "")
        told = AttemptReport(
            action.attempt_id,
            Phase.TIMED_OUT,
            self._clock(),
            failure=failure,
            events=seen.events,
            place=seen.place,
        )
        self._admission.release(action.id)
        await self._ledger.report(told, plan.budget)
        if seen.presence is Presence.ALIVE:
            await self._runtime.stop(action.attempt_id)
        return Done()

    async def _refuse(self, action: Action, refusal: Refusal) -> Done:
        """The world, or this manager, can never start it: the action fails with those words."""
        log.info("%s can't start: %s", action.id, refusal)
        failure = Failure(ErrorKind.USER, type(refusal).__name__, str(refusal), recoverable=False)
        told = AttemptReport(action.attempt_id, Phase.FAILED, self._clock(), failure=failure)
        self._admission.release(action.id)
        await self._ledger.report(told, lifecycle.NO_RETRIES)
        return Done()


def _precise(seen: Observation, started: datetime) -> tuple[Transition, ...]:
    return tuple(replace(each, at=started) if each.phase is Phase.RUNNING else each for each in seen.transitions)


def _waits_for(reason: str) -> str:
    return reason.partition(":")[0]


def _begun(action: Action) -> bool:
    """Whether the row says that the world had taken the attempt."""
    return action.phase in (Phase.INITIALIZING, Phase.RUNNING)


def _demand(plan: TaskPlan) -> Demand:
    return Demand(plan.cpu or DEFAULT_CPU, plan.memory or DEFAULT_MEMORY)
