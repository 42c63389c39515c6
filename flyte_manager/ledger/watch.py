"""Following rows: subscribe, list, then the rows past the cursor at each wake-up and every 30 s (DESIGN.md §4.3)."""

from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TypeVar

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action, ActionHistory, Run, TaskName, events_of
from flyte_manager.domain.attempts import Attempt, Event
from flyte_manager.domain.catalog import DeployedTask
from flyte_manager.domain.errors import Missing, UnknownAction, UnknownRun
from flyte_manager.domain.filters import Query
from flyte_manager.domain.groups import Group, Span
from flyte_manager.domain.ids import ROOT, ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.shown import ShownAction, ShownRun
from flyte_manager.ledger.groups import follow_groups
from flyte_manager.ledger.wakeups import RUNS, Wakeups, next_change
from flyte_manager.store import action_lists, actions, attempts, run_lists, runs, tasks
from flyte_manager.store.engine import Connection, Database

Told = TypeVar("Told", Action, ShownAction)
Page = Callable[[actions.Cursor, Connection], Sequence[Told]]


class UnknownAttempt(Missing):
    """action {name!r} has no attempt {number}: attempts count from 1, and only tasks have them."""


class Reader:
    """Reads and follows runs and actions."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups

    async def run(self, run: RunId) -> Run:
        """Raises UnknownRun."""
        return await self._database.read(lambda connection: _known_run(connection, run))

    async def action(self, action: ActionId) -> Action:
        """Raises UnknownAction."""
        return await self._database.read(lambda connection: known_action(connection, action))

    async def runs(self, scope: run_lists.Scope, query: Query) -> tuple[Sequence[ShownRun], str]:
        """A page of runs, and the next page's token."""
        return await self._database.read(partial(run_lists.page, scope=scope, query=query))

    async def actions(self, run: RunId, query: Query) -> tuple[Run, Sequence[ShownAction], str]:
        """The run, a page of its actions, and the next page's token. Raises UnknownRun."""

        def read(connection: Connection) -> tuple[Run, Sequence[ShownAction], str]:
            return _known_run(connection, run), *action_lists.page(connection, run, query)

        return await self._database.read(read)

    async def live(self) -> Sequence[Action]:
        """All actions that have not ended, oldest first."""
        return await self._database.read(actions.live)

    async def deployed(self, name: TaskName) -> DeployedTask | None:
        return await self._database.read(lambda connection: tasks.get(connection, name))

    async def spec(self, digest: str) -> bytes:
        """The TaskSpec with that digest."""
        found = await self._database.read(lambda connection: tasks.spec(connection, digest))
        if found is None:
            raise LookupError(f"task spec {digest} is not in the database")
        return found

    async def history(self, action: ActionId) -> ActionHistory:
        """Raises UnknownAction."""
        return await self._database.read(lambda connection: history(connection, action))

    async def attempt(self, action: ActionId, number: int = 0) -> Attempt:
        """The attempt with that number, 0 = the present one. Raises UnknownAction, UnknownAttempt."""

        def query(connection: Connection) -> Attempt:
            return _attempt(connection, known_action(connection, action), number)

        return await self._database.read(query)

    async def run_history(self, run: RunId) -> tuple[Run, ActionHistory]:
        """The run and its root action. Raises UnknownRun."""

        def query(connection: Connection) -> tuple[Run, ActionHistory]:
            return _known_run(connection, run), history(connection, ActionId(run, ROOT))

        return await self._database.read(query)

    async def follow_action(self, action: ActionId) -> AsyncGenerator[ActionHistory, None]:
        """The action as it is and after each change; ends when it is final."""
        with self._wakeups.subscribe(action) as event:
            revision = -1
            while True:
                event.clear()
                seen = await self._wakeups.together(action, "history", partial(self.history, action))
                if seen.action.revision > revision:
                    revision = seen.action.revision
                    yield seen
                if seen.action.final:
                    return
                await next_change(event)

    async def follow_events(self, action: ActionId, number: int = 0) -> AsyncGenerator[Sequence[Event], None]:
        """The events of the attempt (0 = the one that is present now), what it waits for, then news; ends when the
        attempt is final. Traces and conditions have no attempts and so no events: theirs ends with them. Raises
        UnknownAction, UnknownAttempt."""
        if number <= 1 and (await self.action(action)).kind is not Kind.TASK:
            async for _ in self.follow_action(action):
                pass
            return
        with self._wakeups.subscribe(action) as event:
            told: Collection[Event] = ()
            while True:
                event.clear()
                seen, events = await self._database.read(partial(_events, action=action, number=number))
                number = seen.id.number
                news = [each for each in events if each not in told]
                told = frozenset(events)
                if news:
                    yield news
                if seen.phase.final:
                    return
                await next_change(event)

    async def follow_children(self, parent: ActionId) -> AsyncGenerator[Sequence[Action] | None, None]:
        """Pages of children: first those that there are, then None once, then each page of changes, forever. A child
        that failed before the parent's present attempt is left out of the first part (DESIGN.md §5)."""

        def page(after: actions.Cursor, connection: Connection) -> Sequence[Action]:
            return actions.children(connection, parent, after)

        record = await self.action(parent)
        async with aclosing(self._follow((parent.run, parent.name, "children"), page)) as pages:
            async for found, snapshot in pages:
                if snapshot and found:
                    found = [child for child in found if not lifecycle.stale(child, record)]
                if found or found is None:
                    yield found

    async def follow_runs(self, scope: run_lists.Scope) -> AsyncGenerator[Sequence[ShownRun], None]:
        """Pages of the runs that there are, newest first, and of those that changed or are new, forever. Changes are
        not kept waiting: what came meanwhile is told between two pages of the first part."""
        project = scope.project
        topic = (RUNS, project.project, project.domain) if project else RUNS
        query: Query | None = Query(limit=run_lists.PAGE)
        with self._wakeups.subscribe(topic) as event:
            cursor = await self._database.read(run_lists.newest_revision)
            while True:
                event.clear()
                if query is not None:
                    found, token = await self.runs(scope, query)
                    query = replace(query, after=token) if token else None
                    if found:
                        yield found
                changed, cursor = await self._database.read(partial(run_lists.changed, scope=scope, after=cursor))
                if changed:
                    yield changed
                if query is None and len(changed) < run_lists.PAGE:
                    await next_change(event)

    def follow_groups(self, span: Span) -> AsyncGenerator[tuple[Sequence[Group], Collection[str]], None]:
        """As ledger/groups.py tells."""
        return follow_groups(self._database, self._wakeups, span)

    async def follow_run(self, run: RunId) -> AsyncGenerator[Sequence[ShownAction] | None, None]:
        """Pages of the run's actions: first all, then None once, then each page of changes, forever."""
        await self.run(run)
        pages = self._follow(run, lambda after, connection: action_lists.changed(connection, run, after))
        async with aclosing(pages):
            async for found, _ in pages:
                yield found

    async def _follow(
        self, topic: Hashable, page: Page[Told]
    ) -> AsyncGenerator[tuple[Sequence[Told] | None, bool], None]:
        """(page, whether it belongs to the first listing); (None, False) once between the two."""
        cursor, snapshot = actions.START, True

        with self._wakeups.subscribe(topic) as event:
            while True:
                event.clear()
                read = partial(self._database.read, partial(page, cursor))
                found = await self._wakeups.together(topic, cursor, read)
                if found:
                    cursor = (found[-1].revision, found[-1].id.name)
                    yield found, snapshot
                if len(found) == actions.PAGE:
                    continue
                if snapshot:
                    snapshot = False
                    yield None, False
                await next_change(event)


