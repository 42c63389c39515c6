"""ActionsService over the wire: children with `_U_USE_ACTIONS=1`, updates, signals."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.actions import actions_service_pb2 as pb
from flyteidl2.common import phase_pb2
from flyteidl2.core import literals_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_manager.domain.phases import Phase
from tests.fakes.orders import task_spec
from tests.unit.services.flows import Flows, flowing, named
from tests.unit.services.running import refused


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        await started.create(spec=task_spec(retries=1))
        yield started


def update(phase: "phase_pb2.ActionPhase", attempt: int = 0, name: str = "a0") -> pb.UpdateRequest:
    status = run_definition_pb2.ActionStatus(phase=phase)
    return pb.UpdateRequest(action_id=named(name), attempt=attempt, status=status)


def answer(value: int) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))


async def snapshot(flows: Flows, parent: str = "a0") -> list[str]:
    names: list[str] = []
    async with asyncio.timeout(10):
        async for seen in flows.actions.watch_for_updates(pb.WatchForUpdatesRequest(parent_action_id=named(parent))):
            if seen.control_message.sentinel:
                return names
            names.append(seen.action_update.action_id.name)
    raise AssertionError("the stream ended before its sentinel")


async def test_a_child_is_recorded_once_and_shown_to_its_parent(flows: Flows) -> None:
    assert await snapshot(flows) == []
    for _ in range(2):
        await flows.actions.enqueue(flows.task("c1"))
    assert await snapshot(flows) == ["c1"]
    await refused(flows.actions.enqueue(pb.EnqueueRequest()), Code.INVALID_ARGUMENT)


async def test_updates_move_the_present_attempt(flows: Flows) -> None:
    await flows.actions.update(update(phase_pb2.ACTION_PHASE_RUNNING))
    assert (await flows.row()).phase is Phase.RUNNING
    await flows.actions.update(update(phase_pb2.ACTION_PHASE_QUEUED))
    assert (await flows.row()).phase is Phase.RUNNING
    await flows.actions.update(update(phase_pb2.ACTION_PHASE_FAILED))
    assert ((await flows.row()).phase, (await flows.row()).attempt) == (Phase.QUEUED, 2)
    await flows.actions.update(update(phase_pb2.ACTION_PHASE_SUCCEEDED, attempt=1))
    assert (await flows.row()).phase is Phase.QUEUED
    await refused(flows.actions.update(update(phase_pb2.ACTION_PHASE_RUNNING, attempt=9)), Code.NOT_FOUND)
    await refused(flows.actions.update(update(phase_pb2.ACTION_PHASE_UNSPECIFIED)), Code.INVALID_ARGUMENT)
    await refused(flows.actions.update(update(phase_pb2.ACTION_PHASE_PAUSED)), Code.INVALID_ARGUMENT)


async def test_the_next_attempt_of_a_parent_runs_failed_and_cancelled_children_again(flows: Flows) -> None:
    """One child failed, so the SDK cancelled its sibling; the parent's retry must not die of either."""
    await flows.actions.enqueue(flows.task("c1"))
    await flows.actions.enqueue(flows.task("c2"))
    await flows.report(Phase.FAILED, "c1")
    await flows.actions.abort(pb.AbortRequest(action_id=named("c2")))
    assert sorted(await snapshot(flows)) == ["c1", "c2"]
    await flows.report(Phase.FAILED, retries=1)
    assert await snapshot(flows) == []
    for name in ("c1", "c2"):
        await flows.actions.enqueue(flows.task(name))
        row = await flows.row(name)
        assert (row.phase, row.attempt) == (Phase.QUEUED, 2)
    assert sorted(await snapshot(flows)) == ["c1", "c2"]


async def test_a_condition_waits_for_its_signal_and_tells_its_value(flows: Flows) -> None:
    await flows.actions.enqueue(flows.condition("c1"))
    phases = []
    async with asyncio.timeout(10):
        async for seen in flows.actions.watch_for_updates(pb.WatchForUpdatesRequest(parent_action_id=named())):
            if seen.control_message.sentinel:
                await flows.actions.signal(pb.SignalRequest(action_id=named("c1"), value=answer(3)))
                continue
            phases.append(seen.action_update.phase)
            if seen.action_update.phase == phase_pb2.ACTION_PHASE_SUCCEEDED:
                assert seen.action_update.value.scalar.primitive.integer == 3
                break
    assert phases == [phase_pb2.ACTION_PHASE_PAUSED, phase_pb2.ACTION_PHASE_SUCCEEDED]
    await flows.actions.signal(pb.SignalRequest(action_id=named("c1"), value=answer(3)))
    again = pb.SignalRequest(action_id=named("c1"), value=answer(4))
    await refused(flows.actions.signal(again), Code.FAILED_PRECONDITION)
    await refused(flows.actions.signal(pb.SignalRequest(action_id=named(), value=answer(3))), Code.FAILED_PRECONDITION)


async def test_a_child_that_was_aborted_has_no_next_attempt_by_itself(flows: Flows) -> None:
    await flows.actions.enqueue(flows.task("c1"))
    await flows.actions.abort(pb.AbortRequest(action_id=named("c1"), reason="enough"))
    await flows.actions.enqueue(flows.task("c1"))
    row = await flows.row("c1")
    assert (row.phase, row.reason, row.attempt) == (Phase.ABORTED, "enough", 1)
    await refused(flows.actions.abort(pb.AbortRequest(action_id=named("nobody"))), Code.NOT_FOUND)


async def test_a_call_in_a_named_queue_fails_with_the_reason_each_time_it_is_made(flows: Flows) -> None:
    asked = flows.task("c1")
    asked.action.task.queue = "gpus"
    for attempt in (1, 2):
        await flows.actions.enqueue(asked)
        row = await flows.row("c1")
        assert (row.phase, row.attempt) == (Phase.FAILED, attempt)
        assert row.failure is not None
        assert "a task in queue 'gpus' needs named queues" in row.failure.message
        await flows.report(Phase.FAILED, retries=1)


async def test_what_would_be_left_out_in_silence_is_refused(flows: Flows) -> None:
    recovered = flows.task("c1")
    recovered.action.recovered_from.CopyFrom(named("a0", "r0"))
    assert "flyte rerun" in await refused(flows.actions.enqueue(recovered), Code.UNIMPLEMENTED)
    condition = flows.condition("c2")
    condition.action.condition.webhook.url = "https://example.com/ask"
    assert "asks for a webhook" in await refused(flows.actions.enqueue(condition), Code.INVALID_ARGUMENT)
    assert await snapshot(flows) == []
