"""Lists: filters, order and pages over real rows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import AttemptReport, ErrorKind, Failure
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.filters import BadValue, Filter, Function, Query, UnknownField
from flyte_manager.domain.ids import AttemptId, ProjectId
from flyte_manager.domain.phases import Phase
from flyte_manager.store.run_lists import Scope
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_condition, new_run, new_task, new_trace, run_id, task_spec

SCOPE = Scope(ProjectId("flytesnacks", "development"))


@pytest.fixture
async def listed(middle: Middle, clock: FakeClock) -> Middle:
    """Three runs: r1 SUCCEEDED, r2 FAILED, r3 QUEUED; r3 has a task, a condition and a `50%_off`. r2 is labelled and
    Ada's."""
    for name in ("r1", "r2", "r3"):
        order = new_run(name, spec=task_spec(f"hello.{name}"))
        if name == "r2":
            labels = {"team": "red", "app.io/part.of": "x"}
            order = replace(order, source=2, created_by=b"", created_by_subject="ada", labels=labels)
        await middle.ledger.create_run(order)
        clock.advance(1)
    for name, phase in (("r1", Phase.SUCCEEDED), ("r2", Phase.FAILED)):
        failure = Failure(ErrorKind.USER, "X", "no") if phase is Phase.FAILED else None
        told = AttemptReport(AttemptId(action_id(run=name), 1), phase, clock(), failure=failure)
        await middle.ledger.report(told, Budget())
    await middle.ledger.enqueue(new_task("c1", run="r3", spec=task_spec("hello.50%_off")))
    await middle.ledger.enqueue(new_condition("c2", run="r3"))
    return middle


async def runs(middle: Middle, *filters: Filter, scope: Scope = SCOPE, **query: object) -> list[str]:
    found, _ = await middle.reader.runs(scope, Query(filters, **query))  # type: ignore[arg-type]
    assert all(run.root.is_root for run in found)
    return [run.id.name for run in found]


