"""The one decider of phases: what a report, an abort or a signal makes of an action. Used by every world.

    report(action, attempt, report, budget) -> Change     the attempt's row and the action's, maybe a next attempt
    note(action, attempt, seen)             -> Change     events that came alone
    abort(action, attempt, reason, at)      -> Change
    again(action, at), ask_again, replaced  -> Change     the only ways out of a final phase
    step(action, observation, left)         -> Step       what the executor must do to make the world match the row

A failed attempt with attempts left and the next one's QUEUED are one Change: no reader sees FAILED before it is final.
The first final report wins; a later one is kept as an event of its attempt, as are its events. Events alone change a
live action's row too, so that its watchers see them, but never a final one's: its revision tells when it ended.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from flyte_manager.domain.actions import Action, Budget
from flyte_manager.domain.attempts import (
    Attempt,
    AttemptReport,
    ErrorKind,
    Event,
    Failure,
    Observation,
    Presence,
    Transition,
)
from flyte_manager.domain.bounds import UNBOUNDED, Left, exceeded
from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import FINAL, ROAD, Kind, Phase

EVENTS_KEPT = 100
"""of an attempt: a pod that waits for days is told about again and again"""

NO_RETRIES = Budget(retries=0, system_retries=0)


class NotATaskPhase(Invalid):
    """attempt {attempt} is one of a task, which is never {phase}: use one of {known}."""


@dataclass(frozen=True, slots=True)
class Change:
    """New rows. `action` is None when nothing of it changed."""

    action: Action | None
    attempts: tuple[Attempt, ...] = ()


def state_json(action: Action, phase: Phase, at: datetime) -> str:
    """The state document of upstream's executor: phase, actionId and timestamp."""
    return json.dumps(
        {
            "actionId": f"{action.id.run.name}/{action.id.name}",
            "phase": f"PHASE_{phase.name}",
            "timestamp": at.isoformat().replace("+00:00", "Z"),
        }
    )


def new_attempt(action: Action, number: int, at: datetime) -> Attempt:
    return Attempt(
        id=AttemptId(action.id, number),
        phase=Phase.QUEUED,
        created_at=at,
        transitions=(Transition(Phase.QUEUED, at),),
        output_uri=action.output_prefix(number),
    )


def report(action: Action, attempt: Attempt, told: AttemptReport, budget: Budget) -> Change:
    """Applies what was told of an attempt. Repeating a report changes nothing. Raises NotATaskPhase."""
    check_phase(told)
    if attempt.phase.final or action.final or told.attempt.number != action.attempt:
        return _late(action, attempt, told)
    if not told.phase.final and ROAD.index(told.phase) < ROAD.index(attempt.phase):
        return _noted(action, attempt, told, told.events)
    after = advanced(attempt, told)
    if after == attempt and told.reason == action.reason:
        return Change(None)
    if told.phase is Phase.FAILED or told.phase is Phase.TIMED_OUT:
        return _failed(action, after, told, budget)
    new = replace(
        action,
        phase=told.phase,
        state=state_json(action, told.phase, told.at),
        reason=told.reason,
        started_at=action.started_at or after.started_at,
        ended_at=after.ended_at,
        output_uri=after.output_uri,
        cache_status=after.cache_status,
    )
    return Change(new, (after,))


def check_phase(told: AttemptReport) -> None:
    """Raises NotATaskPhase."""
    if told.phase not in (*ROAD, *FINAL):
        known = ", ".join(phase.name for phase in (*ROAD, *sorted(FINAL)))
        raise NotATaskPhase(attempt=told.attempt, phase=told.phase.name, known=known)


def note(action: Action, attempt: Attempt, seen: Observation) -> Change:
    """Keeps what the world tells of the attempt beside its phase, which stays as it is."""
    known = AttemptReport(attempt.id, attempt.phase, attempt.created_at, events=seen.events, place=seen.place)
    return _noted(action, attempt, known, seen.events)


