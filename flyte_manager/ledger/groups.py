"""Following groups of runs: all of them once, then those that changed.

A wake-up tells that runs of the project changed; their rows past the cursor tell which groups they belong to, and these
are counted anew. That costs what the groups hold, so the next count waits a multiple of what the last one took: a watch
of a million runs is late by seconds, and never keeps a reader of the database to itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from functools import partial

from flyte_manager.domain.groups import Group, Span
from flyte_manager.ledger.wakeups import RUNS, Wakeups, next_change
from flyte_manager.store import run_groups, run_lists
from flyte_manager.store.engine import Connection, Database

REST = 4.0
"""How many times as long as a count took it is at least until the next."""


async def follow_groups(
    database: Database, wakeups: Wakeups, span: Span
) -> AsyncGenerator[tuple[Sequence[Group], Collection[str]], None]:
    """(groups that are new or changed, names of those that are gone); the first time all, then forever, unless the time
    of the span has an end."""
    loop = asyncio.get_running_loop()
    topic = (RUNS, span.project.project, span.project.domain)
    with wakeups.subscribe(topic) as event:
        cursor = await database.read(run_lists.newest_revision)
        told = dict(await database.read(partial(run_groups.groups, span=span)))
        yield list(told.values()), ()
        while span.until is None:
            await next_change(event)
            event.clear()
            began = loop.time()
            names, cursor = await database.read(partial(_changed, span=span, after=cursor))
            if names:
                now = await database.read(partial(run_groups.groups, span=span, names=names))
                news = [group for name, group in now.items() if told.get(name) != group]
                gone = {name for name in names if name in told and name not in now}
                told = {**_without(told, gone), **now}
                if news or gone:
                    yield news, gone
            await asyncio.sleep(REST * (loop.time() - began))


def _changed(connection: Connection, *, span: Span, after: run_lists.Cursor) -> tuple[set[str], run_lists.Cursor]:
    """The tasks of the runs that changed past the cursor."""
    names: set[str] = set()
    while True:
        found, after = run_lists.changed(connection, run_lists.Scope(span.project), after)
        names |= {run.root.task_name for run in found}
        if len(found) < run_lists.PAGE:
            return names, after


def _without(told: Mapping[str, Group], gone: Collection[str]) -> dict[str, Group]:
    return {name: group for name, group in told.items() if name not in gone}
