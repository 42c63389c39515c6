"""Requests for actions and signals, read; what is wrong is refused with its name."""

import itertools

import pytest
from flyteidl2.actions import actions_service_pb2
from flyteidl2.common import list_pb2, phase_pb2
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import queue_service_pb2, run_definition_pb2, run_service_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from flyte_manager.domain.actions import Action
from flyte_manager.domain.errors import IllegalName, NotGiven
from flyte_manager.domain.filters import BadLimit, Filter, Function, Order
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.domain.tasks import World
from flyte_manager.wire import listing
from flyte_manager.wire.conditions import BadConditionType, WrongSignal, answer, check_condition, check_literal
from flyte_manager.wire.enriched import BadWatchFilter, Enriched
from flyte_manager.wire.ids import action_proto
from flyte_manager.wire.orders import TraceUnfinished, new_action, spec_digest
from flyte_manager.wire.phases import UnknownPhase, phase_named, phase_of
from flyte_manager.wire.plan import BadQuantity, plan
from flyte_manager.wire.times import BadTime
from tests.fakes.clock import NOW
from tests.fakes.orders import action_id, condition_spec, task_spec

Asked = queue_service_pb2.EnqueueActionRequest | actions_service_pb2.Action


@pytest.fixture(params=[queue_service_pb2.EnqueueActionRequest, actions_service_pb2.Action])
def asked(request: pytest.FixtureRequest) -> Asked:
    """Both services ask alike."""
    made: Asked = request.param(action_id=action_proto(action_id("c1")), parent_action_name="a0", group="g")
    made.input_uri, made.run_output_base = "/store/r1/c1/inputs.pb", "/store/r1"
    return made


def test_a_task(asked: Asked) -> None:
    asked.task.spec.CopyFrom(task_spec("hello.child"))
    asked.task.cache_key.CopyFrom(StringValue(value="key"))
    order = new_action(asked)
    assert (order.id, order.parent, order.kind, order.group) == (action_id("c1"), "a0", Kind.TASK, "g")
    assert (order.task.name.name, order.task.function, order.cache_key) == ("hello.child", "child", "key")
    assert (order.input_uri, order.base_uri) == ("/store/r1/c1/inputs.pb", "/store/r1")
    assert (order.spec_digest, order.spec) == spec_digest(task_spec("hello.child"))


def test_a_trace(asked: Asked) -> None:
    asked.trace.name = "t"
    asked.trace.phase = phase_pb2.ACTION_PHASE_FAILED
    asked.trace.outputs.output_uri = "/store/r1/c1/outputs.pb"
    asked.trace.start_time.FromDatetime(NOW.replace(tzinfo=None))
    order = new_action(asked)
    assert (order.kind, order.phase, order.started_at, order.ended_at) == (Kind.TRACE, Phase.FAILED, NOW, None)
    assert order.output_uri == "/store/r1/c1/outputs.pb"
    asked.trace.phase = phase_pb2.ACTION_PHASE_RUNNING
    with pytest.raises(TraceUnfinished):
        new_action(asked)
    asked.trace.phase = phase_pb2.ACTION_PHASE_SUCCEEDED
    asked.trace.end_time.CopyFrom(Timestamp(seconds=1 << 60))
    with pytest.raises(BadTime):
        new_action(asked)


def test_a_condition(asked: Asked) -> None:
    asked.condition.ParseFromString(condition_spec(5))
    order = new_action(asked)
    assert (order.kind, order.task.short_name, order.spec) == (Kind.CONDITION, "ok?", condition_spec(5))


def test_what_is_missing_is_named(asked: Asked) -> None:
    with pytest.raises(NotGiven, match="_U_USE_ACTIONS=1"):
        new_action(asked)
    asked.task.SetInParent()
    with pytest.raises(NotGiven, match="task_template"):
        new_action(asked)
    asked.action_id.name = "../c1"
    with pytest.raises(IllegalName):
        new_action(asked)


def condition(simple: "types_pb2.SimpleType") -> run_definition_pb2.ConditionAction:
    return run_definition_pb2.ConditionAction.FromString(condition_spec(simple=simple))