def abort(action: Action, attempt: Attempt | None, *, reason: str, at: datetime, by: bytes = b"") -> Change:
    """Ends a live action; a final one stays as it is."""
    if action.final:
        return Change(None)
    new = replace(
        action,
        phase=Phase.ABORTED,
        state=state_json(action, Phase.ABORTED, at),
        reason=reason,
        signalled_by=by,
        ended_at=at,
        not_before=None,
    )
    if attempt is None or attempt.phase.final:
        return Change(new)
    told = AttemptReport(attempt=attempt.id, phase=Phase.ABORTED, at=at, reason=reason)
    return Change(new, (advanced(attempt, told),))


def again(action: Action, at: datetime) -> Change:
    """Starts the next attempt of a finished task with a new retry budget."""
    new = requeued(action, action.attempt + 1, at=at, not_before=None)
    return Change(replace(new, user_failures=0, system_failures=0), (new_attempt(new, new.attempt, at),))


def ask_again(condition: Action, at: datetime) -> Change:
    """Waits anew for the answer to a condition that ended without one; its timeout counts from now."""
    state = state_json(condition, Phase.PAUSED, at)
    new = replace(condition, phase=Phase.PAUSED, state=state, failure=None, reason="", signalled_by=b"")
    return Change(replace(new, started_at=at, ended_at=None))


def stale(child: Action, parent: Action) -> bool:
    """Whether the child failed before the parent's present attempt began: that attempt may run it again.

    ABORTED counts too: a parent that fails aborts the other calls it waits for, and a child's own children were aborted
    when it failed. The next attempt would die of those aborts.
    """
    failed = child.phase in (Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED)
    return failed and child.kind is not Kind.TRACE and child.revision < parent.attempt_revision


class Do(Enum):
    """What the executor does next."""

    NOTHING = "nothing"
    LAUNCH = "launch"
    STOP = "stop"
    WAIT = "wait"
    REPORT_PROGRESS = "report progress"
    REPORT_END = "report end"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Step:
    do: Do
    after: float = math.inf
    """seconds after which to look again at the latest"""
    failure: Failure | None = None
    """for EXPIRE"""


def step(action: Action, seen: Observation, left: Left = UNBOUNDED) -> Step:
    """What must be done so that the world matches a task's row. An attempt that has ended did so before its time."""
    if action.final:
        return Step(Do.STOP if seen.presence is Presence.ALIVE else Do.NOTHING)
    if seen.presence in (Presence.EXITED, Presence.VANISHED) or seen.failure is not None:
        return Step(Do.REPORT_END)
    if left.allowance is not None and left.end <= 0:
        waited = action.reason if action.phase is Phase.WAITING_FOR_RESOURCES else ""
        return Step(Do.EXPIRE, failure=exceeded(left.allowance, phase=action.phase.name, reason=waited))
    if seen.presence is Presence.ALIVE:
        return Step(Do.REPORT_PROGRESS if _news(action, seen) else Do.NOTHING, left.end)
    if left.start > 0:
        return Step(Do.WAIT, min(left.start, left.end))
    return Step(Do.LAUNCH, left.end)


def _news(action: Action, seen: Observation) -> bool:
    """Whether an attempt that is alive is further than its row says, or waits for another reason."""
    known, now = ROAD.index(action.phase), ROAD.index(seen.phase)
    return now > known or (now == known and seen.reason != action.reason)


def _late(action: Action, attempt: Attempt, told: AttemptReport) -> Change:
    events = told.events
    if told.phase.final and told.phase is not attempt.phase:
        message = f"reported {told.phase.name} after the attempt had ended"
        if told.failure:
            message += f": {told.failure.message}"
        if all(event.message != message for event in attempt.events):
            events = (*events, Event(told.at, message, reason="LateReport", warning=True))
    return _noted(action, attempt, told, events)


