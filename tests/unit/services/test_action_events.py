"""Events of attempts from an executor that runs apart, and what the details of the action show of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.common import phase_pb2
from flyteidl2.core import catalog_pb2, execution_pb2
from flyteidl2.workflow import events_proxy_service_pb2, run_service_pb2
from flyteidl2.workflow import internal_run_service_pb2 as pb
from flyteidl2.workflow import run_definition_pb2 as definition
from google.rpc import code_pb2

from flyte_manager.domain.phases import Phase
from tests.fakes.orders import task_spec
from tests.unit.services.flows import Flows, flowing, named
from tests.unit.services.running import refused
from tests.unit.services.test_internal_run import recording, tell, update

QUEUED, RUNNING = phase_pb2.ACTION_PHASE_QUEUED, phase_pb2.ACTION_PHASE_RUNNING
SUCCEEDED, FAILED = phase_pb2.ACTION_PHASE_SUCCEEDED, phase_pb2.ACTION_PHASE_FAILED
USER = {"message": "division by zero", "kind": "KIND_USER", "code": "ZeroDivisionError"}


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        await started.internal.record_action(recording())
        yield started


def event(phase: "phase_pb2.ActionPhase", attempt: int = 1, second: int = 0, **fields: Any) -> definition.ActionEvent:
    made = definition.ActionEvent(id=named(), attempt=attempt, phase=phase, **fields)
    made.updated_time.FromJsonString(f"2026-11-23T10:00:{second:02}Z")
    return made


async def keep(flows: Flows, *events: definition.ActionEvent) -> int:
    answer = await flows.internal.record_action_events(pb.RecordActionEventsRequest(events=events))
    return answer.status.code


async def attempts(flows: Flows) -> list[definition.ActionAttempt]:
    request = run_service_pb2.GetActionDetailsRequest(action_id=named())
    return list((await flows.runs.get_action_details(request)).details.attempts)


async def test_events_make_the_history_of_an_attempt(flows: Flows) -> None:
    told = event(SUCCEEDED, second=9)
    told.outputs.output_uri = f"{flows.base()}/a0/1/outputs.pb"
    told.outputs.report_uri = f"{flows.base()}/a0/1/report.html"
    for _ in range(2):  # told twice is told once
        assert await keep(flows, event(QUEUED, second=1), event(RUNNING, second=4), told) == code_pb2.OK
    (attempt,) = await attempts(flows)
    seconds = [each.start_time.ToJsonString()[-3:-1] for each in attempt.phase_transitions]
    assert [each.phase for each in attempt.phase_transitions] == [QUEUED, RUNNING, SUCCEEDED]
    assert seconds[1:] == ["04", "09"]
    assert attempt.outputs.output_uri == f"{flows.base()}/a0/1"
    assert attempt.outputs.report_uri == f"{flows.base()}/a0/1/report.html"
    assert (await flows.row()).phase is Phase.SUCCEEDED


async def test_logs_cluster_and_warnings_of_all_events_are_shown_the_latest_of_each(flows: Flows) -> None:
    warning = {"message": "0/3 nodes", "reason": "FailedScheduling", "type": "TYPE_WARNING", "count": 7}
    first = event(QUEUED, cluster="c1", cluster_events=[{**warning, "source_component": "scheduler"}])
    second = event(RUNNING, cluster="c2")
    for told, uri in ((first, "https://logs/1"), (second, "https://logs/2")):
        told.log_info.add(name="log", uri=uri)
        told.log_info.add(name="bad", uri="javascript:alert(1)")
    second.log_info.add(name="other", uri="https://logs/3")
    second.log_context.primary_pod_name = "p"
    pod = second.log_context.pods.add(namespace="n", pod_name="p", primary_container_name="main")
    pod.containers.add(container_name="main")
    second.log_context.connector.endpoint = "connector:8000"
    second.cache_status = catalog_pb2.CACHE_MISS
    assert await keep(flows, first, second, second) == code_pb2.OK
    (attempt,) = await attempts(flows)
    assert [(each.name, each.uri) for each in attempt.log_info] == [
        ("log", "https://logs/2"),
        ("other", "https://logs/3"),
    ]
    assert (attempt.cluster, attempt.cache_status, attempt.logs_available) == ("c2", 1, True)
    assert [each.pod_name for each in attempt.log_context.pods] == ["p"]
    asked = run_service_pb2.GetActionLogContextRequest(action_id=named(), attempt=1)
    context = await flows.runs.get_action_log_context(asked)
    assert (context.log_context, context.cluster) == (attempt.log_context, attempt.cluster)
    (kept,) = attempt.cluster_events
    assert (kept.reason, kept.source_component, kept.count) == ("FailedScheduling", "scheduler", 7)
    assert kept.type == definition.ClusterEvent.TYPE_WARNING


async def test_of_links_without_end_the_last_hundred_are_kept(flows: Flows) -> None:
    for first in range(0, 300, 60):
        told = event(RUNNING)
        for number in (0, *range(first, first + 60)):
            told.log_info.add(name=f"link {number}", uri=f"https://logs/{first}")
        assert await keep(flows, told) == code_pb2.OK
    (attempt,) = await attempts(flows)
    shown = [each.name for each in attempt.log_info]
    assert len(shown) == 100
    assert "link 0" in shown
    assert shown[-1] == "link 299"


async def test_an_attempt_that_failed_is_followed_by_the_next_without_a_failed_action_between(flows: Flows) -> None:
    await keep(flows, event(RUNNING), event(FAILED, error_info=USER))
    assert (await flows.row()).phase is Phase.RUNNING
    await keep(flows, event(QUEUED, 2), event(RUNNING, 2), event(FAILED, 2, error_info=USER))
    assert ((await flows.row()).phase, (await flows.row()).attempt) == (Phase.RUNNING, 2)
    assert (await tell(flows, update(FAILED, attempts=2))).code == code_pb2.OK
    row = await flows.row()
    assert row.phase is Phase.FAILED
    assert "division by zero" in repr(row.failure)
    assert [each.error_info.message for each in await attempts(flows)] == [USER["message"]] * 2


async def test_events_that_come_after_the_status_still_tell_why(flows: Flows) -> None:
    await tell(flows, update(FAILED))
    await keep(flows, event(FAILED, error_info=USER, log_info=[{"name": "log", "uri": "https://logs"}]))
    (attempt,) = await attempts(flows)
    assert (attempt.error_info.message, attempt.log_info[0].uri) == (USER["message"], "https://logs")
    request = run_service_pb2.GetActionDetailsRequest(action_id=named())
    assert (await flows.runs.get_action_details(request)).details.error_info == attempt.error_info
    assert await keep(flows, event(SUCCEEDED)) == code_pb2.OK
    assert (await attempts(flows))[0].phase == FAILED


async def test_a_gpu_fault_is_told_with_the_error_and_the_event_that_brought_it(flows: Flows) -> None:
    fault = execution_pb2.GpuFault(kind=execution_pb2.GpuFault.KIND_XID, code=79, node="n1", gpu_index=2)
    seen = {"message": "fell off the bus", "reason": "Xid", "gpu_fault": fault}
    await keep(flows, event(FAILED, error_info={**USER, "gpu_fault": fault}, cluster_events=[seen]))
    await tell(flows, update(FAILED))
    request = run_service_pb2.GetActionDetailsRequest(action_id=named())
    told = (await flows.runs.get_action_details(request)).details
    (attempt,) = told.attempts
    assert told.error_info == attempt.error_info == definition.ErrorInfo(**USER, gpu_fault=fault)
    assert [each.gpu_fault for each in attempt.cluster_events] == [fault]
    watch = flows.runs.watch_cluster_events(run_service_pb2.WatchClusterEventsRequest(id=named(), attempt=1))
    assert [list(each.cluster_events) async for each in watch] == [list(attempt.cluster_events)]


async def test_attempt_0_is_the_present_one(flows: Flows) -> None:
    assert await keep(flows, event(RUNNING, 2), event(SUCCEEDED, 0)) == code_pb2.OK
    assert [(each.attempt, each.phase) for each in await attempts(flows)] == [(1, FAILED), (2, SUCCEEDED)]


async def test_a_batch_keeps_what_is_good_and_tells_the_first_that_is_not(flows: Flows) -> None:
    unknown, unnamed = event(RUNNING), definition.ActionEvent(phase=RUNNING)
    unknown.id.name = "nobody"
    assert await keep(flows, unknown, event(RUNNING)) == code_pb2.NOT_FOUND
    assert (await flows.row()).phase is Phase.RUNNING
    assert await keep(flows, unnamed) == code_pb2.INVALID_ARGUMENT
    assert await keep(flows, event(phase_pb2.ACTION_PHASE_PAUSED, 9)) == code_pb2.INVALID_ARGUMENT
    outside = event(SUCCEEDED)
    outside.outputs.output_uri = "/etc/passwd"
    assert await keep(flows, outside) == code_pb2.INVALID_ARGUMENT
    assert await keep(flows, *[event(RUNNING)] * 10_001) == code_pb2.INVALID_ARGUMENT
    assert ((await flows.row()).phase, (await flows.row()).attempt) == (Phase.RUNNING, 1)


async def test_a_failure_told_by_an_event_of_this_managers_own_action_is_retried_here(flows: Flows) -> None:
    await flows.create("r2", spec=task_spec(retries=1))
    failed = event(FAILED, error_info=USER)
    failed.id.CopyFrom(named("a0", "r2"))
    assert await keep(flows, failed) == code_pb2.OK
    row = await flows.row("a0", "r2")
    assert (row.phase, row.attempt, row.user_failures) == (Phase.QUEUED, 2, 1)


async def test_the_stream_of_events_answers_each_with_its_nonce(flows: Flows) -> None:
    unknown = event(RUNNING)
    unknown.id.name = "nobody"

    async def events() -> AsyncIterator[pb.RecordActionEventStreamRequest]:
        for nonce, each in ((7, event(RUNNING)), (8, unknown), (9, event(SUCCEEDED))):
            yield pb.RecordActionEventStreamRequest(request=pb.RecordActionEventRequest(event=each), nonce=nonce)

    answers = [each async for each in flows.internal.record_action_event_stream(events())]
    codes = [(each.nonce, each.response.status.code, each.response.action_id.name) for each in answers]
    assert codes == [(7, code_pb2.OK, "a0"), (8, code_pb2.NOT_FOUND, "nobody"), (9, code_pb2.OK, "a0")]


async def test_the_proxy_keeps_events_and_its_refusal_is_an_error_of_the_call(flows: Flows) -> None:
    await flows.events.record(events_proxy_service_pb2.RecordRequest())
    await flows.events.record(events_proxy_service_pb2.RecordRequest(events=[event(RUNNING)]))
    assert (await flows.row()).phase is Phase.RUNNING
    unknown = event(SUCCEEDED)
    unknown.id.name = "nobody"
    request = events_proxy_service_pb2.RecordRequest(events=[unknown, event(SUCCEEDED)])
    await refused(flows.events.record(request), Code.NOT_FOUND)
    assert (await flows.row()).phase is Phase.SUCCEEDED