@pytest.mark.parametrize(
    ("simple", "payload", "field"),
    [
        (types_pb2.BOOLEAN, {"bool_value": False}, "boolean"),
        (types_pb2.INTEGER, {"int_value": 0}, "integer"),
        (types_pb2.FLOAT, {"float_value": 0.5}, "float_value"),
        (types_pb2.FLOAT, {"int_value": 2}, "float_value"),
        (types_pb2.STRING, {"string_value": ""}, "string_value"),
    ],
)
def test_an_answer_becomes_a_literal_of_the_conditions_type(
    simple: "types_pb2.SimpleType", payload: dict[str, object], field: str
) -> None:
    given = run_service_pb2.EventPayload(**payload)  # type: ignore[arg-type]
    literal = literals_pb2.Literal.FromString(answer(condition(simple), given))
    assert literal.scalar.primitive.WhichOneof("value") == field
    assert getattr(literal.scalar.primitive, field) == next(iter(payload.values()))
    assert check_literal(condition(simple), literal) == answer(condition(simple), given)


def test_a_wrong_answer_is_refused() -> None:
    with pytest.raises(WrongSignal, match="type int"):
        answer(condition(types_pb2.INTEGER), run_service_pb2.EventPayload(string_value="3"))
    with pytest.raises(WrongSignal, match="none was given"):
        answer(condition(types_pb2.INTEGER), run_service_pb2.EventPayload())
    with pytest.raises(WrongSignal, match="no primitive"):
        check_literal(condition(types_pb2.INTEGER), literals_pb2.Literal())
    with pytest.raises(BadConditionType):
        check_condition(condition(types_pb2.DATETIME))


def test_phases() -> None:
    for name in ("PHASE_RUNNING", "ACTION_PHASE_RUNNING", "RUNNING"):
        assert phase_named(name) is phase_of(4) is Phase.RUNNING
    for wrong in (0, 11, -1):
        with pytest.raises(UnknownPhase):
            phase_of(wrong)
    with pytest.raises(UnknownPhase):
        phase_named("DANCING")


def test_a_plan_reads_what_the_spec_says() -> None:
    read = plan(task_spec(retries=2, backoff=3, cpu="500m", memory="1Gi", outputs=True), World.PROCESSES)
    assert (read.budget.retries, read.budget.backoff_base) == (2, 3)
    assert (read.cpu, read.memory, read.outputs, read.unsupported) == (0.5, 1 << 30, ("o0",), "")
    assert read.args[0] == "a0"


def test_what_cannot_run_here_says_the_cure() -> None:
    def refused(spec: task_definition_pb2.TaskSpec) -> str:
        return plan(spec, World.PROCESSES).unsupported

    pod, plugin, reusable, bare = task_spec(), task_spec(), task_spec(), task_spec()
    pod.task_template.k8s_pod.SetInParent()
    plugin.task_template.type = "spark"
    reusable.task_template.reuse_policy.SetInParent()
    bare.task_template.ClearField("container")
    assert "pod_template" in refused(pod)
    assert "spark" in refused(plugin)
    assert "reusable" in refused(reusable)
    assert "Python task" in refused(bare)
    with pytest.raises(BadQuantity, match="memory"):
        plan(task_spec(memory="lots"), World.PROCESSES)


def test_list_requests() -> None:
    request = list_pb2.ListRequest(limit=10, token="20")
    request.filters.add(field="phase", function=list_pb2.Filter.EQUAL, values=["4"])
    request.sort_by.key = "created_at"
    read = listing.query(request)
    assert (read.limit, read.offset, read.order) == (10, 20, (Order("created_at", descending=True),))
    assert read.filters == (Filter("phase", Function.EQUAL, ("4",)),)
    request.sort_by.direction = list_pb2.Sort.ASCENDING
    assert listing.query(request).order == (Order("created_at", descending=False),)
    assert (listing.query(list_pb2.ListRequest(token="abc")).after, listing.query(request).after) == ("abc", "")
    request.sort_by_fields.add(key="name")
    assert listing.query(request).order == (Order("name", descending=True),)
    many = list_pb2.Filter(field="name", function=list_pb2.Filter.VALUE_IN, values=["x"] * 600)
    for wrong in (
        list_pb2.ListRequest(filters=[many, many]),
        list_pb2.ListRequest(filters=[list_pb2.Filter(field="name")] * 51),
        list_pb2.ListRequest(sort_by_fields=[list_pb2.Sort(key="name")] * 11),
    ):
        with pytest.raises(listing.TooMuch, match="at most"):
            listing.query(wrong)
    with pytest.raises(BadLimit):
        listing.query(list_pb2.ListRequest(limit=1001))
    with pytest.raises(listing.RawFilters):
        listing.query(list_pb2.ListRequest(raw_filters=["x"]))


