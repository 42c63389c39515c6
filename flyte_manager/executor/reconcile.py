"""One action: read its row, look at the world, do what `domain.lifecycle` decides, report. READ THIS to know how an
action runs; everything here may run any number of times.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure, Observation, Presence
from flyte_manager.domain.errors import Invalid, Refusal, Unavailable, UnknownAction
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.lifecycle import Do
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Clock, LaunchRefused, Runtime
from flyte_manager.domain.tasks import TaskPlan
from flyte_manager.executor.admission import DEFAULT_CPU, DEFAULT_MEMORY, Admission, Demand
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.executor.launching import Launching, SecretMissing
from flyte_manager.executor.outcome import Outcomes, running
from flyte_manager.executor.plans import Plans
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.watch import Reader
from flyte_manager.wire.conditions import timeout_seconds

log = logging.getLogger(__name__)

STOP_CHECK_SECONDS = 0.2
"""how long to wait for a former attempt's process to end"""


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
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._runtime = runtime
        self._admission = admission
        self._plans = plans
        self._launching = launching
        self._outcomes = outcomes
        self._clock = clock

    async def list_all(self) -> Iterable[ActionId]:
        """All that must be looked at: what has not ended in the rows, but for those in line: their turn wakes them."""
        live = await self._reader.live()
        for action in live:
            self._admission.track(action)
        return [action.id for action in live if not self._admission.waits(action.id)]

    async def reconcile(self, key: ActionId) -> Done | Requeue:
        try:
            action = await self._reader.action(key)
        except UnknownAction:
            return Done()
        # also frees what an earlier turn took after the action had ended: every end brings one more turn
        self._admission.track(action)
        match action.kind:
            case Kind.TASK:
                return await self._task(action)
            case Kind.CONDITION:
                return await self._condition(action)
            case Kind.TRACE:
                return Done()

    async def _condition(self, action: Action) -> Done | Requeue:
        timeout = timeout_seconds(action.spec)
        if action.final or not timeout:
            return Done()
        left = timeout - (self._clock() - (action.started_at or action.created_at)).total_seconds()
        if left > 0:
            return Requeue(left)
        await self._ledger.expire(action.id, f"nobody answered condition {action.task.short_name!r} in {timeout:g} s")
        return Done()

    async def _task(self, action: Action) -> Done | Requeue:
        seen = await self._runtime.observe(action.attempt_id)
        step = lifecycle.step(action, seen, self._clock())
        match step.do:
            case Do.NOTHING:
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
                return Requeue(step.after)
            case Do.LAUNCH:
                return await self._launch(action)
            case Do.REPORT_RUNNING:
                return await self._report_running(action, seen)
            case Do.REPORT_END:
                return await self._report_end(action, seen)

    async def _launch(self, action: Action) -> Done | Requeue:
        if await self._former_attempt_lives(action):
            return Requeue(STOP_CHECK_SECONDS)
        try:
            plan = await self._plans.plan(action)
            _check_supported(plan)
        except Refusal as refusal:
            return await self._refuse(action, refusal)
        reason = self._admission.ask(action, _demand(plan))
        if reason:
            return await self._report_waiting(action, plan, reason)
        return await self._start(action, plan)

    async def _start(self, action: Action, plan: TaskPlan) -> Done | Requeue:
        run = await self._reader.run(action.id.run)
        try:
            settings = self._plans.settings(run)
            launch = await self._launching.launch(action, run, plan=plan, settings=settings)
            await self._runtime.launch(replace(launch, notes=(*launch.notes, *self._clamping(plan))))
        except (LaunchRefused, SecretMissing, Invalid) as refusal:
            return await self._refuse(action, refusal)
        except Unavailable:
            raise  # it keeps its place: the next in line would find the world no better
        except Exception:
            self._admission.release(action.id)  # while it backs off, others must not wait for it
            raise
        return await self._report_running(action, await self._runtime.observe(action.attempt_id))

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

    async def _report_waiting(self, action: Action, plan: TaskPlan, reason: str) -> Done:
        if action.phase is not Phase.WAITING_FOR_RESOURCES:
            phase = Phase.WAITING_FOR_RESOURCES
            told = AttemptReport(action.attempt_id, phase, self._clock(), reason=reason)
            await self._ledger.report(told, plan.budget)
        return Done()

    async def _report_running(self, action: Action, seen: Observation) -> Done | Requeue:
        plan = await self._plans.plan(action)
        if seen.presence in (Presence.EXITED, Presence.VANISHED):
            return await self._report_end(action, seen)
        self._admission.adopt(action, _demand(plan))
        started = seen.started_at or self._clock()
        told = AttemptReport(action.attempt_id, Phase.RUNNING, started, transitions=running(started))
        await self._ledger.report(told, plan.budget)
        return Done()

    async def _report_end(self, action: Action, seen: Observation) -> Done:
        plan = await self._plans.plan(action)
        told = await self._outcomes.report(action, plan=plan, seen=seen, now=self._clock())
        self._admission.release(action.id)
        await self._ledger.report(told, plan.budget)
        if told.phase is Phase.SUCCEEDED:  # after a failure children of this attempt may still read what it left
            await self._runtime.forget(action.attempt_id, await self._outcomes.results(action, plan))
        return Done()

    async def _refuse(self, action: Action, refusal: Refusal) -> Done:
        """The world, or this manager, can never start it: the action fails with those words."""
        log.info("%s can't start: %s", action.id, refusal)
        failure = Failure(ErrorKind.USER, type(refusal).__name__, str(refusal), recoverable=False)
        told = AttemptReport(action.attempt_id, Phase.FAILED, self._clock(), failure=failure)
        self._admission.release(action.id)
        await self._ledger.report(told, lifecycle.NO_RETRIES)
        return Done()


def _check_supported(plan: TaskPlan) -> None:
    if plan.unsupported:
        raise LaunchRefused(problem=plan.unsupported)
    if plan.gpus and plan.gpus != "0":
        raise LaunchRefused(
            problem=f"the task asks for {plan.gpus} GPU, this machine gives none to tasks: remove gpu= from its "
            "resources, or run it on a cluster"
        )


def _demand(plan: TaskPlan) -> Demand:
    return Demand(plan.cpu or DEFAULT_CPU, plan.memory or DEFAULT_MEMORY)
