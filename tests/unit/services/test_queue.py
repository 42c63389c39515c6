"""QueueService over the wire: children without `_U_USE_ACTIONS=1`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import queue_service_pb2 as pb
from flyteidl2.workflow import state_service_pb2

from flyte_manager.domain.phases import Phase
from flyte_manager.wire.ids import run_proto
from flyte_manager.wire.updates import ERROR_LIMIT
from tests.fakes.orders import run_id, task_spec
from tests.unit.services.flows import Flows, flowing, named
from tests.unit.services.running import refused


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        await started.create()
        yield started


def child(flows: Flows, name: str = "c1", task: str = "hello.child", parent: str = "a0") -> pb.EnqueueActionRequest:
    request: pb.EnqueueActionRequest = flows.asked(pb.EnqueueActionRequest, name, parent=parent)
    request.task.spec.CopyFrom(task_spec(task))
    return request


def trace(flows: Flows, phase: "phase_pb2.ActionPhase") -> pb.EnqueueActionRequest:
    request: pb.EnqueueActionRequest = flows.asked(pb.EnqueueActionRequest, "t1")
    request.trace.name, request.trace.phase = "step", phase
    if phase == phase_pb2.ACTION_PHASE_SUCCEEDED:
        request.trace.outputs.output_uri = f"{flows.base()}/t1/outputs.pb"
    return request


async def test_a_child_is_recorded_once(flows: Flows) -> None:
    for _ in range(2):
        await flows.queue.enqueue_action(child(flows))
    row = await flows.row("c1")
    assert (row.phase, row.parent, row.task.name.name) == (Phase.QUEUED, "a0", "hello.child")
    await refused(flows.queue.enqueue_action(child(flows, task="hello.other")), Code.INVALID_ARGUMENT)


async def test_the_root_action_answers_to_its_runs_name_too_as_the_first_clients_call_it(flows: Flows) -> None:
    await flows.queue.enqueue_action(child(flows, parent="r1"))
    assert (await flows.row("c1")).parent == "a0"
    got = await flows.state.get(state_service_pb2.GetRequest(action_id=named("r1")))
    assert (got.action_id, got.state) == (named("r1"), (await flows.row()).state)
    await flows.queue.abort_queued_action(pb.AbortQueuedActionRequest(action_id=named("r1")))
    assert (await flows.row()).phase is Phase.ABORTED


async def test_a_wrong_request_fails_the_call_at_once_instead_of_being_tried_for_minutes(flows: Flows) -> None:
    bare = flows.asked(pb.EnqueueActionRequest, "c1")
    assert "_U_USE_ACTIONS=1" in await refused(flows.queue.enqueue_action(bare), Code.INVALID_ARGUMENT)
    await refused(flows.queue.enqueue_action(child(flows, parent="nobody")), Code.NOT_FOUND)
    elsewhere = child(flows)
    elsewhere.run_output_base = f"{flows.base()}/elsewhere"
    await refused(flows.queue.enqueue_action(elsewhere), Code.INVALID_ARGUMENT)
    outside = child(flows)
    outside.input_uri = "/etc/passwd"
    await refused(flows.queue.enqueue_action(outside), Code.INVALID_ARGUMENT)


async def test_under_a_parent_that_has_ended_nothing_is_enqueued(flows: Flows) -> None:
    await flows.report(Phase.SUCCEEDED)
    assert "has ended" in await refused(flows.queue.enqueue_action(child(flows)), Code.ABORTED)


async def test_a_failed_trace_brings_the_error_that_lies_beside_it(flows: Flows) -> None:
    await flows.write_error(f"{flows.base()}/t1/error.pb", "KeyError")
    await flows.queue.enqueue_action(trace(flows, phase_pb2.ACTION_PHASE_FAILED))
    failed = await flows.row("t1")
    assert (failed.phase, failed.failure and failed.failure.code) == (Phase.FAILED, "KeyError")
    await flows.queue.enqueue_action(trace(flows, phase_pb2.ACTION_PHASE_SUCCEEDED))
    good = await flows.row("t1")
    assert (good.phase, good.failure, good.output_uri) == (Phase.SUCCEEDED, None, f"{flows.base()}/t1/outputs.pb")


async def test_a_failed_trace_without_a_readable_error_is_recorded_all_the_same(flows: Flows) -> None:
    await flows.queue.enqueue_action(trace(flows, phase_pb2.ACTION_PHASE_FAILED))
    assert (await flows.row("t1")).failure is not None
    large = trace(flows, phase_pb2.ACTION_PHASE_FAILED)
    large.trace.name, large.action_id.name = "large", "t2"
    await flows.blobs.write(f"{flows.base()}/t2/error.pb", b"x" * (ERROR_LIMIT + 1))
    await flows.queue.enqueue_action(large)
    row = await flows.row("t2")
    assert row.failure is not None
    assert row.failure.code == "ErrorTooLarge"


async def test_queued_runs_and_actions_are_aborted(flows: Flows) -> None:
    await flows.queue.enqueue_action(child(flows))
    for _ in range(2):
        await flows.queue.abort_queued_action(pb.AbortQueuedActionRequest(action_id=named("c1"), reason="sibling"))
    assert (await flows.row("c1")).reason == "sibling"
    await flows.queue.abort_queued_run(pb.AbortQueuedRunRequest(run_id=run_proto(run_id())))
    assert (await flows.row()).phase is Phase.ABORTED
    missing = pb.AbortQueuedActionRequest(action_id=named("nobody"))
    await refused(flows.queue.abort_queued_action(missing), Code.NOT_FOUND)
