"""The one decider: what reports, aborts and observations make of an action."""

import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import LONGEST_BACKOFF, Action, Budget
from flyte_manager.domain.attempts import (
    Attempt,
    AttemptReport,
    ErrorKind,
    Event,
    Failure,
    Observation,
    Place,
    Presence,
    Transition,
    Usage,
)
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.lifecycle import Do, NotATaskPhase, Step
from flyte_manager.domain.phases import FINAL, ROAD, Kind, Phase
from tests.fakes.clock import NOW
from tests.fakes.orders import action_id

USER = Failure(ErrorKind.USER, "ValueError", "no")
SYSTEM = Failure(ErrorKind.SYSTEM, "ProcessVanished", "gone")
FATAL = Failure(ErrorKind.USER, "ValueError", "no", recoverable=False)
WARNING = Event(NOW, "no space left", "Evicted", warning=True)


def task(**fields: object) -> Action:
    action = Action(action_id(), Kind.TASK, Phase.QUEUED, NOW, base_uri="/store/r1")
    return replace(action, **fields)  # type: ignore[arg-type]


def first(action: Action) -> Attempt:
    return lifecycle.new_attempt(action, action.attempt, NOW)


def told(phase: Phase, seconds: float = 0, **fields: object) -> AttemptReport:
    report = AttemptReport(AttemptId(action_id(), 1), phase, NOW + timedelta(seconds=seconds))
    return replace(report, **fields)  # type: ignore[arg-type]


def test_a_fast_task_gets_the_phases_that_were_jumped_over() -> None:
    action = task()
    began = NOW + timedelta(seconds=1)
    between = (Transition(Phase.INITIALIZING, began), Transition(Phase.RUNNING, began))
    change = lifecycle.report(action, first(action), told(Phase.SUCCEEDED, 2, transitions=between), Budget())
    assert change.action is not None
    (attempt,) = change.attempts
    phases = [each.phase for each in attempt.transitions]
    assert phases == [Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED]
    assert (attempt.started_at, change.action.started_at) == (began, began)
    assert attempt.logs_available


def test_no_phase_begins_before_the_one_that_it_follows() -> None:
    """The process's clock was set back while it ran."""
    action = task()
    running = lifecycle.report(action, first(action), told(Phase.RUNNING, 10), Budget())
    assert running.action is not None
    ended = lifecycle.report(running.action, running.attempts[0], told(Phase.SUCCEEDED, 4), Budget())
    assert ended.action is not None
    assert ended.attempts[0].ended_at == ended.action.ended_at == NOW + timedelta(seconds=10)


def test_the_time_of_a_phase_that_is_recorded_stays_whatever_is_told_later() -> None:
    action = task()
    running = lifecycle.report(action, first(action), told(Phase.RUNNING, 5), Budget())
    assert running.action is not None
    otherwise = (Transition(Phase.RUNNING, NOW + timedelta(seconds=7)),)
    ended = lifecycle.report(
        running.action, running.attempts[0], told(Phase.SUCCEEDED, 9, transitions=otherwise), Budget()
    )
    assert ended.action is not None
    assert ended.attempts[0].started_at == ended.action.started_at == NOW + timedelta(seconds=5)


def test_a_report_that_says_nothing_new_changes_nothing() -> None:
    action = task()
    change = lifecycle.report(action, first(action), told(Phase.RUNNING, 1), Budget())
    assert change.action is not None
    (attempt,) = change.attempts
    again = lifecycle.report(change.action, attempt, told(Phase.RUNNING, 1), Budget())
    back = lifecycle.report(change.action, attempt, told(Phase.WAITING_FOR_RESOURCES, 2), Budget())
    assert (again, back) == (lifecycle.Change(None), lifecycle.Change(None))


