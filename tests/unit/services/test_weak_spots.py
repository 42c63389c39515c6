"""What the Go manager does wrong and this one must not (docs/upstream.md), where no other test is about it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from flyteidl2.core import interface_pb2, literals_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.phases import Phase
from flyte_manager.wire.ids import run_proto
from tests.fakes.orders import new_task, new_trace, run_id, task_spec
from tests.unit.services.flows import Flows, flowing, named


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        yield started


async def watched(flows: Flows, name: str) -> list[run_definition_pb2.ActionDetails]:
    """All that WatchActionDetails tells until it ends by itself."""
    asked = pb.WatchActionDetailsRequest(action_id=named(name))
    async with asyncio.timeout(10):
        return [each.details async for each in flows.runs.watch_action_details(asked)]


async def test_a_watch_of_a_run_tells_all_of_it_and_ends_with_it(flows: Flows) -> None:
    """W3: upstream sends empty details, for ever."""
    await flows.create()

    async def watch() -> list[run_definition_pb2.RunDetails]:
        asked = pb.WatchRunDetailsRequest(run_id=run_proto(run_id()))
        return [each.details async for each in flows.runs.watch_run_details(asked)]

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.1)
    await flows.report(Phase.RUNNING)
    await flows.report(Phase.SUCCEEDED)
    seen = await asyncio.wait_for(watching, 10)
    asked = pb.GetRunDetailsRequest(run_id=run_proto(run_id()))
    assert seen[-1] == (await flows.runs.get_run_details(asked)).details
    assert seen[-1].action.task == task_spec()
    assert seen[0].action.id == named()


async def test_a_watch_of_a_trace_ends(flows: Flows) -> None:
    """W5: upstream's never does, because traces have no attempts."""
    await flows.create()
    await flows.ledger.enqueue(replace(new_trace("t1"), base_uri=""))
    (told,) = await watched(flows, "t1")
    assert Phase(told.status.phase) is Phase.SUCCEEDED


async def test_a_watch_of_a_condition_ends_with_its_answer(flows: Flows) -> None:
    """W5"""
    await flows.create()
    await flows.actions.enqueue(flows.condition("c1"))
    watching = asyncio.create_task(watched(flows, "c1"))
    await asyncio.sleep(0.1)
    asked = pb.SignalEventRequest(action_id=named("c1"), payload=pb.EventPayload(int_value=3))
    await flows.runs.signal_event(asked)
    told = (await asyncio.wait_for(watching, 10))[-1]
    assert Phase(told.status.phase) is Phase.SUCCEEDED


async def test_what_cannot_be_run_at_all_ends_its_watch_and_says_why(flows: Flows) -> None:
    """W5, W7: upstream's fails without an error, an attempt, or an end of the watch."""
    await flows.create()
    failure = Failure(ErrorKind.USER, "BadTaskSpecification", "no such thing", recoverable=False)
    await flows.ledger.enqueue(replace(new_task("c1"), base_uri=""), failure=failure)
    told = (await watched(flows, "c1"))[-1]
    assert (told.error_info.code, told.error_info.message) == ("BadTaskSpecification", "no such thing")
    assert told.error_info.kind == run_definition_pb2.ErrorInfo.KIND_USER
    (attempt,) = told.attempts
    assert (Phase(attempt.phase), attempt.error_info.message) == (Phase.FAILED, "no such thing")


async def test_a_child_keeps_its_whole_spec_and_the_organisation(flows: Flows) -> None:
    """W23: upstream rebuilds the spec from the template, and drops the organisation from all identifiers."""
    await flows.runs.create_run(flows.creation())
    asked = flows.task("c1")
    spec = asked.action.task.spec
    spec.environment.description = "where it runs"
    spec.documentation.long_description = "what it does"
    one = interface_pb2.Parameter(default=literals_pb2.Literal())
    one.default.scalar.primitive.integer = 1
    spec.default_inputs.append(common_pb2.NamedParameter(name="x", parameter=one))
    await flows.actions.enqueue(asked)
    told = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named("c1")))).details
    assert told.task == spec
    assert told.metadata.environment_name == "hello"
    other = flows.creation("r2")
    other.run_id.org = "acme"
    made = await flows.runs.create_run(other)
    assert made.run.action.id.run.org == "acme"
    child = flows.task("c1", run="r2")
    await flows.actions.enqueue(child)
    listed = await flows.runs.list_actions(pb.ListActionsRequest(run_id=other.run_id))
    assert [each.id.run.org for each in listed.actions] == ["acme", "acme"]