def _noted(action: Action, attempt: Attempt, told: AttemptReport, events: tuple[Event, ...]) -> Change:
    after = replace(
        attempt,
        events=_joined(attempt.events, events),
        place=told.place or attempt.place,
        told=told.told or attempt.told,
    )
    if after == attempt:
        return Change(None)
    return Change(None if action.final else action, (after,))


def _joined(known: tuple[Event, ...], told: tuple[Event, ...]) -> tuple[Event, ...]:
    news = [event for event in told if event not in known]
    return (*known, *news)[-EVENTS_KEPT:] if news else known


def advanced(attempt: Attempt, told: AttemptReport) -> Attempt:
    """The attempt's row after the report, phases that were jumped over filled in."""
    # Each phase once: what is recorded wins over what is told, a time of its own over the report's.
    road = (Transition(told.phase, told.at), *told.transitions, *attempt.transitions)
    transitions = _in_order({each.phase: each for each in road}.values())
    started = next((each.at for each in transitions if each.phase is Phase.RUNNING), None)
    return replace(
        attempt,
        phase=told.phase,
        transitions=transitions,
        started_at=started,
        ended_at=transitions[-1].at if told.phase.final else None,
        failure=told.failure,
        output_uri=told.output_uri or attempt.output_uri,
        report_uri=told.report_uri or attempt.report_uri,
        usage=told.usage or attempt.usage,
        events=_joined(attempt.events, told.events),
        logs_available=attempt.logs_available or started is not None,
        place=told.place or attempt.place,
        cache_status=told.cache_status or attempt.cache_status,
        cache_source=told.cache_source or attempt.cache_source,
        told=told.told or attempt.told,
    )


def _in_order(transitions: Iterable[Transition]) -> tuple[Transition, ...]:
    """By phase, the end last; none before the one that it follows, whatever clocks said."""
    ordered: list[Transition] = []
    for each in sorted(transitions, key=lambda each: (each.phase in FINAL, each.phase)):
        earliest = ordered[-1].at if ordered else each.at
        ordered.append(each if each.at >= earliest else replace(each, at=earliest))
    return tuple(ordered)


def _failed(action: Action, attempt: Attempt, told: AttemptReport, budget: Budget) -> Change:
    """A failed attempt: the next one in the same change while the budget lasts."""
    failure = told.failure
    system = failure is not None and failure.kind is ErrorKind.SYSTEM
    counted = replace(
        action,
        user_failures=action.user_failures + (not system),
        system_failures=action.system_failures + system,
        started_at=action.started_at or attempt.started_at,
    )
    failures = counted.system_failures if system else counted.user_failures
    allowed = budget.system_retries if system else budget.retries
    if failures <= allowed and (failure is None or failure.recoverable):
        not_before = _later(told.at, 0.0 if system else budget.delay(failures))
        next_one = requeued(
            counted, action.attempt + 1, at=told.at, not_before=not_before if not_before > told.at else None
        )
        return Change(next_one, (attempt, new_attempt(next_one, next_one.attempt, told.at)))
    final = replace(
        counted,
        phase=told.phase,
        state=state_json(action, told.phase, told.at),
        reason="",
        failure=failure,
        ended_at=attempt.ended_at,
        output_uri=attempt.output_uri,
        cache_status=attempt.cache_status,
    )
    return Change(final, (attempt,))


def _later(at: datetime, seconds: float) -> datetime:
    """The same time where calendars end: others tell times, too."""
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError:
        return at


def requeued(action: Action, number: int, *, at: datetime, not_before: datetime | None) -> Action:
    """The action with its next attempt."""
    return replace(
        action,
        phase=Phase.QUEUED,
        state=state_json(action, Phase.QUEUED, at),
        attempt=number,
        reason="",
        signalled_by=b"",
        failure=None,
        ended_at=None,
        not_before=not_before,
        output_uri=action.output_prefix(number),
        cache_status=CacheStatus.DISABLED,
    )
