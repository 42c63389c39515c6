"""StateService over the wire: documents, and what parents see of their children."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import state_service_pb2 as pb

from flyte_manager.domain.phases import Phase
from flyte_manager.store import actions as rows
from tests.fakes.orders import task_spec
from tests.unit.services.flows import Flows, flowing, named
from tests.unit.services.running import refused


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        await started.create(spec=task_spec(retries=1))
        yield started


async def put(flows: Flows, state: str, name: str = "a0") -> pb.PutResponse:
    return await flows.state.put(pb.PutRequest(action_id=named(name), state=state))


async def test_a_document_is_kept_and_given_back(flows: Flows) -> None:
    got = await flows.state.get(pb.GetRequest(action_id=named()))
    assert json.loads(got.state)["phase"] == "PHASE_QUEUED"
    document = '{"phase": "PHASE_RUNNING", "mine": 1}'
    assert (await put(flows, document)).status.code == 0
    assert (await flows.state.get(pb.GetRequest(action_id=named()))).state == document
    assert (await flows.row()).phase is Phase.RUNNING


async def test_a_reported_failure_uses_the_tasks_budget(flows: Flows) -> None:
    await put(flows, '{"phase": "PHASE_FAILED"}')
    assert ((await flows.row()).phase, (await flows.row()).attempt) == (Phase.QUEUED, 2)
    await put(flows, '{"phase": "PHASE_FAILED"}')
    row = await flows.row()
    assert (row.phase, row.failure and row.failure.code) == (Phase.FAILED, "Reported")


@pytest.mark.parametrize(
    "state", ["", "{", "[]", '{"phase": 5}', '{"phase": "PHASE_DANCING"}', '{"phase": "PHASE_PAUSED"}']
)
async def test_what_is_no_document_is_refused(flows: Flows, state: str) -> None:
    await refused(put(flows, state), Code.INVALID_ARGUMENT)


async def test_an_unknown_action_is_not_found(flows: Flows) -> None:
    await refused(put(flows, "{}", "nobody"), Code.NOT_FOUND)
    await refused(flows.state.get(pb.GetRequest(action_id=named("nobody"))), Code.NOT_FOUND)


async def test_a_condition_has_no_phase_to_report(flows: Flows) -> None:
    await flows.actions.enqueue(flows.condition("c1"))
    await put(flows, '{"note": 1}', "c1")
    await refused(put(flows, '{"phase": "PHASE_SUCCEEDED"}', "c1"), Code.NOT_FOUND)
    assert (await flows.row("c1")).phase is Phase.PAUSED


async def test_a_watch_gives_the_children_the_sentinel_and_then_changes(flows: Flows) -> None:
    await flows.actions.enqueue(flows.task("c1"))
    told: list[tuple[str, int]] = []
    async with asyncio.timeout(10):
        async for seen in flows.state.watch(pb.WatchRequest(parent_action_id=named())):
            if seen.control_message.sentinel:
                told.append(("sentinel", 0))
                await flows.report(Phase.FAILED, "c1")
                continue
            update = seen.action_update
            assert update.output_uri == f"{flows.base()}/c1/1"
            told.append((update.action_id.name, update.phase))
            if update.phase == phase_pb2.ACTION_PHASE_FAILED:
                assert (update.error.code, update.error.message) == ("ValueError", "no")
                break
    assert told == [
        ("c1", phase_pb2.ACTION_PHASE_QUEUED),
        ("sentinel", 0),
        ("c1", phase_pb2.ACTION_PHASE_FAILED),
    ]


async def test_a_watch_under_an_unknown_parent_is_not_found(flows: Flows) -> None:
    async def first() -> None:
        async for _ in flows.state.watch(pb.WatchRequest(parent_action_id=named("nobody"))):
            return

    await refused(first(), Code.NOT_FOUND)


async def test_more_children_than_a_page_are_all_in_the_snapshot(flows: Flows) -> None:
    count = rows.PAGE + 7
    await asyncio.gather(*(flows.actions.enqueue(flows.task(f"c{number}")) for number in range(count)))
    names = set()
    async with asyncio.timeout(20):
        async for seen in flows.state.watch(pb.WatchRequest(parent_action_id=named())):
            if seen.control_message.sentinel:
                break
            names.add(seen.action_update.action_id.name)
    assert len(names) == count
