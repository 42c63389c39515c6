"""What reports make of a task that another executor runs. Phases move as `lifecycle` has it; what is different is who
retries: that executor does, and says so by the numbers of the attempts.

    begin    attempt n + 1 is told of: it is the present one now. If nobody said how the former one ended, it FAILED
             ("Superseded"). Also the way out of FAILED and TIMED_OUT, never out of the other final phases.
    event    is about an attempt. One that FAILED or TIMED_OUT may be followed by the next, so the action goes on
             showing the phase before it; all other phases move the action, too.
    status   is about the action: FAILED and TIMED_OUT end it, no budget is looked at.
"""

from dataclasses import replace
from datetime import datetime

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt, AttemptReport, ErrorKind, Failure
from flyte_manager.domain.lifecycle import NO_RETRIES, Change, advanced, new_attempt, report, requeued, state_json
from flyte_manager.domain.phases import Phase

RETRYABLE = (Phase.FAILED, Phase.TIMED_OUT)
SUPERSEDED = "Superseded"
REPORTED = "Reported"
"""Codes of failures of which no more is known: whoever tells more later is heard."""


def may_begin(action: Action) -> bool:
    """Whether it can have a next attempt."""
    return not action.final or action.phase in RETRYABLE


def begin(action: Action, former: Attempt, number: int, at: datetime) -> Change:
    ended = former
    if not former.phase.final:
        message = f"attempt {number} began, and its executor did not say how this one ended"
        failure = Failure(ErrorKind.UNKNOWN, SUPERSEDED, message)
        ended = advanced(former, AttemptReport(former.id, Phase.FAILED, at, failure=failure))
    new = requeued(action, number, at=at, not_before=None)
    return Change(new, (ended, new_attempt(new, number, at)))


def event(action: Action, attempt: Attempt, told: AttemptReport) -> Change:
    """Raises NotATaskPhase."""
    undecided = told.phase in RETRYABLE and attempt.id.number == action.attempt and not action.final
    if undecided and not attempt.phase.final:
        return Change(action, (advanced(attempt, told),))
    change = report(action, attempt, told, NO_RETRIES)
    known = change.attempts[0] if change.attempts else attempt
    after = _completed(known, told) if attempt.phase.final else known
    if after == attempt:
        return change
    return Change(change.action or (None if action.final else action), (after,))


def status(action: Action, attempt: Attempt, told: AttemptReport) -> Change:
    """About the present attempt. Raises NotATaskPhase."""
    if action.final or not attempt.phase.final:
        return report(action, attempt, told, NO_RETRIES)
    if not told.phase.final:
        return Change(None)
    ended = replace(
        action,
        phase=told.phase,
        state=state_json(action, told.phase, told.at),
        reason=told.reason,
        failure=(attempt.failure or told.failure) if told.phase in RETRYABLE else None,
        started_at=action.started_at or attempt.started_at,
        ended_at=max(told.at, attempt.ended_at or told.at),
        output_uri=attempt.output_uri,
    )
    return Change(ended)


def unanswered(condition: Action, told: AttemptReport) -> Change:
    """A condition that ended without an answer."""
    state = state_json(condition, told.phase, told.at)
    return Change(replace(condition, phase=told.phase, state=state, failure=told.failure, ended_at=told.at))


def _completed(attempt: Attempt, told: AttemptReport) -> Attempt:
    """What else is told of an attempt that has ended."""
    vague = attempt.failure is None or attempt.failure.code in (SUPERSEDED, REPORTED)
    failed = attempt.phase in RETRYABLE and told.phase in RETRYABLE
    same = told.phase is attempt.phase
    return replace(
        attempt,
        failure=told.failure if vague and failed and told.failure else attempt.failure,
        output_uri=(told.output_uri if same else "") or attempt.output_uri,
        report_uri=(told.report_uri if same else "") or attempt.report_uri,
    )