def test_filter_functions_have_upstreams_numbers() -> None:
    assert {each.value: each.name for each in Function} == {
        number: name for name, number in list_pb2.Filter.Function.items() if number in set(Function)
    }


def child(name: str, phase: Phase, parent: str = "a0") -> ShownAction:
    return ShownAction.of(Action(action_id(name), Kind.TASK, phase, NOW, parent=parent))


def taken(view: Enriched, *page: ShownAction) -> list[run_definition_pb2.EnrichedAction]:
    return list(view.take(page).enriched_actions)


def test_a_watch_of_actions_counts_the_phases_of_children() -> None:
    view = Enriched([])
    root = child("a0", Phase.RUNNING, "")
    shown = {
        each.action.id.name: each for each in taken(view, child("c1", Phase.QUEUED), child("c2", Phase.QUEUED), root)
    }
    assert dict(shown["a0"].children_phase_counts) == {Phase.QUEUED: 2}
    shown = {each.action.id.name: each for each in taken(view, child("c1", Phase.SUCCEEDED))}
    assert dict(shown["a0"].children_phase_counts) == {Phase.QUEUED: 1, Phase.SUCCEEDED: 1}
    assert set(shown) == {"a0", "c1"}


def test_a_watch_of_actions_counts_all_that_lies_below_and_tells_the_ancestors_again() -> None:
    view = Enriched([])
    tree = [child("a0", Phase.RUNNING, ""), child("b", Phase.RUNNING), child("c", Phase.RUNNING, "b")]
    view.take([*tree, child("d", Phase.QUEUED, "c")])
    shown = {
        each.action.id.name: dict(each.children_phase_counts) for each in taken(view, child("d", Phase.FAILED, "c"))
    }
    assert shown == {
        "a0": {Phase.RUNNING: 2, Phase.FAILED: 1},
        "b": {Phase.RUNNING: 1, Phase.FAILED: 1},
        "c": {Phase.FAILED: 1},
        "d": {},
    }


@pytest.mark.parametrize("order", list(itertools.permutations(["a0", "b", "c", "d"])))
def test_a_watch_of_actions_may_see_an_action_before_its_parent(order: tuple[str, ...]) -> None:
    """W14"""
    parents = {"a0": "", "b": "a0", "c": "b", "d": "b"}
    view = Enriched([])
    told: dict[str, dict[int, int]] = {}
    for name in order:  # a page each
        for each in taken(view, child(name, Phase.RUNNING, parents[name])):
            told[each.action.id.name] = dict(each.children_phase_counts)
    assert told == {"a0": {Phase.RUNNING: 3}, "b": {Phase.RUNNING: 2}, "c": {}, "d": {}}


def test_an_action_that_meets_the_filter_no_more_is_told_so() -> None:
    view = Enriched([list_pb2.Filter(field="PHASE", function=list_pb2.Filter.VALUE_IN, values=["1"])])
    (before,) = taken(view, child("c1", Phase.QUEUED))
    (after,) = taken(view, child("c1", Phase.RUNNING))
    assert (before.meets_filter, after.meets_filter) == (True, False)


def test_a_watch_of_actions_tells_which_meet_its_filters() -> None:
    def watching(field: str, function: "list_pb2.Filter.Function", values: list[str]) -> list[str]:
        view = Enriched([list_pb2.Filter(field=field, function=function, values=values)])
        told = taken(view, child("c1", Phase.FAILED), child("d2", Phase.QUEUED))
        return [each.action.id.name for each in told if each.meets_filter]

    assert watching("PHASE", list_pb2.Filter.VALUE_IN, ["6"]) == ["c1"]
    assert watching("phase", list_pb2.Filter.VALUE_IN, ["FAILED", "1"]) == ["c1", "d2"]
    assert watching("NAME", list_pb2.Filter.CONTAINS_CASE_INSENSITIVE, ["D"]) == ["d2"]
    with pytest.raises(BadWatchFilter):
        watching("owner", list_pb2.Filter.EQUAL, ["x"])
    for wrong in ("²", "99", ""):
        with pytest.raises(UnknownPhase):
            watching("phase", list_pb2.Filter.VALUE_IN, [wrong])
