"""What may happen to runs and actions, and the only writer of their rows.

Each call is one transaction. After its commit the changed actions are told to the listeners (the executor) and to the
wake-ups (watchers), never before: what a client was told is on disk (DESIGN.md §4.5).
"""

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action, Budget, Resource, Run
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure, Observation
from flyte_manager.domain.errors import (
    ActionDiffers,
    Invalid,
    NotGiven,
    RunDiffers,
    RunEnded,
    Unavailable,
    UnknownRun,
    Unready,
)
from flyte_manager.domain.ids import ROOT, ActionId, AttemptId, RunId
from flyte_manager.domain.orders import NewAction, NewRun
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import Clock
from flyte_manager.ledger.wakeups import RUNS, Wakeups
from flyte_manager.ledger.work import Work
from flyte_manager.store import actions, attempts, cache, retention, runs, tasks
from flyte_manager.store.engine import Database, Transaction

log = logging.getLogger(__name__)

Listener = Callable[[Action], None]
T = TypeVar("T")


class NotACondition(Unready):
    """action {name!r} is not a condition: only conditions take a signal."""


class SignalledAlready(Unready):
    """condition {name!r} has ended already ({phase}): it takes no other signal."""


class BeingDeleted(Unavailable):
    """a former run {run!r} is being deleted: try again in a moment, or choose another name."""


class SourceDeleted(Unavailable):
    """the outputs that were found in the cache are being deleted, with their run {run!r}: it is looked up again."""


class BaseDiffers(Invalid):
    """run_output_base {given!r} is not the run's base {base!r}: leave it empty or send the run's."""


