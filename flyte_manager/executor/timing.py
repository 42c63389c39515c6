"""How much time is left to an action until its backoff is over, and until the nearest of its bounds.

What counts is the time that passes here, not what the clock shows: a clock that is set does not end a task early or
late. Only where a time began before this process looked at it first, at a restart, the clock must tell how long ago.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Observation, Presence
from flyte_manager.domain.bounds import UNBOUNDED, Bound, Left
from flyte_manager.domain.errors import Refusal, Unavailable
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Clock
from flyte_manager.domain.tasks import World
from flyte_manager.executor.plans import Plans
from flyte_manager.ledger.watch import Reader

_WAITING = (Phase.QUEUED, Phase.WAITING_FOR_RESOURCES)


class Countdowns:
    """Measures by `ticks`, which only grow, what began at times of the clock."""

    def __init__(self, clock: Clock, ticks: Callable[[], float]) -> None:
        self._clock = clock
        self._ticks = ticks
        self._ends: dict[ActionId, dict[tuple[datetime, float], float]] = {}

    def left(self, action: ActionId, *, since: datetime, seconds: float) -> float:
        """What is left of so many seconds since then."""
        ends = self._ends.setdefault(action, {})
        end = ends.get((since, seconds))
        if end is None:
            passed = (self._clock() - since).total_seconds()
            end = ends[since, seconds] = self._ticks() + seconds - min(max(passed, 0.0), seconds)
        return end - self._ticks()

    def forget(self, action: ActionId) -> None:
        self._ends.pop(action, None)


class Timing:
    """Tells what is left. In a world whose attempts end by themselves after Launch.run_seconds, max_runtime is theirs
    to count."""

    def __init__(self, *, reader: Reader, plans: Plans, world: World, countdowns: Countdowns) -> None:
        self._reader = reader
        self._plans = plans
        self._counts_runtime = world is World.PODS
        self._countdowns = countdowns

    async def left(self, action: Action, seen: Observation) -> Left:
        """To a task's action."""
        if action.final:
            self._countdowns.forget(action.id)
            return UNBOUNDED
        try:
            plan = await self._plans.plan(action)
        except Unavailable:
            raise
        except Refusal:
            return UNBOUNDED  # its launch tells why
        start, backoff = 0.0, 0.0
        if action.not_before is not None:
            backoff = plan.budget.delay(action.user_failures)
            start = self.left_of(action, since=action.not_before - timedelta(seconds=backoff), seconds=backoff)
        left = Left(start)
        if not plan.bounds:
            return left
        times = await self._times(action)
        for each in plan.bounds:
            began = self._began(each.bound, action, seen, times)
            if began is not None:
                seconds = each.seconds + (backoff if each.bound is Bound.QUEUED_TIMEOUT else 0.0)
                end = self.left_of(action, since=began, seconds=seconds)
                if end < left.end:
                    left = Left(start, end, each)
        return left

    def left_of(self, action: Action, *, since: datetime, seconds: float) -> float:
        """What is left of so many seconds since then."""
        return self._countdowns.left(action.id, since=since, seconds=seconds)

    def forget(self, action: Action) -> None:
        self._countdowns.forget(action.id)

    async def _times(self, action: Action) -> "_Times":
        if action.attempt == 1:
            return _Times(action.created_at, action.created_at, action.started_at)
        present = await self._reader.attempt(action.id, action.attempt)
        # each failure since it was asked for, by its parent's present attempt, made one attempt
        first = max(action.attempt - action.user_failures - action.system_failures, 1)
        asked = present if first == action.attempt else await self._reader.attempt(action.id, first)
        return _Times(asked.created_at, present.created_at, present.started_at)

    def _began(self, bound: Bound, action: Action, seen: Observation, times: "_Times") -> datetime | None:
        """When the time began that this bound counts; None when it doesn't count now."""
        match bound:
            case Bound.DEADLINE:
                return times.asked_at
            case Bound.QUEUED_TIMEOUT:
                taken = seen.presence is Presence.ALIVE and seen.phase not in _WAITING
                return times.queued_at if action.phase in _WAITING and not taken else None
            case Bound.MAX_RUNTIME:
                return times.started_at if action.phase is Phase.RUNNING and self._counts_runtime else None


@dataclass(frozen=True, slots=True)
class _Times:
    asked_at: datetime
    """the first QUEUED of all attempts that count together"""
    queued_at: datetime
    """when the present attempt began to wait, first for the end of its backoff"""
    started_at: datetime | None