def test_a_new_reason_to_wait_is_kept() -> None:
    action = task()
    one = lifecycle.report(action, first(action), told(Phase.WAITING_FOR_RESOURCES, reason="one"), Budget())
    assert one.action is not None
    two = lifecycle.report(one.action, one.attempts[0], told(Phase.WAITING_FOR_RESOURCES, reason="two"), Budget())
    assert two.action is not None
    assert two.action.reason == "two"


def test_a_task_is_never_paused() -> None:
    with pytest.raises(NotATaskPhase, match="RUNNING"):
        lifecycle.report(task(), first(task()), told(Phase.PAUSED), Budget())


def test_usage_and_events_are_kept_once() -> None:
    action = task()
    event = Event(NOW, "pulled")
    one = lifecycle.report(action, first(action), told(Phase.RUNNING, events=(event,)), Budget())
    assert one.action is not None
    usage = Usage(1.0, 5)
    two = lifecycle.report(one.action, one.attempts[0], told(Phase.SUCCEEDED, events=(event,), usage=usage), Budget())
    assert (two.attempts[0].events, two.attempts[0].usage) == ((event,), usage)


@pytest.mark.parametrize(
    ("failure", "budget", "before", "again"),
    [
        (USER, Budget(), task(), False),
        (USER, Budget(retries=1), task(), True),
        (USER, Budget(retries=1), task(user_failures=1), False),
        (USER, Budget(retries=1), task(system_failures=3), True),
        (FATAL, Budget(retries=9), task(), False),
        (SYSTEM, Budget(), task(), True),
        (SYSTEM, Budget(), task(system_failures=2), True),
        (SYSTEM, Budget(), task(system_failures=3), False),
        (SYSTEM, Budget(), task(user_failures=9), True),
        (replace(SYSTEM, recoverable=False), Budget(), task(), False),
        (SYSTEM, lifecycle.NO_RETRIES, task(), False),
        (None, Budget(retries=1), task(), True),
    ],
)
@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.TIMED_OUT])
def test_budgets(failure: Failure | None, budget: Budget, before: Action, again: bool, phase: Phase) -> None:
    change = lifecycle.report(before, first(before), told(phase, failure=failure), budget)
    assert change.action is not None
    assert change.attempts[0].phase is phase
    if again:
        assert (change.action.phase, change.action.attempt, change.action.failure) == (Phase.QUEUED, 2, None)
        assert change.attempts[1].id.number == 2
    else:
        assert (change.action.phase, change.action.attempt, change.action.failure) == (phase, 1, failure)
        assert len(change.attempts) == 1


def test_the_backoff_grows_to_its_cap() -> None:
    budget = Budget(retries=9, backoff_base=2, backoff_factor=3, backoff_cap=10)
    assert [budget.delay(failures) for failures in (1, 2, 3, 99)] == [2, 6, 10, 10]
    assert Budget(backoff_base=0).delay(5) == 0
    for factor in (0.1, float("nan")):
        assert Budget(backoff_base=1, backoff_factor=factor).delay(3) == 1
    for endless in (Budget(backoff_base=1, backoff_factor=1e300), Budget(backoff_base=1e11), Budget(backoff_base=1)):
        assert 0 < endless.delay(10**6) <= LONGEST_BACKOFF
    assert Budget(backoff_base=1e11, backoff_cap=1e11).delay(1) == LONGEST_BACKOFF


def test_a_backoff_paces_the_users_failures_only() -> None:
    budget = Budget(retries=1, backoff_base=10)
    for failure, wait in ((USER, 10), (SYSTEM, 0)):
        change = lifecycle.report(task(), first(task()), told(Phase.FAILED, failure=failure), budget)
        assert change.action is not None
        assert change.action.not_before == (NOW + timedelta(seconds=wait) if wait else None)


def test_a_failure_at_the_end_of_all_calendars_is_tried_again_at_once() -> None:
    late = datetime.max.replace(tzinfo=UTC)
    report = replace(told(Phase.FAILED, failure=USER), at=late)
    change = lifecycle.report(task(), first(task()), report, Budget(retries=1, backoff_base=10))
    assert change.action is not None
    assert (change.action.attempt, change.action.not_before) == (2, None)


