"""RunService.WatchRuns over the wire: its targets, what there is, what comes and what changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.common import identifier_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.phases import Phase
from flyte_manager.store import run_lists
from flyte_manager.wire.runs import Platform
from tests.fakes.orders import task_spec
from tests.unit.services.flows import Flows, flowing
from tests.unit.services.running import refused

PROJECT = identifier_pb2.ProjectIdentifier(name="flytesnacks", domain="development")


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path, platform=Platform(cluster="here")) as started:
        yield started


class Seen:
    """What one watcher was told, in order."""

    def __init__(self, messages: AsyncIterator[pb.WatchRunsResponse]) -> None:
        self._messages = messages
        self.sizes: list[int] = []
        self.runs: list[tuple[str, Phase]] = []

    async def until(self, count: int) -> list[tuple[str, Phase]]:
        """All that was told, once it is so many."""
        async with asyncio.timeout(10):
            while len(self.runs) < count:
                message = await anext(self._messages)
                self.sizes.append(len(message.runs))
                self.runs += [(each.action.id.run.name, Phase(each.action.status.phase)) for each in message.runs]
        return self.runs


@asynccontextmanager
async def watching(flows: Flows, **target: Any) -> AsyncIterator[Seen]:
    messages = flows.runs.watch_runs(pb.WatchRunsRequest(**target))
    try:
        yield Seen(messages)
    finally:
        await messages.aclose()  # type: ignore[attr-defined]


async def test_a_watch_tells_the_runs_there_are_newest_first_then_new_ones_and_each_change(flows: Flows) -> None:
    for name in ("r1", "r2"):
        await flows.create(name)
        flows.clock.advance(1)
    async with watching(flows, project_id=PROJECT) as seen:
        assert await seen.until(2) == [("r2", Phase.QUEUED), ("r1", Phase.QUEUED)]
        await flows.create("r3")
        assert (await seen.until(3))[2:] == [("r3", Phase.QUEUED)]
        for number, phase in enumerate((Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED), start=4):
            await flows.report(phase, run="r1")
            assert (await seen.until(number))[-1] == ("r1", phase)


async def test_a_change_of_a_child_alone_is_not_told(flows: Flows) -> None:
    await flows.create("r1")
    async with watching(flows, project_id=PROJECT) as seen:
        await seen.until(1)
        await flows.actions.enqueue(flows.task("c1"))
        await flows.create("r2")
        assert (await seen.until(2))[1:] == [("r2", Phase.QUEUED)]


async def test_the_first_part_comes_in_bounded_pages_and_does_not_keep_changes_waiting(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lists, "PAGE", 3)
    for number in range(8):
        await flows.create(f"r{number}")
        flows.clock.advance(1)
    async with watching(flows, project_id=PROJECT) as seen:
        await seen.until(3)
        await flows.report(Phase.SUCCEEDED, run="r7")
        await flows.create("r8")
        await seen.until(10)
        assert max(seen.sizes) <= 3
        assert {name for name, _ in seen.runs} == {f"r{number}" for number in range(9)}
        assert ("r7", Phase.SUCCEEDED) in seen.runs
        first = [name for name, phase in seen.runs if phase is Phase.QUEUED and name != "r8"]
        assert first == [f"r{number}" for number in reversed(range(8))]


async def test_a_watch_tells_the_runs_of_its_target_only(flows: Flows) -> None:
    def request(name: str, task: str, **run: str) -> pb.CreateRunRequest:
        made = flows.creation(name, spec=task_spec(task))
        for field, value in run.items():
            setattr(made.run_id, field, value)
        return made

    async def make(prefix: str) -> None:
        await flows.runs.create_run(request(f"{prefix}1", "hello.one"))
        await flows.runs.create_run(request(f"{prefix}2", "hello.two", org="acme"))
        await flows.runs.create_run(request(f"{prefix}3", "hello.one", domain="staging", org="other"))
        flows.clock.advance(1)

    await make("a")
    task = task_definition_pb2.TaskIdentifier(project="flytesnacks", domain="development", name="hello.one")
    version = task_definition_pb2.TaskIdentifier(
        project="flytesnacks", domain="development", name="hello.one", version="v2"
    )
    everything = {"a1", "a2", "a3", "b1", "b2", "b3"}
    for target, told in (
        ({"project_id": PROJECT}, {"a1", "a2", "b1", "b2"}),
        ({"task_id": task}, {"a1", "b1"}),
        ({"task_id": version}, set()),
        ({"org": "acme"}, {"a1", "a2", "b1", "b2"}),
        ({"cluster_id": identifier_pb2.ClusterIdentifier(name="here")}, everything),
    ):
        async with watching(flows, **target) as seen:
            await seen.until(len([name for name in told if name.startswith("a")]))
            await make("b") if target == {"project_id": PROJECT} else None
            if told:
                await seen.until(len(told))
            assert {name for name, _ in seen.runs} == told, target


async def test_a_watch_tells_what_changes_whatever_its_target_is(flows: Flows) -> None:
    task = task_definition_pb2.TaskIdentifier(project="flytesnacks", domain="development", name="hello.main")
    here = identifier_pb2.ClusterIdentifier(name="here")
    await flows.create("r1")
    targets: list[dict[str, Any]] = [{"project_id": PROJECT}, {"task_id": task}, {"org": "acme"}, {"cluster_id": here}]
    for number, target in enumerate(targets, start=2):
        async with watching(flows, **target) as seen:
            await seen.until(number - 1)
            await flows.create(f"r{number}")
            assert (await seen.until(number))[-1] == (f"r{number}", Phase.QUEUED), target


async def test_a_watch_without_a_target_or_of_what_is_not_here_is_refused(flows: Flows) -> None:
    async def first(**target: Any) -> None:
        async with watching(flows, **target) as seen:
            await seen.until(1)

    assert "target" in await refused(first(), Code.INVALID_ARGUMENT)
    away = identifier_pb2.ClusterIdentifier(name="away")
    assert "'here'" in await refused(first(cluster_id=away), Code.NOT_FOUND)
    nowhere = identifier_pb2.ProjectIdentifier(name="nowhere", domain="development")
    await refused(first(project_id=nowhere), Code.NOT_FOUND)
    nameless = task_definition_pb2.TaskIdentifier(project="flytesnacks", domain="development")
    assert "task name" in await refused(first(task_id=nameless), Code.INVALID_ARGUMENT)
