"""One transaction's writes of runs and actions, with what must be told after its commit."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt, AttemptReport, Failure
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.ledger.cache import release
from flyte_manager.ledger.watch import UnknownAttempt, known
from flyte_manager.store import actions, attempts, runs
from flyte_manager.store.engine import Transaction


@dataclass(slots=True)
class Work:
    """What a write of the ledger works with."""

    tx: Transaction
    at: datetime
    changed: list[Action] = field(default_factory=list)

    def save(self, change: lifecycle.Change, before: Action) -> Action:
        """Writes the new rows; the action as it is then. What ended takes all that lives below it along."""
        for attempt in change.attempts:
            if attempt.id.number > before.attempt:
                attempts.insert(self.tx, attempt)
            else:
                attempts.update(self.tx, attempt)
        if change.action is None:
            return before
        began = self.tx.revision if change.action.attempt != before.attempt else before.attempt_revision
        after = replace(change.action, revision=self.tx.revision, attempt_revision=began, updated_at=self.at)
        actions.update(self.tx, after)
        if after.is_root:
            runs.mirror(self.tx, after)
        self.changed.append(after)
        if after.final and not before.final:
            release(self.tx, after)
            self._abort_below(after)
        return after

    def add(self, action: Action) -> Action:
        revision = self.tx.revision
        stamped = replace(action, revision=revision, attempt_revision=revision, updated_at=self.at)
        actions.insert(self.tx, stamped)
        if stamped.kind is Kind.TASK:
            attempts.insert(self.tx, lifecycle.new_attempt(stamped, stamped.attempt, self.at))
        self.changed.append(stamped)
        return stamped

    def action(self, action: ActionId) -> Action:
        """Raises UnknownAction."""
        return known(actions.current(self.tx, action), action)

    def attempt(self, attempt: AttemptId) -> Attempt:
        """Raises UnknownAttempt."""
        found = attempts.current(self.tx, attempt)
        if found is None:
            raise UnknownAttempt(number=attempt.number, name=attempt.action.name)
        return found

    def fail(self, action: Action, failure: Failure) -> None:
        """Ends a task's action that can't be run."""
        told = AttemptReport(action.attempt_id, Phase.FAILED, self.at, failure=failure)
        self.save(lifecycle.report(action, self.attempt(told.attempt), told, lifecycle.NO_RETRIES), action)

    def abort(self, action: Action, reason: str, by: bytes) -> bool:
        """Ends the action, and all below it; false when it has ended already."""
        attempt = attempts.current(self.tx, action.attempt_id)
        change = lifecycle.abort(action, attempt, reason=reason, at=self.at, by=by)
        self.save(change, action)
        return change.action is not None

    def _abort_below(self, ended: Action) -> None:
        """All levels at once: a tree may be a thousand actions wide or deep."""
        found = actions.live_below(self.tx.connection, ended.id)
        if not found:
            return
        present = attempts.present(self.tx.connection, ended.id.run, found)
        changes = [lifecycle.abort(each, present.get(each.id), reason="parent ended", at=self.at) for each in found]
        ended_now = [change.action for change in changes if change.action is not None]
        after = [replace(each, revision=self.tx.revision, updated_at=self.at) for each in ended_now]
        actions.update(self.tx, *after)
        written = [attempt for change in changes for attempt in change.attempts]
        if written:
            attempts.update(self.tx, *written)
        for each in after:
            release(self.tx, each)
        self.changed += after
