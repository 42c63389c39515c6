"""What RunService tells of single attempts: their events as they come, where their logs are, links."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.attempts import Event, Observation, Place, Presence
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.wire.links import LinkTemplate
from flyte_manager.wire.runs import Platform
from tests.fakes.clock import NOW
from tests.fakes.middle import told
from tests.fakes.orders import action_id, new_condition, new_trace
from tests.unit.services.flows import FAILURE, Flows, flowing, named
from tests.unit.services.running import refused

PLACE = Place("flyte", "r1-a0-0", "uid-1", "main", "node-1")
PULLED = Event(NOW, "pulled the image", "Pulled")
BACK_OFF = Event(NOW, "back-off pulling image", "BackOff", warning=True)
KILLED = Event(NOW, "node is shutting down", "NodeShutdown", warning=True)
PLATFORM = Platform((LinkTemplate.parse("logs", "https://logs.example/{{ .podName }}"),), "kind")


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path, platform=PLATFORM) as started:
        await started.create()
        yield started


async def report(flows: Flows, phase: Phase, *events: Event, retries: int = 0, place: Place | None = None) -> None:
    failure = FAILURE if phase is Phase.FAILED else None
    plain = told(await flows.row(), phase, flows.clock, failure=failure)
    await flows.ledger.report(replace(plain, events=events, place=place), Budget(retries=retries))


def watched(flows: Flows, attempt: int = 0) -> AsyncIterator[pb.WatchClusterEventsResponse]:
    return flows.runs.watch_cluster_events(pb.WatchClusterEventsRequest(id=named(), attempt=attempt))


async def page(watch: AsyncIterator[pb.WatchClusterEventsResponse]) -> list[str]:
    async with asyncio.timeout(10):
        return [each.reason for each in (await anext(watch)).cluster_events]


async def rest(watch: AsyncIterator[pb.WatchClusterEventsResponse]) -> list[str]:
    async with asyncio.timeout(10):
        return [each.reason async for response in watch for each in response.cluster_events]


async def test_a_watch_of_events_tells_those_that_there_are_then_each_new_one_once_and_ends_with_the_attempt(
    flows: Flows,
) -> None:
    await report(flows, Phase.INITIALIZING, PULLED)
    watch = watched(flows)
    assert await page(watch) == ["Pulled"]
    await report(flows, Phase.INITIALIZING, PULLED, BACK_OFF)  # nothing else is new
    assert await page(watch) == ["BackOff"]
    await flows.ledger.note(AttemptId(action_id(), 1), Observation(Presence.ALIVE, events=(PULLED, KILLED)))
    assert await page(watch) == ["NodeShutdown"]
    last = replace(PULLED, reason="Last")
    await report(flows, Phase.FAILED, last, retries=1)
    assert await rest(watch) == ["Last"]
    assert (await flows.row()).phase is Phase.QUEUED


async def test_a_watch_of_events_tells_what_the_attempt_waits_for_as_its_details_do(flows: Flows) -> None:
    async def wait(reason: str) -> None:
        plain = told(await flows.row(), Phase.WAITING_FOR_RESOURCES, flows.clock)
        await flows.ledger.report(replace(plain, reason=reason), Budget())

    await wait("waits for 2 CPU")
    watch = watched(flows)
    async with asyncio.timeout(10):
        (event,) = (await anext(watch)).cluster_events
        assert (event.reason, event.message) == ("WaitingForResources", "waits for 2 CPU")
        details = await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named()))
        assert list(details.details.attempts[0].cluster_events) == [event]
        await wait("waits for 1 CPU")
        assert [each.message for each in (await anext(watch)).cluster_events] == ["waits for 1 CPU"]
    await report(flows, Phase.RUNNING, PULLED)
    assert await page(watch) == ["Pulled"]
    await report(flows, Phase.FAILED, retries=1)
    assert await rest(watch) == []


async def test_the_attempt_that_is_present_when_the_watch_begins_stays_the_one_that_is_watched(flows: Flows) -> None:
    await report(flows, Phase.RUNNING, PULLED)
    watch = watched(flows)
    assert await page(watch) == ["Pulled"]
    await report(flows, Phase.FAILED, retries=1)
    await report(flows, Phase.RUNNING, BACK_OFF)
    assert await rest(watch) == []
    assert await rest(watched(flows, 1)) == ["Pulled"]
    second = watched(flows)
    assert await page(second) == ["BackOff"]
    await flows.ledger.abort_action(action_id(), "enough")
    assert await rest(second) == []


async def test_events_alone_are_shown_to_those_who_watch_the_action(flows: Flows) -> None:
    await report(flows, Phase.RUNNING)
    watch = flows.runs.watch_action_details(pb.WatchActionDetailsRequest(action_id=named()))
    async with asyncio.timeout(10):
        assert not (await anext(watch)).details.attempts[0].cluster_events
        await flows.ledger.note(AttemptId(action_id(), 1), Observation(Presence.ALIVE, events=(BACK_OFF,)))
        assert [each.reason for each in (await anext(watch)).details.attempts[0].cluster_events] == ["BackOff"]
        await report(flows, Phase.SUCCEEDED)
        assert [each async for each in watch]


async def test_attempts_that_there_are_not_have_neither_events_nor_logs(flows: Flows) -> None:
    trace = new_trace("t1")
    await flows.ledger.enqueue(replace(trace, base_uri=""))

    async def context(name: str, attempt: int) -> None:
        await flows.runs.get_action_log_context(pb.GetActionLogContextRequest(action_id=named(name), attempt=attempt))

    async def events(name: str, attempt: int) -> None:
        request = pb.WatchClusterEventsRequest(id=named(name), attempt=attempt)
        async for _ in flows.runs.watch_cluster_events(request):
            pass

    for asked in (context, events):
        assert "'nobody'" in await refused(asked("nobody", 0), Code.NOT_FOUND)
        assert "has no attempt 2" in await refused(asked("a0", 2), Code.NOT_FOUND)
        assert "only tasks have them" in await refused(asked("t1", 2), Code.NOT_FOUND)
    assert "only tasks have them" in await refused(context("t1", 0), Code.NOT_FOUND)


async def test_events_of_what_is_no_task_are_none_and_end_with_it(flows: Flows) -> None:
    await flows.ledger.enqueue(replace(new_trace("t1"), base_uri=""))
    await flows.ledger.enqueue(replace(new_condition("c1"), base_uri=""))

    async def events(name: str, attempt: int) -> list[object]:
        request = pb.WatchClusterEventsRequest(id=named(name), attempt=attempt)
        return [each async for each in flows.runs.watch_cluster_events(request)]

    assert await events("t1", 0) == []
    assert await events("t1", 1) == []
    watching = asyncio.create_task(events("c1", 1))
    await asyncio.sleep(0.1)
    assert not watching.done()
    await flows.ledger.signal(action_id("c1"), b"")
    assert await asyncio.wait_for(watching, 10) == []


async def test_the_log_context_tells_the_pod_and_its_times(flows: Flows) -> None:
    await report(flows, Phase.RUNNING, place=PLACE)
    flows.clock.advance(5)
    await report(flows, Phase.SUCCEEDED)
    answer = await flows.runs.get_action_log_context(pb.GetActionLogContextRequest(action_id=named()))
    (pod,) = answer.log_context.pods
    assert (pod.namespace, pod.pod_name, pod.primary_container_name) == ("flyte", "r1-a0-0", "main")
    assert answer.log_context.primary_pod_name == "r1-a0-0"
    (container,) = pod.containers
    process = container.process
    assert container.container_name == "main"
    assert process.container_end_time.seconds - process.container_start_time.seconds == 5
    assert answer.end_time.seconds - answer.start_time.seconds == 5
    assert answer.cluster == "kind"
    details = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named()))).details
    assert (details.attempts[0].log_context, details.attempts[0].cluster) == (answer.log_context, "kind")


async def test_a_process_has_the_log_context_of_the_pod_that_it_would_be(flows: Flows) -> None:
    asked = pb.GetActionLogContextRequest(action_id=named())
    message = await refused(flows.runs.get_action_log_context(asked), Code.FAILED_PRECONDITION)
    assert "it is QUEUED" in message
    await report(flows, Phase.RUNNING)
    pod = (await flows.runs.get_action_log_context(asked)).log_context.pods[0]
    assert (pod.namespace, pod.pod_name) == ("flytesnacks-development", "r1-a0-0")
    assert pod.containers[0].container_name == pod.primary_container_name == "task"


async def test_links_are_shown_in_all_details_once_the_pod_is_known(flows: Flows) -> None:
    await report(flows, Phase.RUNNING)
    asked = pb.GetActionDetailsRequest(action_id=named())
    assert not (await flows.runs.get_action_details(asked)).details.attempts[0].log_info
    await report(flows, Phase.SUCCEEDED, place=PLACE)
    shown = [(await flows.runs.get_action_details(asked)).details]
    run = pb.GetRunDetailsRequest(run_id=named().run)
    shown.append((await flows.runs.get_run_details(run)).details.action)
    async with asyncio.timeout(10):
        watch = pb.WatchActionDetailsRequest(action_id=named())
        shown += [each.details async for each in flows.runs.watch_action_details(watch)]
        watch_run = pb.WatchRunDetailsRequest(run_id=named().run)
        shown += [each.details.action async for each in flows.runs.watch_run_details(watch_run)]
    links = [[(each.name, each.uri) for each in details.attempts[0].log_info] for details in shown]
    assert links == [[("logs", "https://logs.example/r1-a0-0")]] * 4
