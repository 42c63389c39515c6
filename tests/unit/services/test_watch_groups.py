"""RunService.WatchGroups over the wire: runs counted by their task, all of them once, then what changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.workflow import run_definition_pb2
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.phases import Phase
from flyte_manager.wire.times import timestamp
from tests.fakes.orders import task_spec
from tests.unit.services.flows import Flows, flowing
from tests.unit.services.running import refused

PROJECT = identifier_pb2.ProjectIdentifier(name="flytesnacks", domain="development")


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        yield started


@asynccontextmanager
async def watching(flows: Flows, **request: Any) -> AsyncIterator[AsyncIterator[pb.WatchGroupsResponse]]:
    asked = {"project_id": PROJECT, "start_date": timestamp(flows.clock() - timedelta(hours=1)), **request}
    messages = flows.runs.watch_groups(pb.WatchGroupsRequest(**asked))
    try:
        yield messages
    finally:
        await messages.aclose()  # type: ignore[attr-defined]


async def following(messages: AsyncIterator[pb.WatchGroupsResponse]) -> pb.WatchGroupsResponse:
    return await asyncio.wait_for(anext(messages), 10)


async def make(flows: Flows, name: str, task: str, *phases: Phase) -> None:
    """A run that goes through these phases, a second each."""
    await flows.create(name, spec=task_spec(task))
    for phase in phases:
        flows.clock.advance(1)
        await flows.report(phase, run=name)


def counts(group: run_definition_pb2.TaskGroup) -> dict[Phase, int]:
    return {Phase(each.phase): each.count for each in group.phase_counts}


async def test_a_group_tells_all_of_its_runs(flows: Flows) -> None:
    begin = flows.clock()
    await make(flows, "r1", "hello.main", Phase.RUNNING, Phase.SUCCEEDED)
    await make(flows, "r2", "hello.main", Phase.RUNNING, Phase.FAILED)
    await make(flows, "r3", "hello.main")
    await make(flows, "r4", "other.task", Phase.SUCCEEDED)
    async with watching(flows) as messages:
        told = await following(messages)
    assert told.sentinel
    assert [group.task_name for group in told.task_groups] == ["hello.main", "other.task"]
    group = told.task_groups[0]
    assert (group.environment_name, group.short_name, group.total_runs) == ("hello", "main", 3)
    assert group.latest_run_time == timestamp(begin + timedelta(seconds=4))
    assert group.latest_finished_time == timestamp(begin + timedelta(seconds=4))
    assert counts(group) == {Phase.QUEUED: 1, Phase.SUCCEEDED: 1, Phase.FAILED: 1}
    assert [(each.run_name, Phase(each.phase)) for each in group.recent_statuses] == [
        ("r3", Phase.QUEUED),
        ("r2", Phase.FAILED),
        ("r1", Phase.SUCCEEDED),
    ]
    assert group.average_failure_rate == pytest.approx(1 / 3)
    assert group.average_duration.ToTimedelta() == timedelta(seconds=2)
    assert group.average_time_to_running.ToTimedelta() == timedelta(seconds=1)
    errors = group.error_counts
    assert (errors.user_error, errors.system_error, errors.unspecified_error) == (1, 0, 0)
    assert not group.should_delete


async def test_changed_groups_alone_are_told_afterwards(flows: Flows) -> None:
    await make(flows, "r1", "hello.main")
    await make(flows, "r2", "other.task")
    async with watching(flows) as messages:
        assert len((await following(messages)).task_groups) == 2
        await flows.report(Phase.SUCCEEDED, run="r1")
        told = await following(messages)
        assert not told.sentinel
        assert [(each.task_name, counts(each)) for each in told.task_groups] == [("hello.main", {Phase.SUCCEEDED: 1})]
        await make(flows, "r3", "third.task")
        told = await following(messages)
        assert [each.task_name for each in told.task_groups] == ["third.task"]


async def test_a_group_that_no_run_meets_any_more_is_to_be_deleted(flows: Flows) -> None:
    await make(flows, "r1", "hello.main")
    queued = list_pb2.ListRequest(filters=[list_pb2.Filter(field="phase", values=["QUEUED"])])
    async with watching(flows, request=queued) as messages:
        assert (await following(messages)).task_groups[0].total_runs == 1
        await flows.report(Phase.SUCCEEDED, run="r1")
        (gone,) = (await following(messages)).task_groups
        assert (gone.task_name, gone.should_delete, gone.total_runs) == ("hello.main", True, 0)


async def test_groups_are_filtered_by_what_only_root_actions_know(flows: Flows) -> None:
    await make(flows, "r1", "hello.main")
    for values, count in ((["flytesnacks"], 1), (["other"], 0)):
        asked = list_pb2.ListRequest(filters=[list_pb2.Filter(field="task_project", values=values)])
        async with watching(flows, request=asked) as messages:
            assert len((await following(messages)).task_groups) == count


async def test_a_time_that_has_an_end_is_told_once(flows: Flows) -> None:
    """Both ends belong to it."""
    times = []
    for name in ("r1", "r2", "r3", "r4"):
        times.append(flows.clock())
        await make(flows, name, "hello.main")
        flows.clock.advance(1)
    async with watching(flows, start_date=timestamp(times[1]), end_date=timestamp(times[2])) as messages:
        (group,) = (await following(messages)).task_groups
        assert [each.run_name for each in group.recent_statuses] == ["r3", "r2"]
        with pytest.raises(StopAsyncIteration):
            await following(messages)


async def test_the_request_says_how_many_runs_are_told_and_in_which_order_groups_come(flows: Flows) -> None:
    for number in range(12):
        await make(flows, f"r{number:02}", "b.task")
        flows.clock.advance(1)
    await make(flows, "x1", "a.task")

    async def told(**request: Any) -> list[tuple[str, int]]:
        async with watching(flows, **request) as messages:
            groups = (await following(messages)).task_groups
            return [(group.task_name, len(group.recent_statuses)) for group in groups]

    assert await told() == [("a.task", 1), ("b.task", 10)]
    oldest = pb.WatchGroupsRequest.KnownSortField(created_at=list_pb2.Sort.ASCENDING)
    assert await told(known_sort_fields=[oldest]) == [("b.task", 10), ("a.task", 1)]
    by_name = list_pb2.ListRequest(limit=2, sort_by_fields=[list_pb2.Sort(key="task_name")])
    assert await told(request=by_name) == [("b.task", 2), ("a.task", 1)]


async def test_requests_that_lack_something_or_ask_for_too_much_are_refused(flows: Flows) -> None:
    async def refusal(code: Code, **request: Any) -> str:
        async def first() -> None:
            async with watching(flows, **request) as messages:
                await following(messages)

        return await refused(first(), code)

    assert "project_id" in await refusal(Code.INVALID_ARGUMENT, project_id=None)
    assert "start_date" in await refusal(Code.INVALID_ARGUMENT, start_date=None)
    nowhere = identifier_pb2.ProjectIdentifier(name="nowhere", domain="development")
    await refusal(Code.NOT_FOUND, project_id=nowhere)
    for wrong, says in (
        (list_pb2.ListRequest(limit=101), "at most 100"),
        (list_pb2.ListRequest(token="5"), "no pages"),
        (list_pb2.ListRequest(sort_by=list_pb2.Sort(key="total_runs")), "created_at"),
        (list_pb2.ListRequest(filters=[list_pb2.Filter(field="color", values=["1"])]), "use one of"),
    ):
        assert says in await refusal(Code.INVALID_ARGUMENT, request=wrong)
