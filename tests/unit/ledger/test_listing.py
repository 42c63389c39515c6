"""Lists: filters, order and pages over real rows."""

import pytest

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.filters import BadValue, Filter, Function, Order, Query, UnknownField
from flyte_manager.domain.ids import AttemptId, ProjectId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.runs import Scope
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_condition, new_run, new_task, run_id, task_spec

SCOPE = Scope(ProjectId("flytesnacks", "development"))


@pytest.fixture
async def listed(middle: Middle, clock: FakeClock) -> Middle:
    """Three runs: r1 SUCCEEDED, r2 FAILED, r3 QUEUED; r3 has a task, a condition and a `50%_off`."""
    for name in ("r1", "r2", "r3"):
        await middle.ledger.create_run(new_run(name, spec=task_spec(f"hello.{name}")))
        clock.advance(1)
    for name, phase in (("r1", Phase.SUCCEEDED), ("r2", Phase.FAILED)):
        failure = Failure(ErrorKind.USER, "X", "no") if phase is Phase.FAILED else None
        told = AttemptReport(AttemptId(action_id(run=name), 1), phase, clock(), failure=failure)
        await middle.ledger.report(told, Budget())
    await middle.ledger.enqueue(new_task("c1", run="r3", spec=task_spec("hello.50%_off")))
    await middle.ledger.enqueue(new_condition("c2", run="r3"))
    return middle


async def runs(middle: Middle, *filters: Filter, scope: Scope = SCOPE, **query: object) -> list[str]:
    found = await middle.reader.runs(scope, Query(filters, **query))  # type: ignore[arg-type]
    assert all(run.id == root.id.run for run, root in found)
    return [run.id.name for run, _ in found]


async def actions(middle: Middle, *filters: Filter) -> list[str]:
    return [each.id.name for each in await middle.reader.actions(run_id("r3"), Query(filters))]


async def test_runs_come_newest_first_with_their_roots(listed: Middle) -> None:
    assert await runs(listed) == ["r3", "r2", "r1"]
    assert await runs(listed, scope=Scope()) == ["r3", "r2", "r1"]
    assert await runs(listed, scope=Scope(ProjectId("flytesnacks", "staging"))) == []


@pytest.mark.parametrize("value", ["6", "FAILED", "ACTION_PHASE_FAILED"])
async def test_a_phase_is_named_by_number_or_name(listed: Middle, value: str) -> None:
    assert await runs(listed, Filter("phase", Function.EQUAL, [value])) == ["r2"]
    assert await runs(listed, Filter("phase", Function.NOT_EQUAL, [value])) == ["r3", "r1"]
    assert await runs(listed, Filter("phase", Function.VALUE_IN, [value, "5"])) == ["r2", "r1"]
    assert await runs(listed, Filter("phase", Function.VALUE_NOT_IN, [value])) == ["r3", "r1"]


async def test_what_is_not_set_is_not_equal_to_anything(listed: Middle, clock: FakeClock) -> None:
    now = clock().isoformat()
    assert await runs(listed, Filter("ended_at", Function.EQUAL, [now])) == ["r2", "r1"]
    assert await runs(listed, Filter("ended_at", Function.NOT_EQUAL, [now])) == ["r3"]
    assert await runs(listed, Filter("ended_at", Function.VALUE_NOT_IN, [now])) == ["r3"]
    assert await runs(listed, Filter("ended_at", Function.EXISTS)) == ["r2", "r1"]
    assert await runs(listed, Filter("ended_at", Function.NOT_EXISTS)) == ["r3"]


async def test_times_and_numbers_compare_as_such(listed: Middle) -> None:
    made = (await listed.reader.run(run_id("r2"))).created_at.isoformat()
    assert await runs(listed, Filter("created_at", Function.GREATER_THAN, [made])) == ["r3"]
    assert await runs(listed, Filter("created_at", Function.LESS_THAN_OR_EQUAL, [made])) == ["r2", "r1"]
    assert await actions(listed, Filter("attempts", Function.EQUAL, ["1"])) == ["a0", "c1", "c2"]
    assert await actions(listed, Filter("attempts", Function.EXISTS)) == ["a0", "c1", "c2"]


async def test_actions_are_filtered_by_type_and_text(listed: Middle) -> None:
    assert await actions(listed) == ["a0", "c1", "c2"]
    for value in ("3", "CONDITION", "ACTION_TYPE_CONDITION"):
        assert await actions(listed, Filter("action_type", Function.EQUAL, [value])) == ["c2"]
    for text, function, found in (
        ("50%_", Function.CONTAINS, ["c1"]),
        ("5%", Function.CONTAINS, []),
        ("HELLO", Function.CONTAINS, []),
        ("HELLO.5", Function.CONTAINS_CASE_INSENSITIVE, ["c1"]),
        ("%_off", Function.ENDS_WITH, ["c1"]),
        ("_off", Function.NOT_ENDS_WITH, ["a0", "c2"]),
    ):
        assert await actions(listed, Filter("task_name", function, [text])) == found
    assert await actions(listed, Filter("task_name", Function.NOT_EXISTS)) == ["c2"]
    assert await actions(listed, Filter("parent", Function.EQUAL, ["a0"])) == ["c1", "c2"]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (Filter("phase", Function.EQUAL, ["11"]), BadValue),
        (Filter("phase", Function.EQUAL, ["²"]), BadValue),
        (Filter("phase", Function.CONTAINS, ["FAIL"]), BadValue),
        (Filter("ended_at", Function.CONTAINS_CASE_INSENSITIVE, ["2026"]), BadValue),
        (Filter("created_at", Function.EQUAL, ["yesterday"]), BadValue),
        (Filter("created_at", Function.EQUAL, ["0001-01-01T00:00:00+14:00"]), BadValue),
        (Filter("run_source", Function.EQUAL, ["9" * 30]), BadValue),
        (Filter("name", Function.EQUAL, []), BadValue),
        (Filter("name", Function.EQUAL, ["a", "b"]), BadValue),
        (Filter("digest", Function.EQUAL, ["a"]), UnknownField),
    ],
)
async def test_what_cannot_be_filtered_is_refused(listed: Middle, asked: Filter, error: type[Invalid]) -> None:
    with pytest.raises(error):
        await runs(listed, asked)


async def test_pages_are_stable_and_meet_at_their_ends(middle: Middle) -> None:
    """All made in the same moment: the name breaks the tie."""
    names = [f"r{number:02}" for number in range(25)]
    for name in names:
        await middle.ledger.create_run(new_run(name))
    orders: list[tuple[tuple[Order, ...], bool]] = [
        ((), True),
        ((Order("phase", descending=False),), True),
        ((Order("name", descending=False),), False),
    ]
    for order, backwards in orders:
        found: list[str] = []
        for offset in range(0, 30, 10):
            page = await runs(middle, order=order, limit=10, offset=offset)
            assert len(page) == min(11, 25 - offset)
            found += page[:10]
        assert found == sorted(names, reverse=backwards)
    with pytest.raises(UnknownField, match="sort"):
        await runs(middle, order=(Order("digest"),))


async def test_runs_of_a_task_and_runs_that_wait_for_an_answer(listed: Middle) -> None:
    project = ProjectId("flytesnacks", "development")
    assert await runs(listed, scope=Scope(project, "hello.r2")) == ["r2"]
    assert await runs(listed, scope=Scope(project, "hello.r2", "v2")) == []
    assert await runs(listed, scope=Scope(paused=True)) == ["r3"]
    await listed.ledger.signal(action_id("c2", "r3"), b"yes")
    assert await runs(listed, scope=Scope(paused=True)) == []