class Ledger:
    """The writer of runs and actions."""

    def __init__(self, database: Database, wakeups: Wakeups, clock: Clock) -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Calls the listener on the event loop with each changed action, after the commit."""
        self._listeners.append(listener)

    async def create_run(self, order: NewRun, *, failure: Failure | None = None) -> tuple[Run, Action]:
        """The run and its root action, made now or by an earlier equal request. `failure` tells why it can't be run.
        Raises RunDiffers, BeingDeleted."""

        def write(work: Work) -> tuple[Run, Action]:
            found = runs.get(work.tx.connection, order.id)
            if found is not None:
                if found.digest != order.digest:
                    raise RunDiffers(name=order.id.name)
                return found, work.action(ActionId(order.id, ROOT))
            if retention.is_begun(work.tx.connection, order.id):
                raise BeingDeleted(run=order.id.name)
            tasks.keep_spec(work.tx, order.spec_digest, order.spec)
            run = _new_run(order, work.at)
            runs.insert(work.tx, run)
            root = work.add(_root(order, work.at))
            if failure is not None:
                work.fail(root, failure)
            return run, root

        return await self.transact(write)

    async def enqueue(self, order: NewAction, *, failure: Failure | None = None) -> None:
        """Records a child action; QUEUED is the order to run it. Repeating it changes nothing. `failure` tells why a
        FAILED trace failed, or why a task can't be run. Raises UnknownRun, UnknownAction, ActionDiffers, RunEnded."""

        def write(work: Work) -> None:
            run = runs.current(work.tx, order.id.run)
            if run is None:
                raise UnknownRun(name=order.id.run.name, project=order.id.run.project, domain=order.id.run.domain)
            if order.base_uri and order.base_uri.rstrip("/") != run.base_uri:
                raise BaseDiffers(given=order.base_uri, base=run.base_uri)
            if not order.parent:
                raise NotGiven(field="parent_action_name (root actions are made by RunService.CreateRun)")
            parent = work.action(ActionId(order.id.run, order.parent))
            found = actions.current(work.tx, order.id)
            if found is not None:
                self._enqueue_again(work, order, found, parent, failure)
                return
            if parent.final:
                raise RunEnded(run=order.id.run.name, phase=parent.phase.name, parent=parent.id.name)
            if order.spec_digest:
                tasks.keep_spec(work.tx, order.spec_digest, order.spec)
            if order.kind is Kind.TASK and failure is not None:
                work.fail(work.add(_child(order, run, work.at, None)), failure)
            else:
                work.add(_child(order, run, work.at, failure))

        await self.transact(write)

    async def place(self, action: ActionId, resource: Resource) -> Action:
        """Keeps which resource stands for the action; the action as it is now. No watcher is woken: it changes nothing
        for them. Raises UnknownAction."""

        def write(work: Work) -> Action:
            placed = replace(work.action(action), resource=resource)
            actions.update(work.tx, placed)
            return placed

        return await self.transact(write)

    async def report(self, told: AttemptReport, budget: Budget) -> None:
        """What the executor saw of an attempt. Raises UnknownAction, UnknownAttempt, NotATaskPhase, SourceDeleted."""

        def write(work: Work) -> None:
            source = told.cache_source
            if source is not None and runs.get(work.tx.connection, source.action.run) is None:
                raise SourceDeleted(run=source.action.run.name)
            action = work.action(told.attempt.action)
            change = lifecycle.report(action, work.attempt(told.attempt), told, budget)
            work.save(change, action)
            if told.keep is not None and change.action is not None and change.action.final:
                cache.put(work.tx, told.keep)

        await self.transact(write)

    async def note(self, attempt: AttemptId, seen: Observation) -> None:
        """Warnings that came without a change of phase; other events come with the next report. Raises UnknownAction,
        UnknownAttempt."""
        warnings = [event for event in seen.events if event.warning]
        if not warnings:
            return
        known = await self._database.read(lambda connection: attempts.get(connection, attempt))
        if known is not None and all(event in known.events for event in warnings):
            return

        def write(work: Work) -> None:
            action = work.action(attempt.action)
            work.save(lifecycle.note(action, work.attempt(attempt), seen), action)

        await self.transact(write)

    async def put_state(
        self, action: ActionId, state: str, *, phase: Phase | None, failure: Failure | None, budget: Budget
    ) -> None:
        """StateService.Put: another client reports. A phase in the document moves the action like a report of the
        executor; a document that comes too late, with a phase that the action does not have, is not kept. Raises
        UnknownAction, UnknownAttempt, NotATaskPhase."""

        def write(work: Work) -> None:
            found = work.action(action)
            if phase is not None and phase is not found.phase:
                told = AttemptReport(found.attempt_id, phase, work.at, failure=failure)
                attempt = work.attempt(told.attempt)
                work.save(lifecycle.report(found, attempt, told, budget), found)
                found = work.action(action)
            if found.phase is (phase or found.phase):
                # the same revision: no watcher is shown the document, and a child's end keeps its place in the order
                actions.update(work.tx, replace(found, state=state))

        await self.transact(write)

    async def abort_run(self, run: RunId, reason: str, *, by: bytes = b"") -> None:
        """Ends every live action of the run; a run that has ended stays as it is. `by`:
        flyteidl2.common.EnrichedIdentity. Raises UnknownRun."""

        def write(work: Work) -> bool:
            if runs.get(work.tx.connection, run) is None:
                raise UnknownRun(name=run.name, project=run.project, domain=run.domain)
            return work.abort(work.action(ActionId(run, ROOT)), reason, by)

        if not await self.transact(write):
            log.info("run %s has ended: nothing to abort", run)

    async def abort_action(self, action: ActionId, reason: str, *, by: bytes = b"") -> None:
        """Ends the action and all below it; one that has ended stays as it is. Raises UnknownAction."""

        def write(work: Work) -> bool:
            return work.abort(work.action(action), reason, by)

        if not await self.transact(write):
            log.info("action %s has ended: nothing to abort", action)

    async def signal(self, action: ActionId, value: bytes, *, by: bytes = b"") -> None:
        """Answers a condition; `by`: flyteidl2.common.EnrichedIdentity. The same answer again is fine. Raises
        UnknownAction, NotACondition, SignalledAlready."""

        def write(work: Work) -> None:
            found = work.action(action)
            if found.kind is not Kind.CONDITION:
                raise NotACondition(name=action.name)
            if found.final and found.value == value:
                return
            if found.final:
                raise SignalledAlready(name=action.name, phase=found.phase.name)
            work.save(_ended(replace(found, value=value, signalled_by=by), Phase.SUCCEEDED, work.at), found)

        await self.transact(write)

    async def expire(self, action: ActionId, message: str) -> None:
        """Ends a condition that nobody answered in time."""

        def write(work: Work) -> None:
            found = work.action(action)
            if not found.final:
                failure = Failure(ErrorKind.USER, "ConditionTimedOut", message, recoverable=False)
                work.save(_ended(replace(found, failure=failure), Phase.TIMED_OUT, work.at), found)

        await self.transact(write)

    def _enqueue_again(
        self, work: Work, order: NewAction, found: Action, parent: Action, failure: Failure | None
    ) -> None:
        difference = _difference(order, found)
        if difference:
            raise ActionDiffers(name=order.id.name, difference=difference)
        if found.kind is Kind.TRACE:
            if found.phase is Phase.FAILED and found.spec != order.spec:
                new = _trace_again(found, order, work.at, failure)
                work.save(lifecycle.Change(new), found)
            return
        if parent.final or not lifecycle.stale(found, parent):
            return
        if found.kind is Kind.CONDITION:
            work.save(lifecycle.ask_again(found, work.at), found)
            return
        again = work.save(lifecycle.again(found, work.at), found)
        if failure is not None:
            work.fail(again, failure)

    async def transact(self, operation: Callable[[Work], T]) -> T:
        """Runs the operation in one transaction, then tells what it changed, though the caller may have gone."""

        def transaction(tx: Transaction) -> tuple[T, list[Action]]:
            work = Work(tx, self._clock())
            return operation(work), work.changed

        answer, _ = await self._database.write(transaction, then=self._tell)
        return answer

    def _tell(self, written: tuple[object, list[Action]]) -> None:
        for action in written[1]:
            for listener in self._listeners:
                listener(action)
            self._wakeups.notify(_topics(action))