async def actions(middle: Middle, *filters: Filter) -> list[str]:
    return [each.id.name for each in (await middle.reader.actions(run_id("r3"), Query(filters)))[1]]


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
        ("_OFF", Function.ENDS_WITH, []),
        ("", Function.ENDS_WITH, ["a0", "c1", "c2"]),
        ("more than the whole name hello.50%_off", Function.ENDS_WITH, []),
        ("_off", Function.NOT_ENDS_WITH, ["a0", "c2"]),
        ("_OFF", Function.NOT_ENDS_WITH, ["a0", "c1", "c2"]),
    ):
        assert await actions(listed, Filter("task_name", function, [text])) == found
    assert await actions(listed, Filter("task_name", Function.NOT_EXISTS)) == ["c2"]
    assert await actions(listed, Filter("parent", Function.EQUAL, ["a0"])) == ["c1", "c2"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (Filter("project", Function.EQUAL, ["flytesnacks"]), "r3 r2 r1"),
        (Filter("domain", Function.VALUE_IN, ["staging"]), ""),
        (Filter("run_name", Function.CONTAINS, ["2"]), "r2"),
        (Filter("run_name", Function.CONTAINS_CASE_INSENSITIVE, ["R1"]), "r1"),
        (Filter("action_type", Function.EQUAL, ["1"]), "r3 r2 r1"),
        (Filter("action_type", Function.EQUAL, ["TRACE"]), ""),
        (Filter("run_source", Function.EQUAL, ["RUN_SOURCE_CLI"]), "r2"),
        (Filter("run_source", Function.EQUAL, ["CLI"]), "r2"),
        (Filter("run_source", Function.NOT_EQUAL, ["2"]), "r3 r1"),
        (Filter("created_by_subject", Function.EQUAL, ["ada"]), "r2"),
        (Filter("created_by", Function.VALUE_IN, ["ada"]), "r2"),
        (Filter("created_by", Function.VALUE_IN, ["ada", "bob", "", "ada"]), "r3 r2 r1"),
        (Filter("created_by", Function.VALUE_IN, ["bob"]), ""),
        (Filter("created_by", Function.VALUE_IN, []), ""),
        (Filter("created_by", Function.NOT_EXISTS), "r3 r1"),
        (Filter("labels.team", Function.EQUAL, ["red"]), "r2"),
        (Filter("labels.app.io/part.of", Function.EXISTS), "r2"),
        (Filter("labels.team", Function.NOT_EXISTS), "r3 r1"),
        (Filter("labels.team", Function.NOT_EQUAL, ["red"]), "r3 r1"),
        (Filter("labels.team", Function.CONTAINS, ["e"]), "r2"),
        (Filter("task_project", Function.EQUAL, ["flytesnacks"]), "r3 r2 r1"),
        (Filter("task_domain", Function.NOT_EQUAL, ["development"]), ""),
        (Filter("task_name", Function.ENDS_WITH, ["r3"]), "r3"),
        (Filter("task_version", Function.EQUAL, ["v1"]), "r3 r2 r1"),
        (Filter("function_name", Function.EQUAL, ["r2"]), "r2"),
        (Filter("environment_name", Function.EQUAL, ["hello"]), "r3 r2 r1"),
        (Filter("trigger_name", Function.EQUAL, ["daily"]), ""),
        (Filter("trigger_name", Function.NOT_EXISTS), "r3 r2 r1"),
        (Filter("trigger_task_name", Function.CONTAINS, ["a"]), ""),
        (Filter("trigger_type", Function.EQUAL, ["TYPE_SCHEDULE"]), ""),
        (Filter("trigger_type", Function.NOT_EQUAL, ["TYPE_SCHEDULE"]), "r3 r2 r1"),
        (Filter("trigger_revision", Function.GREATER_THAN, ["0"]), ""),
        (Filter("duration_ms", Function.GREATER_THAN, ["2500"]), "r1"),
        (Filter("duration_ms", Function.EQUAL, ["2000"]), "r2"),
        (Filter("duration_ms", Function.NOT_EXISTS), "r3"),
        (Filter("phase", Function.LESS_THAN, ["5"]), "r3"),
        (Filter("phase", Function.GREATER_THAN_OR_EQUAL, ["SUCCEEDED"]), "r2 r1"),
        (Filter("phase", Function.VALUE_IN, ["6"]), "r2"),
        (Filter("phase", Function.VALUE_IN, []), ""),
        (Filter("phase", Function.EXISTS), "r3 r2 r1"),
    ],
)
async def test_runs_are_filtered_by_every_field(listed: Middle, asked: Filter, found: str) -> None:
    assert await runs(listed, asked) == found.split()
    assert await runs(listed, asked, scope=Scope()) == found.split()


async def test_filters_are_all_kept(listed: Middle) -> None:
    both = (Filter("phase", Function.VALUE_IN, ["5", "6"]), Filter("phase", Function.NOT_EQUAL, ["6"]))
    assert await runs(listed, *both) == ["r1"]
    assert await runs(listed, *both, Filter("name", Function.EQUAL, ["r2"])) == []
    users = Filter("created_by", Function.VALUE_IN, ["ada", ""])
    assert await runs(listed, users, Filter("phase", Function.EQUAL, ["6"])) == ["r2"]
    assert await runs(listed, users, Filter("created_by_subject", Function.VALUE_IN, ["ada", "bob"])) == ["r2"]


async def test_updated_at_is_when_a_row_was_written_last(listed: Middle, clock: FakeClock) -> None:
    clock.advance(60)
    now = clock().isoformat()
    since = Filter("updated_at", Function.GREATER_THAN_OR_EQUAL, [now])
    assert await runs(listed, since) == []
    await listed.ledger.signal(action_id("c2", "r3"), b"yes")
    assert await actions(listed, since) == ["c2"]
    assert await actions(listed, Filter("duration_ms", Function.EQUAL, ["60000"])) == ["c2"]
    await listed.ledger.abort_run(run_id("r3"), "enough")
    assert await runs(listed, since) == ["r3"]
    assert await actions(listed, since) == ["a0", "c1", "c2"]


