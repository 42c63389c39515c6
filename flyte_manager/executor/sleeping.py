"""Runs tasks of type core-sleep: by timers, in both worlds alike, without a process or pod.

The row is all there is: RUNNING since its recorded start, over when the time has passed, which goes on passing while
the manager is away. Nothing need be stopped.
"""

from dataclasses import dataclass
from datetime import datetime

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import AttemptReport, Exit, Observation, Presence
from flyte_manager.domain.bounds import Bound, Left
from flyte_manager.domain.lifecycle import Do
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Blobs, Clock
from flyte_manager.domain.tasks import TaskPlan
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.executor.outcome import running
from flyte_manager.executor.plans import Plans
from flyte_manager.executor.timing import Timing
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.watch import Reader
from flyte_manager.wire.data import parse_inputs
from flyte_manager.wire.sleep import BadSleep, sleep_seconds

LARGEST_INPUTS = 1 << 20
ABSENT = Observation(Presence.ABSENT)


@dataclass(frozen=True, slots=True)
class Sleeping:
    """Takes the place of a world for these tasks."""

    reader: Reader
    ledger: Ledger
    plans: Plans
    timing: Timing
    blobs: Blobs
    clock: Clock

    async def turn(self, action: Action) -> Done | Requeue:
        """Raises what can't be run, as an Invalid refusal."""
        if action.final:
            self.timing.forget(action)
            return Done()
        plan = await self.plans.plan(action)
        seconds = await self._seconds(action, plan)
        started = await self._started(action)
        left = self._until_end(action, started, seconds)
        seen = _seen(started, left, self.clock())
        bounds = await self.timing.left(action, seen)
        step = lifecycle.step(action, seen, self._with_runtime(action, plan, started, bounds))
        match step.do:
            case Do.WAIT:
                return Requeue(step.after)
            case Do.LAUNCH:
                return await self._begin(action, plan, seconds)
            case Do.REPORT_END:
                await self._report(action, plan, Phase.SUCCEEDED)
            case Do.EXPIRE:
                told = AttemptReport(action.attempt_id, Phase.TIMED_OUT, self.clock(), failure=step.failure)
                await self.ledger.report(told, plan.budget)
            case _:
                return Requeue(min(left, step.after))
        return Done()

    async def _begin(self, action: Action, plan: TaskPlan, seconds: float) -> Done:
        """Its report, by the change of the row, brings the next turn."""
        await self._report(action, plan, Phase.RUNNING if seconds > 0 else Phase.SUCCEEDED)
        return Done()

    async def _report(self, action: Action, plan: TaskPlan, phase: Phase) -> None:
        now = self.clock()
        told = AttemptReport(action.attempt_id, phase, now, transitions=running(now))
        await self.ledger.report(told, plan.budget)

    async def _seconds(self, action: Action, plan: TaskPlan) -> float:
        found = await self.blobs.read(action.input_uri, limit=LARGEST_INPUTS) if action.input_uri else None
        if found is None:
            raise BadSleep(problem=f"finds no inputs in {action.input_uri!r}")
        return sleep_seconds(parse_inputs(found, action.input_uri), plan.sleep)

    async def _started(self, action: Action) -> datetime | None:
        """When the present attempt began to run."""
        if action.phase is not Phase.RUNNING:
            return None
        if action.attempt == 1:
            return action.started_at
        return (await self.reader.attempt(action.id, action.attempt)).started_at

    def _until_end(self, action: Action, started: datetime | None, seconds: float) -> float:
        if started is None:
            return seconds
        return self.timing.left_of(action, since=started, seconds=seconds)

    def _with_runtime(self, action: Action, plan: TaskPlan, started: datetime | None, left: Left) -> Left:
        """The bounds with max_runtime, which elsewhere the world may count."""
        for each in plan.bounds:
            if each.bound is Bound.MAX_RUNTIME and started is not None:
                end = self.timing.left_of(action, since=started, seconds=each.seconds)
                if end < left.end:
                    return Left(left.start, end, each)
        return left


def _seen(started: datetime | None, left: float, now: datetime) -> Observation:
    if started is None:
        return ABSENT
    if left <= 0:
        return Observation(Presence.EXITED, started_at=started, exit=Exit(0, started_at=started, ended_at=now))
    return Observation(Presence.ALIVE, started_at=started)
