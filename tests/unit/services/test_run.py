"""RunService over the wire: made, shown, followed, listed, ended."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.actions import actions_service_pb2
from flyteidl2.common import identifier_pb2, list_pb2, phase_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.workflow import queue_service_pb2
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.identities import IdentityHeaders
from flyte_manager.domain.phases import Phase
from flyte_manager.wire.ids import run_proto
from tests.fakes.orders import run_id, task_spec
from tests.unit.services.flows import Flows, flowing, named
from tests.unit.services.running import refused

RUN = run_proto(run_id())


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        yield started


def unnamed(name: str = "hello.main") -> pb.CreateRunRequest:
    request = pb.CreateRunRequest(task_spec=task_spec(name), inputs=common_pb2.Inputs())
    request.project_id.name, request.project_id.domain = "flytesnacks", "development"
    return request


async def test_a_run_is_made_with_its_root_and_its_inputs(flows: Flows) -> None:
    made = (await flows.create()).run.action
    assert (made.id.run.project, made.id.run.domain, made.id.run.name) == ("flytesnacks", "development", "r1")
    assert (made.id.name, made.status.phase) == ("a0", phase_pb2.ACTION_PHASE_QUEUED)
    assert await flows.blobs.exists((await flows.row()).input_uri)


async def test_creating_it_again_gives_it_again_and_other_content_is_refused(flows: Flows) -> None:
    first = await flows.create()
    await flows.report(Phase.RUNNING)
    again = await flows.create()
    assert again.run.action.id == first.run.action.id
    assert again.run.action.status.phase == phase_pb2.ACTION_PHASE_RUNNING
    await refused(flows.create(spec=task_spec("hello.other")), Code.ALREADY_EXISTS)


async def test_the_start_time_of_the_request_counts_unless_the_run_spec_has_one(flows: Flows) -> None:
    request = unnamed()
    request.run_start_time.FromJsonString("2026-01-02T03:04:05Z")
    made = await flows.runs.create_run(request)
    details = await flows.runs.get_run_details(pb.GetRunDetailsRequest(run_id=made.run.action.id.run))
    assert details.details.run_spec.run_start_time == request.run_start_time
    request.run_spec.run_start_time.FromJsonString("2025-01-02T03:04:05Z")
    made = await flows.runs.create_run(request)
    details = await flows.runs.get_run_details(pb.GetRunDetailsRequest(run_id=made.run.action.id.run))
    assert details.details.run_spec.run_start_time == request.run_spec.run_start_time


async def test_without_a_name_the_request_id_makes_one(flows: Flows) -> None:
    async def made(request: pb.CreateRunRequest, request_id: str) -> str:
        answer = await flows.runs.create_run(request, headers={"x-request-id": request_id} if request_id else None)
        return answer.run.action.id.run.name

    name = await made(unnamed(), "one")
    assert len(name) <= 30
    assert await made(unnamed(), "one") == name
    others = [await made(unnamed(), "two"), await made(unnamed("hello.other"), "one")]
    others += [await made(unnamed(), ""), await made(unnamed(), "")]
    assert len({name, *others}) == 5


async def test_a_run_of_a_deployed_task_bears_the_name_that_it_was_deployed_under(flows: Flows) -> None:
    """So that it is found by it: the spec may have been deployed before, under another version."""
    name = task_definition_pb2.TaskIdentifier(
        project="flytesnacks", domain="development", name="hello.main", version="v2"
    )
    await flows.tasks.deploy_task(task_service_pb2.DeployTaskRequest(task_id=name, spec=task_spec(version="v1")))
    asked = unnamed()
    asked.task_id.CopyFrom(name)
    run = (await flows.runs.create_run(asked)).run
    assert run.action.metadata.task.id == name
    assert run.action.metadata.funtion_name == "main"
    found = await flows.runs.list_runs(pb.ListRunsRequest(task_id=name))
    assert [each.action.id for each in found.runs] == [run.action.id]


async def test_requests_that_lack_something_are_refused_with_its_name(flows: Flows) -> None:
    bare = unnamed()
    bare.ClearField("task_spec")
    assert "task" in await refused(flows.runs.create_run(bare), Code.INVALID_ARGUMENT)
    bare = unnamed()
    bare.ClearField("project_id")
    assert "id" in await refused(flows.runs.create_run(bare), Code.INVALID_ARGUMENT)
    deployed = unnamed()
    deployed.task_id.CopyFrom(
        task_definition_pb2.TaskIdentifier(project="flytesnacks", domain="development", name="no", version="v1")
    )
    assert "flyte deploy" in await refused(flows.runs.create_run(deployed), Code.NOT_FOUND)
    offloaded = unnamed()
    offloaded.offloaded_input_data.uri = flows.blobs.join("gone.pb")
    assert "UploadInputs" in await refused(flows.runs.create_run(offloaded), Code.INVALID_ARGUMENT)


async def test_details_follow_the_action(flows: Flows) -> None:
    await flows.create()
    await flows.report(Phase.FAILED, retries=1)
    details = (await flows.runs.get_run_details(pb.GetRunDetailsRequest(run_id=RUN))).details.action
    assert (details.status.phase, details.status.attempts) == (phase_pb2.ACTION_PHASE_QUEUED, 2)
    assert [each.phase for each in details.attempts] == [phase_pb2.ACTION_PHASE_FAILED, phase_pb2.ACTION_PHASE_QUEUED]
    assert details.task == task_spec()
    got = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named()))).details
    assert got == details
    await refused(flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named("nobody"))), Code.NOT_FOUND)


async def test_a_watch_never_shows_a_failure_that_is_not_final_and_ends_with_the_action(flows: Flows) -> None:
    await flows.create()
    phases = []

    async def watch() -> None:
        async for seen in flows.runs.watch_action_details(pb.WatchActionDetailsRequest(action_id=named())):
            phases.append(seen.details.status.phase)

    watching = asyncio.create_task(watch())
    for _ in range(2):
        await flows.report(Phase.RUNNING)
        await flows.report(Phase.FAILED, retries=2)
    await flows.report(Phase.SUCCEEDED)
    await asyncio.wait_for(watching, 10)
    assert phases[-1] == phase_pb2.ACTION_PHASE_SUCCEEDED
    assert phase_pb2.ACTION_PHASE_FAILED not in phases


async def test_a_watch_of_the_run_ends_with_it(flows: Flows) -> None:
    await flows.create()
    await flows.report(Phase.SUCCEEDED)
    async with asyncio.timeout(10):
        seen = [each async for each in flows.runs.watch_run_details(pb.WatchRunDetailsRequest(run_id=RUN))]
    assert [each.details.action.status.phase for each in seen] == [phase_pb2.ACTION_PHASE_SUCCEEDED]


async def test_where_there_is_no_cluster_a_watch_by_cluster_is_told_so(flows: Flows) -> None:
    request = pb.WatchRunsRequest(cluster_id=identifier_pb2.ClusterIdentifier(name="away"))
    message = await refused(anext(flows.runs.watch_runs(request)), Code.NOT_FOUND)
    assert message == "cluster 'away' is not here: there is no cluster; watch by project instead."


async def test_runs_are_listed_by_pages_and_filters(flows: Flows) -> None:
    for name in ("r1", "r2", "r3"):
        await flows.create(name)
        flows.clock.advance(1)
    await flows.report(Phase.SUCCEEDED, run="r2")

    async def listed(request: list_pb2.ListRequest) -> tuple[list[str], str]:
        asked = pb.ListRunsRequest(request=request)
        asked.project_id.name, asked.project_id.domain = "flytesnacks", "development"
        found = await flows.runs.list_runs(asked)
        return [run.action.id.run.name for run in found.runs], found.token

    shown, token = await listed(list_pb2.ListRequest(limit=2))
    assert shown == ["r3", "r2"]
    assert await listed(list_pb2.ListRequest(limit=2, token=token)) == (["r1"], "")
    assert await listed(list_pb2.ListRequest(limit=2, token="2")) == (["r1"], "")
    by_age = list_pb2.ListRequest(sort_by=list_pb2.Sort(key="created_at", direction=list_pb2.Sort.ASCENDING))
    assert await listed(by_age) == (["r1", "r2", "r3"], "")
    ended = list_pb2.ListRequest(filters=[list_pb2.Filter(field="phase", values=["5"])])
    assert await listed(ended) == (["r2"], "")
    wrong = list_pb2.ListRequest(filters=[list_pb2.Filter(field="color", values=["5"])])
    assert "use one of" in await refused(listed(wrong), Code.INVALID_ARGUMENT)


async def test_actions_are_listed_by_type(flows: Flows) -> None:
    await flows.create()
    await flows.actions.enqueue(flows.task("c1"))
    await flows.actions.enqueue(flows.condition("c2"))
    conditions = list_pb2.ListRequest(filters=[list_pb2.Filter(field="action_type", values=["3"])])
    found = await flows.runs.list_actions(pb.ListActionsRequest(run_id=RUN, request=conditions))
    assert [(each.id.name, each.metadata.condition.name) for each in found.actions] == [("c2", "ok?")]
    everything = await flows.runs.list_actions(pb.ListActionsRequest(run_id=RUN))
    assert [each.id.name for each in everything.actions] == ["a0", "c1", "c2"]
    unknown = pb.ListActionsRequest(run_id=run_proto(run_id("r9")))
    await refused(flows.runs.list_actions(unknown), Code.NOT_FOUND)


async def test_a_watch_of_actions_shows_all_and_then_what_changes(flows: Flows) -> None:
    await flows.create()
    await flows.actions.enqueue(flows.task("c1"))
    phases: dict[str, int] = {}
    async with asyncio.timeout(10):
        async for seen in flows.runs.watch_actions(pb.WatchActionsRequest(run_id=RUN)):
            for each in seen.enriched_actions:
                phases[each.action.id.name] = each.action.status.phase
            if len(phases) == 2 and phases["c1"] == phase_pb2.ACTION_PHASE_QUEUED:
                await flows.report(Phase.SUCCEEDED, "c1")
            if phases.get("c1") == phase_pb2.ACTION_PHASE_SUCCEEDED:
                break


async def test_aborting_a_run_ends_what_is_below_it_with_the_reason(flows: Flows) -> None:
    await flows.create()
    await flows.actions.enqueue(flows.task("c1"))
    await flows.runs.abort_run(pb.AbortRunRequest(run_id=RUN))
    details = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named()))).details
    assert details.abort_info.reason == "User requested abort"
    assert (await flows.row("c1")).phase is Phase.ABORTED
    await flows.runs.abort_run(pb.AbortRunRequest(run_id=RUN, reason="again"))
    await refused(flows.runs.abort_run(pb.AbortRunRequest(run_id=run_proto(run_id("r9")))), Code.NOT_FOUND)


@pytest.fixture
async def behind_a_proxy(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path, headers=IdentityHeaders(trusted=True)) as started:
        yield started


async def test_who_aborted_it_is_shown_as_long_as_it_is_aborted(behind_a_proxy: Flows) -> None:
    flows = behind_a_proxy
    await flows.create()
    for name in ("c1", "c2", "c3"):
        await flows.actions.enqueue(flows.task(name))
    ada, bob = {"x-amzn-oidc-identity": "ada"}, {"x-amzn-oidc-identity": "bob"}
    await flows.runs.abort_action(pb.AbortActionRequest(action_id=named("c1")), headers=ada)
    await flows.runs.abort_action(pb.AbortActionRequest(action_id=named("c1")), headers=bob)
    queued = queue_service_pb2.AbortQueuedActionRequest(action_id=named("c2"))
    await flows.queue.abort_queued_action(queued, headers=bob)
    await flows.actions.abort(actions_service_pb2.AbortRequest(action_id=named("c3")))

    async def shown(name: str) -> str:
        details = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named(name)))).details
        return str(details.abort_info.aborted_by.user.id.subject)

    assert [await shown(name) for name in ("c1", "c2", "c3")] == ["ada", "bob", ""]
    await flows.report(Phase.FAILED, retries=1)
    await flows.actions.enqueue(flows.task("c1"))
    row = await flows.row("c1")
    assert (row.phase, row.signalled_by) == (Phase.QUEUED, b"")
    await flows.runs.abort_run(pb.AbortRunRequest(run_id=RUN), headers=bob)
    assert [await shown(name) for name in ("a0", "c1")] == ["bob", ""]


async def test_aborting_an_action_leaves_its_parent(flows: Flows) -> None:
    await flows.create()
    await flows.actions.enqueue(flows.task("c1"))
    await flows.runs.abort_action(pb.AbortActionRequest(action_id=named("c1"), reason="enough"))
    assert ((await flows.row("c1")).reason, (await flows.row()).phase) == ("enough", Phase.QUEUED)


async def test_a_signal_answers_a_condition_once(flows: Flows) -> None:
    await flows.create()
    await flows.actions.enqueue(flows.condition("c1"))

    def signal(name: str, **value: object) -> pb.SignalEventRequest:
        return pb.SignalEventRequest(action_id=named(name), parent_action_name="a0", payload=pb.EventPayload(**value))  # type: ignore[arg-type]

    await refused(flows.runs.signal_event(signal("c1", string_value="x")), Code.INVALID_ARGUMENT)
    for _ in range(2):
        await flows.runs.signal_event(signal("c1", int_value=3))
    await refused(flows.runs.signal_event(signal("c1", int_value=4)), Code.FAILED_PRECONDITION)
    await refused(flows.runs.signal_event(signal("a0", int_value=4)), Code.FAILED_PRECONDITION)
    await refused(flows.runs.signal_event(signal("nobody", int_value=4)), Code.NOT_FOUND)
    details = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named("c1")))).details
    assert details.signal_info.output.scalar.primitive.integer == 3
    assert details.metadata.parent == "a0"


async def test_the_answer_to_a_condition_is_its_output_and_it_has_no_inputs(flows: Flows) -> None:
    """The SDK names a place of inputs where it writes nothing."""
    await flows.create()
    await flows.actions.enqueue(flows.condition("c1"))
    asked = pb.GetActionDataRequest(action_id=named("c1"))
    before = await flows.runs.get_action_data(asked)
    assert not before.inputs.literals
    assert not before.outputs.literals
    payload = pb.EventPayload(int_value=3)
    await flows.runs.signal_event(pb.SignalEventRequest(action_id=named("c1"), payload=payload))
    (answer,) = (await flows.runs.get_action_data(asked)).outputs.literals
    assert (answer.name, answer.value.scalar.primitive.integer) == ("o0", 3)
    uris = await flows.runs.get_action_data_u_r_is(pb.GetActionDataURIsRequest(action_id=named("c1")))
    assert uris == pb.GetActionDataURIsResponse()


async def test_uris_of_an_action(flows: Flows) -> None:
    await flows.create()
    request = pb.GetActionDataURIsRequest(action_id=named())
    assert (await flows.runs.get_action_data_u_r_is(request)).outputs_uri == ""
    await flows.report(Phase.SUCCEEDED)
    found = await flows.runs.get_action_data_u_r_is(request)
    assert found.outputs_uri == f"{flows.base()}/a0/1/outputs.pb"
    assert await flows.blobs.exists(found.inputs_uri)
