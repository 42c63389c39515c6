"""The door for executors that run apart: what they tell of actions and attempts (docs/decisions/0008).

An action that one of them recorded is theirs (`elsewhere`), and so are its retries. What they tell of any other action
counts like a report of the manager's own executor, the task's retry budget included.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from flyte_manager.domain import lifecycle, outside
from flyte_manager.domain.actions import Action, Budget
from flyte_manager.domain.attempts import AttemptReport
from flyte_manager.domain.errors import Ended, NotGiven, Refusal, Unready
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.work import Work
from flyte_manager.store import actions, tasks

BudgetOf = Callable[[bytes], Budget]
"""The retry budget that a flyteidl2.task.TaskSpec sets."""

Merge = Callable[[bytes, bytes], bytes]
"""Joins what was told of an attempt (Attempt.told) with what is told now."""


class NotThisPhase(Unready):
    """{kind} {name!r} is {phase} and can't become {new}."""


class NoNextAttempt(Ended):
    """action {name!r} has ended ({phase}), or its parent has: attempt {number} of it comes too late."""


class Outside:
    """Writes what they tell. In a report the attempt's number 0 means the present one."""

    def __init__(self, ledger: Ledger, *, budget: BudgetOf, merge: Merge) -> None:
        self._ledger = ledger
        self._budget = budget
        self._merge = merge

    async def status(self, told: AttemptReport, *, by: bytes = b"") -> None:
        """About an action; `by`: flyteidl2.common.EnrichedIdentity of who aborted it. Raises UnknownAction,
        UnknownAttempt, NotATaskPhase, NotThisPhase, NotGiven."""
        await self._ledger.transact(lambda work: self._status(work, told, by))

    async def events(self, events: Sequence[AttemptReport]) -> Refusal | None:
        """Keeps all that can be kept; returns what was wrong with the first one that could not."""

        def write(work: Work) -> Refusal | None:
            first: Refusal | None = None
            for each in events:
                try:
                    self._event(work, each)
                except Refusal as refusal:  # it changed nothing
                    first = first or refusal
            return first

        return await self._ledger.transact(write)

    def _status(self, work: Work, told: AttemptReport, by: bytes) -> None:
        action = work.action(told.attempt.action)
        match action.kind:
            case Kind.TASK if told.phase is Phase.ABORTED:
                work.abort(action, told.reason, by)
            case Kind.TASK:
                self._task_status(work, action, told)
            case Kind.CONDITION:
                _condition_status(work, action, told, by)
            case Kind.TRACE if told.phase is not action.phase:
                raise _impossible(action, told)

    def _task_status(self, work: Work, action: Action, told: AttemptReport) -> None:
        action, told = self._present(work, action, told)
        attempt = work.attempt(told.attempt)
        if not action.elsewhere:
            work.save(lifecycle.report(action, attempt, told, self._budget_for(work, action, told)), action)
        elif attempt.id.number == action.attempt:
            work.save(outside.status(action, attempt, told), action)

    def _event(self, work: Work, told: AttemptReport) -> None:
        action = work.action(told.attempt.action)
        if action.kind is not Kind.TASK:
            return  # only tasks have attempts
        action, told = self._present(work, action, told)
        attempt = work.attempt(told.attempt)
        told = replace(told, told=self._merge(attempt.told, told.told))
        if action.elsewhere:
            work.save(outside.event(action, attempt, told), action)
        else:
            work.save(lifecycle.report(action, attempt, told, self._budget_for(work, action, told)), action)

    def _present(self, work: Work, action: Action, told: AttemptReport) -> tuple[Action, AttemptReport]:
        """The action, with that attempt begun if it is a new one, and the report with its number."""
        lifecycle.check_phase(told)
        number = told.attempt.number or action.attempt
        if action.elsewhere and number > action.attempt:
            if not outside.may_begin(action) or not _may_live(work, action):
                raise NoNextAttempt(name=action.id.name, phase=action.phase.name, number=number)
            former = work.attempt(action.attempt_id)
            action = work.save(outside.begin(action, former, number, told.at), action)
        return action, told if told.attempt.number else replace(told, attempt=AttemptId(action.id, number))

    def _budget_for(self, work: Work, action: Action, told: AttemptReport) -> Budget:
        if told.phase not in outside.RETRYABLE:
            return lifecycle.NO_RETRIES  # which count only at the end
        return self._budget(tasks.spec(work.tx.connection, action.spec_digest) or b"")


def _may_live(work: Work, action: Action) -> bool:
    """Whether nothing above it has ended."""
    if not action.parent:
        return True
    parent = actions.current(work.tx, ActionId(action.id.run, action.parent))
    return parent is not None and not parent.final


def _condition_status(work: Work, action: Action, told: AttemptReport, by: bytes) -> None:
    """But for the answer itself, which is a signal."""
    if action.final or told.phase in (Phase.QUEUED, Phase.PAUSED):
        return
    match told.phase:
        case Phase.ABORTED:
            work.abort(action, told.reason, by)
        case Phase.FAILED | Phase.TIMED_OUT:
            work.save(outside.unanswered(action, told), action)
        case Phase.SUCCEEDED:
            raise NotGiven(field="output (the answer to a condition)")
        case _:
            raise _impossible(action, told)


def _impossible(action: Action, told: AttemptReport) -> NotThisPhase:
    kind = action.kind.name.lower()
    return NotThisPhase(kind=kind, name=action.id.name, phase=action.phase.name, new=told.phase.name)