def _attempt(connection: Connection, record: Action, number: int) -> Attempt:
    """Raises UnknownAttempt."""
    asked = AttemptId(record.id, number or record.attempt)
    found = attempts.get(connection, asked)
    if found is None:
        raise UnknownAttempt(name=record.id.name, number=asked.number)
    return found


def _events(connection: Connection, *, action: ActionId, number: int) -> tuple[Attempt, Sequence[Event]]:
    record = known_action(connection, action)
    found = _attempt(connection, record, number)
    return found, events_of(record, found)


def history(connection: Connection, action: ActionId) -> ActionHistory:
    """Raises UnknownAction."""
    record = known_action(connection, action)
    spec = tasks.spec(connection, record.spec_digest) if record.spec_digest else record.spec
    return ActionHistory(record, tuple(attempts.of_action(connection, action)), spec or b"")


def known_action(connection: Connection, action: ActionId) -> Action:
    """Raises UnknownAction."""
    return known(actions.get(connection, action), action)


def known(record: Action | None, action: ActionId) -> Action:
    """Raises UnknownAction."""
    if record is None:
        run = action.run
        raise UnknownAction(name=action.name, run=run.name, project=run.project, domain=run.domain)
    return record


def _known_run(connection: Connection, run: RunId) -> Run:
    record = runs.get(connection, run)
    if record is None:
        raise UnknownRun(name=run.name, project=run.project, domain=run.domain)
    return record
