"""What RunService shows, against the fields that the SDK reads (sdk-contract.md §2), and what parents see."""

from dataclasses import replace
from datetime import timedelta

import pytest
from flyteidl2.common import phase_pb2
from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2 as pb

from flyte_manager.domain.actions import Action, ActionHistory, Run
from flyte_manager.domain.attempts import Attempt, ErrorKind, Event, Failure, Transition
from flyte_manager.domain.ids import AttemptId, RunId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownAction, ShownRun
from flyte_manager.wire import runs
from flyte_manager.wire.updates import SENTINEL, action_update, parse_error_document
from tests.fakes.clock import NOW
from tests.fakes.orders import action_id, condition_spec, new_run, new_task, new_trace, task_spec

LATER = NOW + timedelta(seconds=2)
END = NOW + timedelta(seconds=5)
FAILURE = Failure(ErrorKind.USER, "ValueError", "no", recoverable=True)


def task(phase: Phase = Phase.RUNNING, **fields: object) -> Action:
    action = Action(
        id=action_id(),
        kind=Kind.TASK,
        phase=phase,
        created_at=NOW,
        started_at=LATER,
        ended_at=END if phase.final else None,
        task=new_run().task,
        base_uri="/store/r1",
        output_uri="/store/r1/a0/1",
    )
    return replace(action, **fields)  # type: ignore[arg-type]


def history(action: Action, *attempts: Attempt, spec: bytes = b"") -> ActionHistory:
    return ActionHistory(action, attempts, spec or task_spec().SerializeToString())


def action(record: Action) -> pb.Action:
    shown = pb.Action()
    runs.show_action(ShownAction.of(record), shown)
    return shown


def whole(record: Run, root: Action) -> pb.Run:
    shown = pb.Run()
    runs.show_run(ShownRun.of(record, root), shown)
    return shown


def run() -> Run:
    spec = run_pb2.RunSpec()
    spec.labels.values["team"] = "a"
    return Run(
        RunId("flytesnacks", "development", "r1", "acme"),
        Phase.RUNNING,
        new_run().task.name,
        "/store/in",
        "/store/r1",
        NOW,
        run_spec=spec.SerializeToString(),
        source=1,
    )


def test_a_run_tells_its_id_status_and_labels() -> None:
    shown = whole(run(), task())
    assert (shown.action.id.run.project, shown.action.id.run.domain) == ("flytesnacks", "development")
    assert (shown.action.id.run.name, shown.action.id.name) == ("r1", "a0")
    assert shown.action.status.phase == phase_pb2.ACTION_PHASE_RUNNING
    assert shown.action.metadata.source == 1
    assert dict(shown.labels) == {"team": "a"}


def test_details_carry_the_spec_that_types_outputs_and_reruns() -> None:
    details = runs.run_details(run(), history(task()))
    assert details.run_spec.labels.values["team"] == "a"
    assert details.action.task == task_spec()
    assert details.action.metadata.task.short_name == "main"
    assert details.action.metadata.funtion_name == "main"


def test_attempts_tell_their_phases_times_outputs_and_logs() -> None:
    attempt = Attempt(
        AttemptId(action_id(), 1),
        Phase.FAILED,
        NOW,
        transitions=(Transition(Phase.QUEUED, NOW), Transition(Phase.RUNNING, LATER), Transition(Phase.FAILED, END)),
        started_at=LATER,
        ended_at=END,
        failure=FAILURE,
        output_uri="/store/r1/a0/1",
        report_uri="/store/r1/a0/1/report.html",
        events=(Event(END, "late", "LateReport", warning=True),),
        logs_available=True,
    )
    details = runs.action_details(history(task(Phase.FAILED, failure=FAILURE, attempt=1), attempt))
    assert details.status.attempts == 1
    assert details.error_info == pb.ErrorInfo(message="no", kind=pb.ErrorInfo.KIND_USER, code="ValueError")
    (shown,) = details.attempts
    assert (shown.attempt, shown.logs_available, shown.phase) == (1, True, phase_pb2.ACTION_PHASE_FAILED)
    assert shown.outputs.report_uri.endswith("report.html")
    assert shown.error_info.code == "ValueError"
    assert shown.cluster_events[0].type == pb.ClusterEvent.TYPE_WARNING
    spans = [(Phase(each.phase), each.end_time.seconds - each.start_time.seconds) for each in shown.phase_transitions]
    assert spans == [(Phase.QUEUED, 2), (Phase.RUNNING, 3), (Phase.FAILED, 0)]


def test_the_phase_that_an_attempt_is_in_has_no_end_yet() -> None:
    road = (Transition(Phase.QUEUED, NOW), Transition(Phase.RUNNING, LATER))
    attempt = Attempt(AttemptId(action_id(), 1), Phase.RUNNING, NOW, transitions=road)
    (shown,) = runs.action_details(history(task(), attempt)).attempts
    assert [each.HasField("end_time") for each in shown.phase_transitions] == [True, False]


def test_a_root_tells_of_a_relation_only_if_it_has_one() -> None:
    assert not whole(run(), task()).action.metadata.HasField("relation")
    spec = run_pb2.RunSpec()
    spec.relation.related_to.name = "r0"
    again = replace(run(), run_spec=spec.SerializeToString())
    assert whole(again, task()).action.metadata.relation.related_to.name == "r0"