@pytest.mark.parametrize("phase", sorted(FINAL))
def test_nothing_leaves_a_final_phase_by_a_report_or_an_abort(phase: Phase) -> None:
    action = task(phase=phase, ended_at=NOW)
    attempt = replace(first(action), phase=phase, ended_at=NOW)
    for other in (*ROAD, *FINAL):
        change = lifecycle.report(action, attempt, told(other), Budget(retries=9))
        assert change.action is None
        assert all(each.phase is phase for each in change.attempts)
    assert lifecycle.abort(action, attempt, reason="x", at=NOW) == lifecycle.Change(None)


def test_the_next_attempt_of_a_finished_action_has_a_new_budget() -> None:
    action = task(phase=Phase.FAILED, attempt=3, user_failures=3, system_failures=1, failure=USER, ended_at=NOW)
    change = lifecycle.again(action, NOW)
    assert change.action is not None
    new = change.action
    assert (new.phase, new.attempt, new.user_failures, new.system_failures) == (Phase.QUEUED, 4, 0, 0)
    assert (new.failure, new.ended_at, new.output_uri) == (None, None, "/store/r1/a0/4")
    assert [each.id.number for each in change.attempts] == [4]


@pytest.mark.parametrize(
    ("phase", "kind", "revision", "stale"),
    [
        (Phase.FAILED, Kind.TASK, 9, True),
        (Phase.TIMED_OUT, Kind.CONDITION, 9, True),
        (Phase.ABORTED, Kind.TASK, 9, True),
        (Phase.ABORTED, Kind.TASK, 10, False),
        (Phase.FAILED, Kind.TASK, 11, False),
        (Phase.FAILED, Kind.TRACE, 9, False),
        (Phase.SUCCEEDED, Kind.TASK, 9, False),
        (Phase.RUNNING, Kind.TASK, 9, False),
    ],
)
def test_stale_children(phase: Phase, kind: Kind, revision: int, stale: bool) -> None:
    child = replace(task(), phase=phase, kind=kind, revision=revision)
    assert lifecycle.stale(child, task(attempt_revision=10)) is stale


@pytest.mark.parametrize(
    ("action", "presence", "step"),
    [
        (task(), Presence.ABSENT, Step(Do.LAUNCH)),
        (task(phase=Phase.RUNNING), Presence.ABSENT, Step(Do.LAUNCH)),
        (task(), Presence.ALIVE, Step(Do.REPORT_PROGRESS)),
        (task(phase=Phase.RUNNING), Presence.ALIVE, Step(Do.NOTHING)),
        (task(phase=Phase.RUNNING), Presence.EXITED, Step(Do.REPORT_END)),
        (task(), Presence.VANISHED, Step(Do.REPORT_END)),
        (task(phase=Phase.ABORTED), Presence.ALIVE, Step(Do.STOP)),
        (task(phase=Phase.ABORTED), Presence.EXITED, Step(Do.NOTHING)),
        (task(phase=Phase.ABORTED), Presence.ABSENT, Step(Do.NOTHING)),
    ],
)
def test_steps(action: Action, presence: Presence, step: Step) -> None:
    assert lifecycle.step(action, Observation(presence)) == step


