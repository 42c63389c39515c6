"""Every phase x every observation, report, abort: what may follow, and that docs/lifecycle.md draws it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action, Budget
from flyte_manager.domain.attempts import Attempt, AttemptReport, ErrorKind, Failure, Observation, Presence
from flyte_manager.domain.bounds import UNBOUNDED, Allowance, Bound, Left
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.lifecycle import Do
from flyte_manager.domain.phases import FINAL, ROAD, Kind, Phase
from tests.decisions import DOCUMENT, GIVEN_UP, TASK_PHASES, attempt_of, document, task
from tests.fakes.clock import NOW

LEFTS = (
    UNBOUNDED,
    Left(start=5.0),
    *(Left(start, end, Allowance(bound, 60)) for start, end, bound in product((0.0, 5.0), (-1.0, 0.0, 3.0), Bound)),
)
SEEN = [
    *(Observation(presence, failure=failure) for presence in Presence for failure in (None, GIVEN_UP)),
    *(Observation(Presence.ALIVE, phase=phase, reason=reason) for phase in ROAD for reason in ("", "no room")),
]
USER = Failure(ErrorKind.USER, "ValueError", "no")
FAILURES = (
    None,
    USER,
    replace(USER, recoverable=False),
    Failure(ErrorKind.SYSTEM, "ProcessVanished", "gone"),
    Failure(ErrorKind.UNKNOWN, "", ""),
)
BUDGETS = (lifecycle.NO_RETRIES, Budget(), Budget(retries=2), Budget(retries=2, backoff_base=7))
ENDED = (Presence.EXITED, Presence.VANISHED)


def steps() -> Iterator[tuple[Action, Observation, Left, lifecycle.Step]]:
    for phase, seen, left in product(TASK_PHASES, SEEN, LEFTS):
        yield task(phase), seen, left, lifecycle.step(task(phase), seen, left)


def test_what_has_ended_in_its_row_is_stopped_where_it_lives_and_else_let_be() -> None:
    for action, seen, _, step in steps():
        if action.final:
            assert step == lifecycle.Step(Do.STOP if seen.presence is Presence.ALIVE else Do.NOTHING)
        else:
            assert step.do is not Do.STOP


def test_what_has_ended_in_the_world_is_reported_whatever_bound_is_reached() -> None:
    for action, seen, _, step in steps():
        over = seen.presence in ENDED or seen.failure is not None
        assert (step.do is Do.REPORT_END) == (over and not action.final)


def test_what_lives_or_waits_expires_when_a_bound_is_reached_and_never_else() -> None:
    for action, seen, left, step in steps():
        over = action.final or seen.presence in ENDED or seen.failure is not None
        assert (step.do is Do.EXPIRE) == (not over and left.end <= 0)
        assert (step.failure is not None) == (step.do is Do.EXPIRE)
        if step.failure is not None and left.allowance is not None:
            assert step.failure.code == left.allowance.bound.value
            assert step.failure.recoverable == (left.allowance.bound is not Bound.DEADLINE)


def test_only_what_was_never_started_is_launched_and_not_in_a_backoff() -> None:
    for _, seen, left, step in steps():
        if step.do in (Do.LAUNCH, Do.WAIT):
            assert seen.presence is Presence.ABSENT
            assert (step.do is Do.WAIT) == (left.start > 0)


def test_no_bound_is_slept_through() -> None:
    for action, seen, left, step in steps():
        ends = action.final or step.do in (Do.REPORT_END, Do.EXPIRE)
        assert ends or step.after <= left.end
        assert step.do is not Do.WAIT or 0 < step.after <= left.start
        assert seen.presence is not Presence.ALIVE or ends or step.after == left.end


def test_progress_is_reported_when_there_is_some() -> None:
    for action, seen, left, step in steps():
        if step.do in (Do.NOTHING, Do.REPORT_PROGRESS) and not action.final:
            news = (seen.phase, seen.reason) != (action.phase, action.reason) and seen.phase >= action.phase
            assert (step.do is Do.REPORT_PROGRESS) == news, (action.phase, seen, left)


def rows() -> Iterator[tuple[Action, Attempt]]:
    """Actions in every phase, in their first and third attempt, with their present attempt."""
    for phase, (number, failures) in product(TASK_PHASES, ((1, (0, 0)), (3, (2, 0)), (3, (1, 1)), (3, (0, 2)))):
        counted = {"user_failures": failures[0], "system_failures": failures[1]}
        action = replace(task(phase), attempt=number, **counted)  # type: ignore[arg-type]
        yield action, attempt_of(action)


def reports() -> Iterator[tuple[Action, Attempt, AttemptReport, Budget, lifecycle.Change]]:
    for (action, attempt), phase, failure, budget in product(rows(), TASK_PHASES, FAILURES, BUDGETS):
        if (failure is not None) <= (phase in (Phase.FAILED, Phase.TIMED_OUT)):
            told = AttemptReport(action.attempt_id, phase, NOW, failure=failure)
            yield action, attempt, told, budget, lifecycle.report(action, attempt, told, budget)


def test_the_first_end_stays() -> None:
    for action, attempt, told, _, change in reports():
        if action.final:
            assert change.action is None
            assert [(each.phase, each.failure) for each in change.attempts] in ([], [(action.phase, None)]), told
            assert bool(change.attempts) == (told.phase in FINAL and told.phase is not attempt.phase)


def test_a_phase_moves_forward_or_to_the_next_attempt() -> None:
    for action, _, told, _, change in reports():
        after = change.action
        if action.final or after is None:
            assert action.final or told.phase <= action.phase, told
            continue
        if after.attempt == action.attempt:
            assert after.phase is told.phase
            assert after.phase.final or ROAD.index(after.phase) > ROAD.index(action.phase)
            assert [(each.id, each.phase) for each in change.attempts] == [(action.attempt_id, told.phase)]
        else:
            next_one = AttemptId(action.id, action.attempt + 1)
            assert (after.phase, after.attempt_id) == (Phase.QUEUED, next_one)
            ends = [(action.attempt_id, told.phase), (next_one, Phase.QUEUED)]
            assert [(each.id, each.phase) for each in change.attempts] == ends


def test_there_is_a_next_attempt_as_long_as_the_budget_lasts() -> None:
    for action, _, told, budget, change in reports():
        if action.final or change.action is None:
            continue
        failed = told.phase in (Phase.FAILED, Phase.TIMED_OUT)
        system = told.failure is not None and told.failure.kind is ErrorKind.SYSTEM
        counts = (action.user_failures + (failed and not system), action.system_failures + (failed and system))
        assert (change.action.user_failures, change.action.system_failures) == counts
        left = counts[1] <= budget.system_retries if system else counts[0] <= budget.retries
        recoverable = told.failure is None or told.failure.recoverable
        assert (change.action.attempt > action.attempt) == (failed and left and recoverable)
        paced = change.action.not_before is not None
        assert paced == (change.action.attempt > action.attempt and not system and budget.backoff_base > 0)


def test_rows_agree_with_their_phase() -> None:
    for action, _, told, _, change in reports():
        for row in (change.action, *change.attempts):
            if row is not None and not action.final:
                assert (row.ended_at is not None) == row.phase.final
                assert row.failure is None or row.phase in (Phase.FAILED, Phase.TIMED_OUT)
        if change.action is not None and change.action.final:
            assert change.action.failure == told.failure


def test_a_report_can_be_repeated() -> None:
    for action, attempt, told, budget, change in reports():
        present = next((each for each in change.attempts if each.id == told.attempt), attempt)
        again = lifecycle.report(change.action or action, present, told, budget)
        assert again.action is None
        assert all(each.events == present.events for each in again.attempts)


def test_a_report_about_a_former_attempt_changes_no_phase() -> None:
    for (action, attempt), told, end in product(rows(), TASK_PHASES, (Phase.FAILED, Phase.TIMED_OUT)):
        if action.attempt > 1:
            former = replace(attempt, id=AttemptId(action.id, action.attempt - 1), phase=end, ended_at=NOW)
            change = lifecycle.report(action, former, AttemptReport(former.id, told, NOW, failure=None), Budget(9))
            assert change.action in (None, action)
            assert {each.phase for each in change.attempts} <= {end}


@pytest.mark.parametrize("kind", Kind)
def test_an_abort_ends_what_lives_and_nothing_else(kind: Kind) -> None:
    for action, attempt in rows():
        waits = replace(action, kind=kind, not_before=NOW)
        change = lifecycle.abort(waits, attempt if kind is Kind.TASK else None, reason="enough", at=NOW)
        if action.final:
            assert change == lifecycle.Change(None)
            continue
        assert change.action is not None
        assert (change.action.phase, change.action.reason, change.action.ended_at) == (Phase.ABORTED, "enough", NOW)
        assert change.action.not_before is None
        assert {each.phase for each in change.attempts} == ({Phase.ABORTED} if kind is Kind.TASK else set())
        assert lifecycle.abort(change.action, None, reason="more", at=NOW) == lifecycle.Change(None)


def test_only_what_failed_before_the_attempt_of_its_parent_gets_out_of_its_end() -> None:
    parent = replace(task(Phase.RUNNING), attempt_revision=10)
    for (child, _), kind, revision in product(rows(), Kind, (9, 10, 11)):
        found = replace(child, kind=kind, revision=revision)
        failed = found.phase in (Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED)
        assert lifecycle.stale(found, parent) == (failed and kind is not Kind.TRACE and revision == 9)


def test_the_document_draws_these_decisions() -> None:
    """Otherwise: make docs"""
    text = DOCUMENT.read_text()
    assert document(text) == text