async def test_a_trace_took_the_time_that_it_tells_though_it_is_recorded_when_it_is_over(
    listed: Middle, clock: FakeClock
) -> None:
    clock.advance(60)
    began, ended = clock() - timedelta(seconds=5), clock() - timedelta(seconds=2.5)
    trace = replace(new_trace("t1", run="r3"), started_at=began, ended_at=ended)
    await listed.ledger.enqueue(trace)
    await listed.ledger.enqueue(new_trace("t2", run="r3"))
    assert (await listed.reader.action(action_id("t1", "r3"))).duration_ms == 2500
    assert (await listed.reader.action(action_id("t2", "r3"))).duration_ms == 0
    assert await actions(listed, Filter("duration_ms", Function.EQUAL, ["2500"])) == ["t1"]
    assert await actions(listed, Filter("duration_ms", Function.EQUAL, ["0"])) == ["t2"]


async def test_actions_are_filtered_by_what_their_run_is(listed: Middle) -> None:
    for asked in (
        Filter("run_name", Function.EQUAL, ["r3"]),
        Filter("run_source", Function.EQUAL, ["UNSPECIFIED"]),
        Filter("created_by_subject", Function.NOT_EXISTS),
        Filter("trigger_name", Function.NOT_EXISTS),
        Filter("project", Function.EQUAL, ["flytesnacks"]),
    ):
        assert await actions(listed, asked) == ["a0", "c1", "c2"]
    assert await actions(listed, Filter("parent_name", Function.EQUAL, ["a0"])) == ["c1", "c2"]


async def test_an_organisation_has_its_own_runs_and_those_without_one(middle: Middle) -> None:
    for name, org in (("r1", ""), ("r2", "acme"), ("r3", "other")):
        order = new_run(name)
        await middle.ledger.create_run(replace(order, id=replace(order.id, org=org)))
    assert await runs(middle, scope=Scope(org="acme")) == ["r2", "r1"]
    assert await runs(middle, scope=Scope()) == ["r3", "r2", "r1"]


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
        (Filter("name", Function.CONTAINS, ["x" * 1001]), BadValue),
        (Filter("created_by", Function.VALUE_IN, ["x" * 1001]), BadValue),
        (Filter("duration_ms", Function.ENDS_WITH, ["0"]), BadValue),
        (Filter("run_source", Function.EQUAL, ["NOBODY"]), BadValue),
        (Filter("digest", Function.EQUAL, ["a"]), UnknownField),
        (Filter("labels", Function.EQUAL, ["a"]), UnknownField),
        (Filter('labels.a"b', Function.EXISTS), UnknownField),
        (Filter("name.x", Function.EXISTS), UnknownField),
    ],
)
async def test_what_cannot_be_filtered_is_refused(listed: Middle, asked: Filter, error: type[Invalid]) -> None:
    with pytest.raises(error):
        await runs(listed, asked)


async def test_runs_of_a_task_and_runs_that_wait_for_an_answer(listed: Middle) -> None:
    project = ProjectId("flytesnacks", "development")
    assert await runs(listed, scope=Scope(project, "hello.r2")) == ["r2"]
    assert await runs(listed, scope=Scope(project, "hello.r2", "v2")) == []
    assert await runs(listed, scope=Scope(paused=True)) == ["r3"]
    assert await runs(listed, scope=Scope(project, paused=True)) == ["r3"]
    assert await runs(listed, scope=Scope(ProjectId("flytesnacks", "staging"), paused=True)) == []
    await listed.ledger.signal(action_id("c2", "r3"), b"yes")
    assert await runs(listed, scope=Scope(paused=True)) == []