@pytest.mark.parametrize("seed", range(50))
def test_whatever_is_told_attempts_make_sense(seed: int) -> None:
    chance = random.Random(seed)
    action = task()
    attempts = {1: first(action)}
    for _ in range(60):
        number = max(1, action.attempt - chance.choice((0, 0, 0, 1)))
        phase = chance.choice((*ROAD, *ROAD, *FINAL))
        failure = chance.choice((USER, SYSTEM, FATAL)) if phase in (Phase.FAILED, Phase.TIMED_OUT) else None
        report = told(phase, chance.random() * 100, attempt=AttemptId(action_id(), number), failure=failure)
        before = action
        change = lifecycle.report(action, attempts[number], report, Budget(retries=chance.choice((0, 3, 9))))
        action = change.action or action
        for attempt in change.attempts:
            known = attempts.get(attempt.id.number)
            assert known is None or not known.phase.final or attempt.phase is known.phase
            attempts[attempt.id.number] = attempt
            times = [each.at for each in attempt.transitions]
            assert all(left <= right for left, right in itertools.pairwise(times))
        assert list(attempts) == list(range(1, action.attempt + 1))
        assert attempts[action.attempt].phase is action.phase
        assert not before.final or action == before


def test_events_alone_change_the_row_of_a_live_action_and_no_phase() -> None:
    action = task()
    running = lifecycle.report(action, first(action), told(Phase.RUNNING, 1), Budget())
    assert running.action is not None
    (attempt,) = running.attempts
    for change in (
        lifecycle.report(running.action, attempt, told(Phase.INITIALIZING, 2, events=(WARNING,)), Budget()),
        lifecycle.note(running.action, attempt, Observation(Presence.ALIVE, events=(WARNING,))),
    ):
        assert change == lifecycle.Change(running.action, (replace(attempt, events=(WARNING,)),))
        again = lifecycle.note(running.action, change.attempts[0], Observation(Presence.ALIVE, events=(WARNING,)))
        assert again == lifecycle.Change(None)


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.FAILED, Phase.SUCCEEDED])
def test_events_that_come_after_the_end_are_kept_and_leave_the_action_as_it_was(phase: Phase) -> None:
    action = task(phase=Phase.FAILED, ended_at=NOW)
    attempt = replace(first(action), phase=Phase.FAILED, ended_at=NOW)
    change = lifecycle.report(action, attempt, told(phase, 5, events=(WARNING,)), Budget(retries=9))
    assert change.action is None
    (after,) = change.attempts
    assert replace(after, events=()) == attempt
    assert after.events[0] == WARNING
    assert len(after.events) == (2 if phase is Phase.SUCCEEDED else 1)
    assert lifecycle.report(action, after, told(phase, 5, events=(WARNING,)), Budget()) == lifecycle.Change(None)


def test_events_of_a_former_attempt_are_kept_there() -> None:
    action = task()
    failed = lifecycle.report(action, first(action), told(Phase.FAILED, 1), Budget(retries=1))
    assert failed.action is not None
    former, _ = failed.attempts
    change = lifecycle.report(failed.action, former, told(Phase.FAILED, 2, events=(WARNING,)), Budget(retries=1))
    assert change == lifecycle.Change(failed.action, (replace(former, events=(WARNING,)),))


def test_of_an_attempt_that_is_told_about_without_end_the_newest_events_are_kept() -> None:
    action = task()
    attempt = first(action)
    for number in range(lifecycle.EVENTS_KEPT + 5):
        seen = Observation(Presence.ALIVE, events=(replace(WARNING, message=str(number)),))
        (attempt,) = lifecycle.note(action, attempt, seen).attempts
    assert len(attempt.events) == lifecycle.EVENTS_KEPT
    assert attempt.events[-1].message == str(lifecycle.EVENTS_KEPT + 4)


def test_the_last_place_that_was_told_is_kept() -> None:
    action, early, late = task(), Place("flyte", "p", "u", "main"), Place("flyte", "p", "u", "main", "node-1")
    waiting = lifecycle.report(action, first(action), told(Phase.WAITING_FOR_RESOURCES, place=early), Budget())
    assert waiting.action is not None
    running = lifecycle.report(waiting.action, waiting.attempts[0], told(Phase.RUNNING, 1, place=late), Budget())
    assert running.action is not None
    ended = lifecycle.report(running.action, running.attempts[0], told(Phase.SUCCEEDED, 2), Budget())
    assert [each.attempts[0].place for each in (waiting, running, ended)] == [early, late, late]