def test_what_a_live_action_waits_for_is_an_event_of_its_attempt() -> None:
    told = Event(NOW, "0/1 nodes are available", reason="FailedScheduling", warning=True)
    attempt = Attempt(
        AttemptId(action_id(), 1),
        Phase.WAITING_FOR_RESOURCES,
        NOW,
        (Transition(Phase.QUEUED, NOW), Transition(Phase.WAITING_FOR_RESOURCES, LATER)),
        events=(told,),
    )

    def events(action: Action) -> list[pb.ClusterEvent]:
        return list(runs.action_details(history(action, attempt)).attempts[0].cluster_events)

    waiting = task(Phase.WAITING_FOR_RESOURCES, reason="exceeded quota: tight")
    told_last = events(waiting)[-1]
    assert len(events(waiting)) == 2
    assert (told_last.reason, told_last.message) == ("WaitingForResources", "exceeded quota: tight")
    assert (told_last.type, told_last.occurred_at.ToDatetime(NOW.tzinfo)) == (pb.ClusterEvent.TYPE_WARNING, LATER)
    starting = events(task(Phase.INITIALIZING, reason="ContainerCreating"))[-1]
    assert (starting.reason, starting.type) == ("Initializing", pb.ClusterEvent.TYPE_NORMAL)
    for action in (task(Phase.RUNNING), task(Phase.ABORTED, reason="enough"), replace(waiting, reason=told.message)):
        assert len(events(action)) == 1


def test_times_of_an_action() -> None:
    status = action(task(Phase.SUCCEEDED)).status
    assert (status.start_time.ToDatetime(NOW.tzinfo), status.end_time.ToDatetime(NOW.tzinfo)) == (LATER, END)
    waiting = action(task(Phase.QUEUED, started_at=None)).status
    assert waiting.start_time.ToDatetime(NOW.tzinfo) == NOW
    assert not waiting.HasField("end_time")


def test_an_abort_tells_its_reason_and_a_retry_no_error() -> None:
    aborted = runs.action_details(history(task(Phase.ABORTED, reason="enough")))
    assert aborted.abort_info.reason == "enough"
    again = runs.action_details(history(task(Phase.QUEUED)))
    assert again.WhichOneof("result") is None


def test_conditions_and_traces_show_their_own_spec() -> None:
    asked = task(Phase.SUCCEEDED, kind=Kind.CONDITION, value=_literal(3), spec=condition_spec())
    details = runs.action_details(history(asked, spec=asked.spec))
    assert details.condition.name == details.metadata.condition.name == "ok?"
    assert details.signal_info.output.scalar.primitive.integer == 3
    order = new_trace("t1")
    traced = task(Phase.SUCCEEDED, kind=Kind.TRACE, task=order.task, spec=order.spec)
    details = runs.action_details(history(traced, spec=order.spec))
    assert details.WhichOneof("spec") == "trace"
    assert details.metadata.trace.name == "traced"


@pytest.mark.parametrize("phase", list(Phase))
def test_every_update_has_an_output_uri(phase: Phase) -> None:
    update = action_update(task(phase, failure=FAILURE if phase in (Phase.FAILED, Phase.TIMED_OUT) else None))
    assert update.output_uri == "/store/r1/a0/1"
    assert update.phase == phase.value
    assert update.HasField("error") == (phase in (Phase.FAILED, Phase.TIMED_OUT))


def test_an_update_of_a_condition_has_an_output_uri_where_nothing_lies() -> None:
    """The SDK warns in the user's log of each update without one."""
    asked = task(Phase.PAUSED, id=action_id("c1"), kind=Kind.CONDITION, output_uri="", spec=condition_spec())
    assert action_update(asked).output_uri == "/store/r1/c1/1"


def test_an_updates_error_says_whether_it_may_be_tried_again() -> None:
    kinds = execution_pb2.ContainerError
    for recoverable, kind in ((True, kinds.RECOVERABLE), (False, kinds.NON_RECOVERABLE)):
        update = action_update(task(Phase.FAILED, failure=replace(FAILURE, recoverable=recoverable)))
        assert (update.error.code, update.error.message) == ("ValueError", "no")
        assert update.error.kind == execution_pb2.ExecutionError.USER
        assert update.error.recoverability == kind
    answered = action_update(task(Phase.SUCCEEDED, value=_literal(3)))
    assert answered.value.scalar.primitive.integer == 3
    assert SENTINEL.sentinel


def test_error_documents() -> None:
    error = execution_pb2.ContainerError(code="OOM", message="m", kind=execution_pb2.ContainerError.RECOVERABLE)
    error.origin = execution_pb2.ExecutionError.SYSTEM
    document = execution_pb2.ErrorDocument(error=error).SerializeToString()
    assert parse_error_document(document) == Failure(ErrorKind.SYSTEM, "OOM", "m", recoverable=True)
    bare = execution_pb2.ErrorDocument(error=execution_pb2.ContainerError(message="m")).SerializeToString()
    assert parse_error_document(bare) == Failure(ErrorKind.USER, "Unknown", "m", recoverable=False)
    for broken in (b"", b"\xff", document[:-3]):
        assert parse_error_document(broken).code == "BrokenErrorDocument"


@pytest.mark.parametrize("message", ["", " \n"])
def test_an_error_without_a_message_is_told_by_its_name_and_where_more_is(message: str) -> None:
    """As of `assert x == 1`."""
    error = execution_pb2.ContainerError(code="AssertionError", message=message)
    document = execution_pb2.ErrorDocument(error=error).SerializeToString()
    assert parse_error_document(document).message == "AssertionError, without a message: see its log"


def test_a_childs_name_is_its_own() -> None:
    order = new_task("c1")
    shown = action(task(id=order.id, parent="a0", group="g"))
    assert (shown.id.name, shown.metadata.parent, shown.metadata.group) == ("c1", "a0", "g")


def _literal(value: int) -> bytes:
    primitive = literals_pb2.Primitive(integer=value)
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive)).SerializeToString()
