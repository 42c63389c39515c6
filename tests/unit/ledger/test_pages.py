"""Pages by key: whatever the order, and whatever comes between two of them."""

import itertools
from collections.abc import Awaitable, Sequence
from dataclasses import replace

import pytest

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.filters import BadToken, BadValue, Filter, Function, Order, Query, UnknownField, key_token
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.shown import ShownRun
from flyte_manager.store import run_lists
from flyte_manager.store.run_lists import Scope
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle, told
from tests.fakes.orders import action_id, new_run, new_task, run_id

SCOPE = Scope(ProjectId("flytesnacks", "development"))
SORTED = [field for field in run_lists.FIELDS if field != "labels"]


@pytest.fixture
async def many(middle: Middle, clock: FakeClock) -> Middle:
    """24 runs, two in each moment, a third of them FAILED, a third live; one half is Ada's, the other nobody's."""
    for number in range(24):
        order = new_run(f"r{number:02}")
        await middle.ledger.create_run(replace(order, created_by_subject="ada" if number % 2 else ""))
        clock.advance(number % 2)
    for number in range(0, 24):
        root = await middle.action(action_id(run=f"r{number:02}"))
        if number % 3 == 1:
            failure = Failure(ErrorKind.USER, "X", "no", recoverable=False)
            await middle.ledger.report(told(root, Phase.FAILED, clock, failure=failure), Budget())
        if number % 3 == 2:
            await middle.ledger.report(told(root, Phase.SUCCEEDED, clock), Budget())
        clock.advance(0.25)
    return middle


async def pages(middle: Middle, query: Query) -> list[list[str]]:
    found = []
    for _ in range(100):
        rows, token = await middle.reader.runs(SCOPE, query)
        found.append([run.id.name for run in rows])
        if not token:
            return found
        assert len(rows) == query.limit
        query = replace(query, after=token, offset=0)
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("field", SORTED)
@pytest.mark.parametrize("descending", [True, False])
async def test_pages_together_are_the_whole_list(many: Middle, field: str, descending: bool) -> None:
    """Also where many rows are sorted by the same value, or by none."""
    order = (Order(field, descending),)
    (whole,) = await pages(many, Query(order=order, limit=100))
    assert len(set(whole)) == 24
    assert list(itertools.chain(*await pages(many, Query(order=order, limit=5)))) == whole
    two = Query((Filter("phase", Function.VALUE_IN, ["5", "6"]),), order, limit=3)
    assert list(itertools.chain(*await pages(many, two))) == [name for name in whole if int(name[1:]) % 3]


async def test_rows_are_sorted_by_the_first_field_then_by_the_next_then_newest_first(many: Middle) -> None:
    order = (Order("phase", descending=False), Order("created_by"), Order("name", descending=False))
    (whole,) = await pages(many, Query(order=order, limit=100))
    numbers = range(24)
    rank = {0: 1, 1: 6, 2: 5}  # QUEUED, FAILED, SUCCEEDED
    assert whole == [f"r{each:02}" for each in sorted(numbers, key=lambda each: (rank[each % 3], -(each % 2), each))]
    (newest,) = await pages(many, Query(limit=100))
    assert newest == [f"r{each:02}" for each in reversed(numbers)]


async def test_runs_that_come_between_two_pages_neither_repeat_nor_hide_one(many: Middle, clock: FakeClock) -> None:
    rows, token = await many.reader.runs(SCOPE, Query(limit=10))
    clock.advance(1)
    for name in ("x1", "x2", "x3"):
        await many.ledger.create_run(new_run(name))
    following, _ = await many.reader.runs(SCOPE, Query(limit=100, after=token))
    assert [run.id.name for run in [*rows, *following]] == [f"r{each:02}" for each in reversed(range(24))]


async def test_an_offset_is_a_token_too(many: Middle) -> None:
    rows, token = await many.reader.runs(SCOPE, Query(limit=3, offset=20))
    assert [run.id.name for run in rows] == ["r03", "r02", "r01"]
    rows, token = await many.reader.runs(SCOPE, Query(limit=3, after=token))
    assert ([run.id.name for run in rows], token) == (["r00"], "")


async def test_actions_are_paged_oldest_first(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    for number in range(7):
        await middle.ledger.enqueue(new_task(f"c{number}"))
    query, found = Query(limit=3), []
    while True:
        _, rows, token = await middle.reader.actions(run_id(), query)
        found += [each.id.name for each in rows]
        if not token:
            break
        query = replace(query, after=token)
        await middle.ledger.enqueue(new_task(f"a_{len(found)}"))  # comes before the others by its name
    assert found == ["a0", *(f"c{number}" for number in range(7))]


async def test_a_token_of_another_list_or_order_and_a_broken_one_are_refused(many: Middle) -> None:
    _, token = await many.reader.runs(SCOPE, Query(limit=3))
    default = [Order("created_at"), Order("name"), Order("project"), Order("domain")]
    wrong = [
        *("x", "!", "W10", token[:-3], token + "A", "A" * 9000, "W" * 4000),
        key_token(default, ["yesterday", "r01", "flytesnacks", "development"]),
        key_token(default[:2], ["2026-01-01T00:00:00Z", "r01"]),
        key_token(default, ["x" * 2000, "r01", "a", "b"]),
    ]
    for each in wrong:
        with pytest.raises((BadToken, BadValue)):
            await many.reader.runs(SCOPE, Query(limit=3, after=each))
    with pytest.raises(BadToken, match="order"):
        await many.reader.runs(SCOPE, Query(order=(Order("phase"),), after=token))
    with pytest.raises(UnknownField, match="sort"):
        await many.reader.runs(SCOPE, Query(order=(Order("digest"),)))


async def test_what_changes_is_looked_at_once_also_where_it_is_another_scopes(
    many: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch of a quiet task must not read all that others did again and again."""
    monkeypatch.setattr(run_lists, "PAGE", 10)

    def changed(scope: Scope, after: run_lists.Cursor) -> Awaitable[tuple[Sequence[ShownRun], run_lists.Cursor]]:
        return many.database.read(lambda connection: run_lists.changed(connection, scope, after))

    newest = await many.database.read(run_lists.newest_revision)
    assert await changed(Scope(SCOPE.project, "quiet.task"), (0, "", "", "")) == ([], newest)
    cursor: run_lists.Cursor = (0, "", "", "")
    found: list[str] = []
    for expected in (10, 10, 4):
        page, cursor = await changed(SCOPE, cursor)
        assert len(page) == expected
        found += [run.id.name for run in page]
    assert (len(set(found)), cursor) == (24, newest)
    assert await changed(SCOPE, cursor) == ([], newest)