def _topics(action: Action) -> Iterator[Hashable]:
    yield action.id
    yield action.id.run
    yield (action.id.run, action.parent, "children")
    if action.is_root:
        yield RUNS
        yield (RUNS, action.id.run.project, action.id.run.domain)


def _new_run(order: NewRun, at: datetime) -> Run:
    return Run(
        id=order.id,
        phase=Phase.QUEUED,
        task=order.task.name,
        input_uri=order.input_uri,
        base_uri=order.base_uri,
        created_at=at,
        run_spec=order.run_spec,
        digest=order.digest,
        source=order.source,
        relation=order.relation,
        related_to=order.related_to,
        created_by=order.created_by,
        created_by_subject=order.created_by_subject,
        labels=order.labels,
    )


def _root(order: NewRun, at: datetime) -> Action:
    action = Action(
        id=ActionId(order.id, ROOT),
        kind=Kind.TASK,
        phase=Phase.QUEUED,
        created_at=at,
        task=order.task,
        spec_digest=order.spec_digest,
        input_uri=order.input_uri,
        base_uri=order.base_uri,
        cache_key=order.cache_key,
        elsewhere=order.elsewhere,
    )
    return _queued(action, at)


def _child(order: NewAction, run: Run, at: datetime, failure: Failure | None) -> Action:
    phase = Phase.PAUSED if order.kind is Kind.CONDITION else order.phase
    action = Action(
        id=replace(order.id, run=run.id),
        kind=order.kind,
        phase=phase,
        created_at=at,
        parent=order.parent,
        group=order.group,
        task=order.task,
        spec_digest=order.spec_digest,
        spec=b"" if order.spec_digest else order.spec,
        input_uri=order.input_uri,
        base_uri=run.base_uri,
        cache_key=order.cache_key,
        output_uri=order.output_uri,
        started_at=order.started_at or (at if phase is Phase.PAUSED else None),
        ended_at=order.ended_at or (at if phase.final else None),
        failure=failure,
        elsewhere=order.elsewhere,
    )
    return _queued(action, at)


def _trace_again(found: Action, order: NewAction, at: datetime, failure: Failure | None) -> Action:
    """The row of a trace that failed once and is over again."""
    return replace(
        found,
        phase=order.phase,
        state=lifecycle.state_json(found, order.phase, at),
        spec=order.spec,
        failure=failure,
        started_at=order.started_at,
        ended_at=order.ended_at or at,
        output_uri=order.output_uri,
    )


def _queued(action: Action, at: datetime) -> Action:
    output = action.output_prefix(1) if action.kind is Kind.TASK else action.output_uri
    return replace(action, state=lifecycle.state_json(action, action.phase, at), output_uri=output)


def _ended(action: Action, phase: Phase, at: datetime) -> lifecycle.Change:
    state = lifecycle.state_json(action, phase, at)
    return lifecycle.Change(replace(action, phase=phase, state=state, ended_at=at))


def _difference(order: NewAction, found: Action) -> str:
    """What a repeated enqueue says otherwise than the first; empty when they agree."""
    if order.parent != found.parent:
        return f"parent {found.parent!r}"
    if order.kind is not found.kind:
        return f"kind {found.kind.name}"
    if order.task.name != found.task.name:
        return f"task {found.task.name.name!r} version {found.task.name.version!r}"
    if order.input_uri != found.input_uri:
        return f"input_uri {found.input_uri!r}"
    return ""
