"""InternalRunService over the wire: what an executor that runs apart records and reports."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from flyteidl2.common import phase_pb2
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.workflow import internal_run_service_pb2 as pb
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from google.rpc import code_pb2, status_pb2

from flyte_manager.domain.phases import Phase
from tests.fakes.orders import task_spec
from tests.unit.services.flows import Flows, flowing, named

QUEUED, RUNNING = phase_pb2.ACTION_PHASE_QUEUED, phase_pb2.ACTION_PHASE_RUNNING
SUCCEEDED, FAILED = phase_pb2.ACTION_PHASE_SUCCEEDED, phase_pb2.ACTION_PHASE_FAILED
ABORTED, PAUSED = phase_pb2.ACTION_PHASE_ABORTED, phase_pb2.ACTION_PHASE_PAUSED


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        yield started


def recording(name: str = "a0", *, parent: str = "", retries: int = 0, run: str = "r1") -> pb.RecordActionRequest:
    request = pb.RecordActionRequest(action_id=named(name, run), parent=parent)
    request.task.spec.CopyFrom(task_spec("hello.child" if parent else "hello.main", retries=retries))
    return request


def update(
    phase: "phase_pb2.ActionPhase", name: str = "a0", *, attempts: int = 0, reason: str | None = None
) -> pb.UpdateActionStatusRequest:
    status = run_definition_pb2.ActionStatus(phase=phase, attempts=attempts)
    return pb.UpdateActionStatusRequest(action_id=named(name), status=status, abort_reason=reason)


async def record(flows: Flows, request: pb.RecordActionRequest) -> status_pb2.Status:
    answer = await flows.internal.record_action(request)
    assert answer.action_id == request.action_id
    return answer.status


async def tell(flows: Flows, request: pb.UpdateActionStatusRequest) -> status_pb2.Status:
    answer = await flows.internal.update_action_status(request)
    assert answer.action_id == request.action_id
    return answer.status


async def walk(flows: Flows, *phases: "phase_pb2.ActionPhase", name: str = "a0", attempts: int = 0) -> None:
    for phase in phases:
        assert (await tell(flows, update(phase, name, attempts=attempts))).code == code_pb2.OK


async def details(flows: Flows, name: str = "a0") -> run_definition_pb2.ActionDetails:
    request = run_service_pb2.GetActionDetailsRequest(action_id=named(name))
    return (await flows.runs.get_action_details(request)).details


async def test_a_run_that_is_recorded_is_run_elsewhere_and_shows_what_its_executor_tells(flows: Flows) -> None:
    for _ in range(2):
        assert await record(flows, recording()) == status_pb2.Status()
    assert await record(flows, recording("c1", parent="a0")) == status_pb2.Status()
    row = await flows.row("c1")
    assert (row.elsewhere, row.phase, row.parent) == (True, Phase.QUEUED, "a0")
    await walk(flows, QUEUED, RUNNING, SUCCEEDED, name="c1")
    await walk(flows, RUNNING, SUCCEEDED)
    told = await details(flows)
    assert told.status.phase == SUCCEEDED
    assert [each.phase for each in told.attempts[0].phase_transitions] == [QUEUED, RUNNING, SUCCEEDED]
    run = (await flows.runs.get_run_details(run_service_pb2.GetRunDetailsRequest(run_id=named().run))).details
    assert run.action.status.phase == SUCCEEDED


async def test_times_of_a_status_are_kept(flows: Flows) -> None:
    await record(flows, recording())
    request = update(SUCCEEDED)
    request.status.start_time.FromJsonString("2026-11-23T09:00:01Z")
    request.status.end_time.FromJsonString("2026-11-23T09:00:04Z")
    await tell(flows, request)
    row = await flows.row()
    assert f"{row.started_at} {row.ended_at}" == "2026-11-23 09:00:01+00:00 2026-11-23 09:00:04+00:00"
    request.status.end_time.seconds = 1 << 60
    assert (await tell(flows, request)).code == code_pb2.INVALID_ARGUMENT


async def test_an_action_does_not_end_before_its_last_attempt_whatever_clocks_say(flows: Flows) -> None:
    await record(flows, recording())
    event = run_definition_pb2.ActionEvent(id=named(), attempt=1, phase=FAILED)
    await flows.internal.record_action_events(pb.RecordActionEventsRequest(events=[event]))
    request = update(FAILED, attempts=1)
    request.status.end_time.FromJsonString("2020-01-01T00:00:00Z")
    await tell(flows, request)
    told = await details(flows)
    assert told.status.phase == FAILED
    assert told.status.end_time == told.attempts[0].end_time


async def test_a_run_that_is_recorded_tells_whose_it_is(flows: Flows) -> None:
    request = recording()
    request.subject = "ada"
    await record(flows, request)
    assert (await details(flows)).metadata.executed_by.user.id.subject == "ada"
    await record(flows, recording(run="r2"))
    listed = await flows.runs.list_runs(run_service_pb2.ListRunsRequest())
    assert [run.action.metadata.HasField("executed_by") for run in listed.runs] == [False, True]


async def test_failed_is_final_where_the_executor_retries_itself_until_it_tells_of_the_next_attempt(
    flows: Flows,
) -> None:
    await record(flows, recording(retries=3))
    await walk(flows, RUNNING, FAILED, attempts=1)
    assert ((await flows.row()).phase, (await flows.row()).attempt) == (Phase.FAILED, 1)
    await walk(flows, QUEUED, attempts=1)
    assert (await flows.row()).phase is Phase.FAILED
    await walk(flows, RUNNING, attempts=2)
    assert ((await flows.row()).phase, (await flows.row()).attempt) == (Phase.RUNNING, 2)
    await walk(flows, SUCCEEDED, FAILED, QUEUED, attempts=2)
    assert (await tell(flows, update(RUNNING, attempts=3))).code == code_pb2.ABORTED
    told = await details(flows)
    assert (told.status.phase, told.status.attempts) == (SUCCEEDED, 2)
    assert [each.phase for each in told.attempts] == [FAILED, SUCCEEDED]


async def test_a_next_attempt_closes_a_former_one_of_which_nobody_told_the_end(flows: Flows) -> None:
    await record(flows, recording())
    await walk(flows, RUNNING, attempts=1)
    await walk(flows, QUEUED, attempts=4)
    told = await details(flows)
    assert [(each.attempt, each.phase) for each in told.attempts] == [(1, FAILED), (4, QUEUED)]
    assert "attempt 4 began" in told.attempts[0].error_info.message
    assert told.status.phase == QUEUED


async def test_no_attempt_of_a_child_begins_after_its_parent_has_ended(flows: Flows) -> None:
    await record(flows, recording())
    await record(flows, recording("c1", parent="a0"))
    await walk(flows, FAILED, name="c1", attempts=1)
    await walk(flows, SUCCEEDED)
    answer = await tell(flows, update(RUNNING, "c1", attempts=2))
    assert (answer.code, (await flows.row("c1")).attempt) == (code_pb2.ABORTED, 1)


async def test_a_failure_told_of_an_action_of_this_manager_counts_against_the_tasks_retries(flows: Flows) -> None:
    await flows.create(spec=task_spec(retries=1))
    await walk(flows, RUNNING, FAILED)
    row = await flows.row()
    assert (row.elsewhere, row.phase, row.attempt) == (False, Phase.QUEUED, 2)
    await walk(flows, FAILED)
    assert (await flows.row()).phase is Phase.FAILED
    assert (await tell(flows, update(RUNNING, attempts=3))).code == code_pb2.NOT_FOUND


async def test_what_was_recorded_by_one_is_not_taken_over_by_the_other(flows: Flows) -> None:
    await flows.create()
    await flows.actions.enqueue(flows.task("ours"))
    request = recording("ours", parent="a0")
    request.input_uri = f"{flows.base()}/ours/inputs.pb"
    assert (await record(flows, request)).code == code_pb2.OK
    assert not (await flows.row("ours")).elsewhere
    request.action_id.name = "theirs"
    request.input_uri = f"{flows.base()}/theirs/inputs.pb"
    await record(flows, request)
    await flows.actions.enqueue(flows.task("theirs"))
    assert (await flows.row("theirs")).elsewhere


async def test_an_abort_is_told_with_its_reason_and_takes_all_below_along(flows: Flows) -> None:
    await record(flows, recording())
    await record(flows, recording("c1", parent="a0"))
    abort = update(ABORTED, reason="enough")
    abort.principal.user.id.subject = "ada"
    await tell(flows, abort)
    await tell(flows, update(ABORTED, reason="late"))
    told = (await details(flows)).abort_info
    assert (told.reason, told.aborted_by) == ("enough", abort.principal)
    assert (await flows.row("c1")).phase is Phase.ABORTED
    assert (await record(flows, recording("c2", parent="a0"))).code == code_pb2.ABORTED


async def test_traces_are_over_when_they_are_recorded(flows: Flows) -> None:
    await record(flows, recording())
    request = pb.RecordActionRequest(action_id=named("t1"), parent="a0", group="loop")
    request.trace.name = "step"
    request.trace.outputs.output_uri = f"{flows.base()}/t1/outputs.pb"
    assert (await record(flows, request)).code == code_pb2.OK
    assert ((await flows.row("t1")).phase, (await flows.row("t1")).group) == (Phase.SUCCEEDED, "loop")
    assert (await tell(flows, update(SUCCEEDED, "t1"))).code == code_pb2.OK
    assert (await tell(flows, update(FAILED, "t1"))).code == code_pb2.FAILED_PRECONDITION
    await flows.write_error(f"{flows.base()}/t2/error.pb")
    request.action_id.name, request.trace.phase = "t2", FAILED
    await record(flows, request)
    assert "ValueError" in repr((await flows.row("t2")).failure)


async def test_a_condition_gets_its_answer_with_its_status(flows: Flows) -> None:
    await record(flows, recording())
    for name in ("q1", "q2"):
        request = pb.RecordActionRequest(action_id=named(name), parent="a0")
        request.condition.name = "go?"
        request.condition.type.simple = types_pb2.BOOLEAN
        assert (await record(flows, request)).code == code_pb2.OK
    await walk(flows, QUEUED, PAUSED, name="q1")
    assert (await tell(flows, update(SUCCEEDED, "q1"))).code == code_pb2.INVALID_ARGUMENT
    answered = update(SUCCEEDED, "q1")
    answered.output.scalar.primitive.integer = 3
    assert (await tell(flows, answered)).code == code_pb2.INVALID_ARGUMENT
    answered.output.CopyFrom(literals_pb2.Literal(scalar={"primitive": {"boolean": True}}))
    answered.principal.user.id.subject = "ada"
    assert (await tell(flows, answered)).code == code_pb2.OK
    signalled = (await details(flows, "q1")).signal_info
    assert (signalled.output, signalled.signalled_by) == (answered.output, answered.principal)
    await walk(flows, phase_pb2.ACTION_PHASE_TIMED_OUT, name="q2")
    assert (await flows.row("q2")).phase is Phase.TIMED_OUT
    answered.action_id.name = "a0"
    assert (await tell(flows, answered)).code == code_pb2.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.RecordActionRequest(), code_pb2.INVALID_ARGUMENT),
        (recording("c1"), code_pb2.INVALID_ARGUMENT),
        (recording("c1", parent="nobody"), code_pb2.NOT_FOUND),
        (recording("c1", parent="a0", run="r2"), code_pb2.NOT_FOUND),
        (pb.RecordActionRequest(action_id=named("a0", "r3")), code_pb2.INVALID_ARGUMENT),
        (pb.RecordActionRequest(action_id=named("a0", "r3"), trace={"name": "t"}), code_pb2.INVALID_ARGUMENT),
        (pb.RecordActionRequest(action_id=named("c1"), parent="a0"), code_pb2.INVALID_ARGUMENT),
        (pb.RecordActionRequest(action_id=named("c1"), recovered_from=named("c1")), code_pb2.UNIMPLEMENTED),
        (pb.RecordActionRequest(action_id=named("a0", "r3"), input_uri="/etc/passwd"), code_pb2.INVALID_ARGUMENT),
    ],
)
async def test_what_is_wrong_with_a_record_is_told_in_its_status(
    flows: Flows, request_: pb.RecordActionRequest, code: "code_pb2.Code"
) -> None:
    await record(flows, recording())
    answer = await record(flows, request_)
    assert answer.code == code
    assert answer.message


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.UpdateActionStatusRequest(), code_pb2.INVALID_ARGUMENT),
        (pb.UpdateActionStatusRequest(action_id=named()), code_pb2.INVALID_ARGUMENT),
        (update(RUNNING, "nobody"), code_pb2.NOT_FOUND),
        (update(phase_pb2.ACTION_PHASE_UNSPECIFIED), code_pb2.INVALID_ARGUMENT),
        (update(PAUSED), code_pb2.INVALID_ARGUMENT),
        (update(PAUSED, attempts=7), code_pb2.INVALID_ARGUMENT),
        (update(RUNNING, attempts=(1 << 32) - 1), code_pb2.OK),
    ],
)
async def test_what_is_wrong_with_an_update_is_told_in_its_status(
    flows: Flows, request_: pb.UpdateActionStatusRequest, code: "code_pb2.Code"
) -> None:
    await record(flows, recording())
    assert (await tell(flows, request_)).code == code


async def test_a_stream_of_updates_is_answered_in_order_with_the_nonces(flows: Flows) -> None:
    await record(flows, recording())
    names = [f"c{number}" for number in range(300)]

    async def records() -> AsyncIterator[pb.RecordActionStreamRequest]:
        for name in names:
            yield pb.RecordActionStreamRequest(request=recording(name, parent="a0"))

    recorded = [each.response async for each in flows.internal.record_action_stream(records())]
    assert [each.action_id.name for each in recorded] == names
    assert {each.status.code for each in recorded} == {code_pb2.OK}
    asked = [(name, phase) for phase in (RUNNING, SUCCEEDED, QUEUED) for name in (*names, "nobody")]
    answers = [each async for each in flows.internal.update_action_status_stream(updates(asked))]
    assert [each.nonce for each in answers] == list(range(len(asked)))
    assert [each.response.action_id.name for each in answers] == [name for name, _ in asked]
    refused = {each.response.action_id.name for each in answers if each.response.status.code}
    assert refused == {"nobody"}
    assert {(await flows.row(name)).phase for name in names} == {Phase.SUCCEEDED}


async def updates(
    asked: "Sequence[tuple[str, phase_pb2.ActionPhase]]",
) -> AsyncIterator[pb.UpdateActionStatusStreamRequest]:
    for number, (name, phase) in enumerate(asked):
        yield pb.UpdateActionStatusStreamRequest(request=update(phase, name), nonce=number)
