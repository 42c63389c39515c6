"""TaskActions that somebody else wrote, with every kind of damage; and those that we write."""

import base64
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.core import types_pb2
from flyteidl2.task import run_pb2
from google.protobuf.wrappers_pb2 import BoolValue

from flyte_manager.domain.actions import Action, Resource, Run, TaskSummary
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes import bodies, orders
from flyte_manager.kubernetes.bodies import Making
from tests.fakes.clock import NOW
from tests.fakes.orders import BASE, action_id, condition_spec, run_id, task_spec

FOREIGN = Resource("theirs", "uid-9")
TEMPLATE = task_spec().task_template.SerializeToString()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def foreign_spec(**changed: Any) -> dict[str, Any]:
    spec = {
        "runName": "r1",
        "project": "flytesnacks",
        "domain": "development",
        "actionName": "a0",
        "taskType": "python",
        "taskTemplate": encoded(TEMPLATE),
        "inputUri": "s3://b/r1/inputs.pb",
        "runOutputBase": "s3://b/r1/",
        "shortName": "main",
        "envVars": {"A": "1"},
    }
    return {name: value for name, value in {**spec, **changed}.items() if value is not None}


def read(spec: Mapping[str, Any], **metadata: Any) -> Any:
    return orders.order(FOREIGN, spec, metadata)


def test_a_task_is_read_whole() -> None:
    found = read(foreign_spec(interruptible=False, cacheKey="k", group="g"))
    assert found.problem == ""
    assert (found.id, found.parent, found.resource) == (action_id(), "", FOREIGN)
    assert (found.template, found.condition) == (TEMPLATE, b"")
    assert (found.input_uri, found.base_uri) == ("s3://b/r1/inputs.pb", "s3://b/r1")
    assert (found.envs, found.interruptible, found.cache_key, found.group) == ({"A": "1"}, False, "k", "g")


def test_a_condition_is_read_whole() -> None:
    content = condition_spec()
    spec = foreign_spec(actionType="condition", conditionSpec=encoded(content), taskTemplate=None, taskType=None)
    found = read({**spec, "actionName": "c1", "parentActionName": "a0"})
    assert (found.problem, found.condition, found.template, found.parent) == ("", content, b"", "a0")


def test_labels_about_the_object_alone_are_not_inherited() -> None:
    labels = {"team": "x", "flyte.org/terminal-status-recorded": "true"}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{…}", "note": "y"}
    found = read(foreign_spec(), labels=labels, annotations=annotations)
    assert (found.labels, found.annotations) == ({"team": "x"}, {"note": "y"})


@pytest.mark.parametrize("field", ["runName", "project", "taskTemplate", "inputUri", "runOutputBase", "taskType"])
def test_a_missing_field_is_told_in_upstreams_words(field: str) -> None:
    for missing in ({field: None}, {field: ""}, {field: 7}):
        assert read(foreign_spec(**missing)).problem == f"required spec fields are empty: [{field}]"


def test_all_missing_fields_are_told_at_once() -> None:
    problem = read({}).problem
    fields = "runName project domain actionName taskType taskTemplate inputUri runOutputBase"
    assert problem == f"required spec fields are empty: [{fields}]"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"taskTemplate": "%%%"}, "taskTemplate is not base64"),
        ({"taskTemplate": "ä"}, "taskTemplate is not base64"),
        ({"taskTemplate": encoded(b"\xff\xff\xff")}, "taskTemplate is no flyteidl2.core.TaskTemplate"),
        ({"taskTemplate": encoded(b"\x12\x00")}, "taskTemplate names no task: its id.name is empty"),
        ({"actionType": "trace"}, "actionType 'trace' is not known: use task or condition"),
        ({"actionType": "condition"}, "required spec fields are empty: [conditionSpec]"),
        ({"actionType": "condition", "conditionSpec": encoded(b"\xff")}, "conditionSpec is no flyteidl2.workflow.Cond"),
        (
            {"actionType": "condition", "conditionSpec": encoded(condition_spec(0, types_pb2.DATETIME))},
            "conditionSpec can't be answered: condition 'ok?' has a type",
        ),
    ],
)
def test_damage_is_told_in_words(changed: Mapping[str, Any], words: str) -> None:
    found = read(foreign_spec(**changed))
    assert found.problem.startswith(words)
    assert not found.condition
    assert found.id == action_id()


def test_no_damage_raises() -> None:
    dice = random.Random(4)
    junk: list[Any] = ["", None, 7, True, [], {}, {"a": 1}, "é", "\x00", "x" * 5000, encoded(b"\x0a\xff"), -1.5]
    for _ in range(2000):
        spec = {name: dice.choice([value, *junk]) for name, value in foreign_spec(actionType="task").items()}
        metadata = {name: dice.choice(junk) for name in ("labels", "annotations")}
        found = orders.order(FOREIGN, spec, metadata)
        assert isinstance(found.problem, str)
        assert all(isinstance(value, str) for value in found.envs.values())


def making(kind: Kind = Kind.TASK, **changed: Any) -> Making:
    action = Action(
        id=action_id("a0"),
        kind=kind,
        phase=Phase.QUEUED,
        created_at=NOW,
        task=TaskSummary(type="python", short_name="main"),
        input_uri=f"{BASE}/r1/inputs.pb",
        base_uri=f"{BASE}/r1",
    )
    spec = task_spec().SerializeToString() if kind is Kind.TASK else condition_spec()
    return Making(replace(action, **changed), run_with(), spec, None)


def run_with(**of_spec: Any) -> Run:
    spec = run_pb2.RunSpec(**of_spec)
    return Run(run_id(), Phase.QUEUED, TaskSummary().name, "", f"{BASE}/r1", NOW, run_spec=spec.SerializeToString())


def test_a_root_has_upstreams_fields_and_labels() -> None:
    built = bodies.body(making(), "r1-a0")
    assert (built["apiVersion"], built["kind"]) == ("flyte.org/v1", "TaskAction")
    assert built["metadata"] == {
        "name": "r1-a0",
        "labels": {
            "flyte.org/project": "flytesnacks",
            "flyte.org/domain": "development",
            "flyte.org/run": "r1",
            "flyte.org/action": "a0",
            "flyte.org/action-type": "task",
            "flyte.org/is-root": "true",
        },
        "annotations": {"flyte.org/recorded-by": "flyte-manager"},
    }
    assert built["spec"] == {
        "runName": "r1",
        "project": "flytesnacks",
        "domain": "development",
        "actionName": "a0",
        "actionType": "task",
        "taskType": "python",
        "shortName": "main",
        "taskTemplate": encoded(task_spec().task_template.SerializeToString(deterministic=True)),
        "inputUri": f"{BASE}/r1/inputs.pb",
        "runOutputBase": f"{BASE}/r1",
    }


def test_a_child_inherits_from_the_run_and_is_owned_by_its_parent() -> None:
    run = run_with(
        labels=run_pb2.Labels(values={"team": "x", "flyte.org/run": "mine"}),
        annotations=run_pb2.Annotations(values={"note": "any text, ö"}),
        envs=run_pb2.Envs(values=[{"key": "A", "value": "1"}]),
        interruptible=BoolValue(value=False),
    )
    child = replace(making(id=action_id("b1"), parent="a0", group="g").action)
    built = bodies.body(Making(child, run, task_spec().SerializeToString(), Resource("r1-a0", "uid-1")), "r1-b1")
    assert built["metadata"]["labels"]["team"] == "x"
    assert built["metadata"]["labels"]["flyte.org/run"] == "r1"
    assert built["metadata"]["labels"]["flyte.org/is-root"] == "false"
    assert built["metadata"]["annotations"]["note"] == "any text, ö"
    assert built["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "flyte.org/v1",
            "kind": "TaskAction",
            "name": "r1-a0",
            "uid": "uid-1",
            "blockOwnerDeletion": True,
        }
    ]
    spec = built["spec"]
    assert (spec["envVars"], spec["interruptible"]) == ({"A": "1"}, False)
    assert (spec["parentActionName"], spec["group"]) == ("a0", "g")


def test_a_condition_carries_its_spec() -> None:
    built = bodies.body(making(Kind.CONDITION, id=action_id("c1"), parent="a0"), "r1-c1")
    assert built["spec"]["actionType"] == "condition"
    assert built["spec"]["conditionSpec"] == encoded(condition_spec())
    assert "taskTemplate" not in built["spec"]


def test_what_we_write_is_read_back_as_the_same_order() -> None:
    built = bodies.body(making(), "r1-a0")
    found = orders.order(FOREIGN, built["spec"], built["metadata"])
    assert (found.problem, found.id, found.input_uri) == ("", action_id(), f"{BASE}/r1/inputs.pb")


def test_what_is_only_shown_is_cut_and_a_long_cache_key_is_left_out() -> None:
    summary = TaskSummary(short_name="s" * 100)
    spec = bodies.body(making(task=summary, group="g" * 300, cache_key="k" * 257), "r1-a0")["spec"]
    assert (len(spec["shortName"]), len(spec["group"])) == (63, 256)
    assert "cacheKey" not in spec


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 31, "has 31: use a shorter one"),
        ("Upper", "Kubernetes takes names of a-z"),
        ("under_score", "Kubernetes takes names of a-z"),
    ],
)
def test_a_name_that_can_not_be_is_refused(name: str, words: str) -> None:
    made = making(id=action_id(name), parent="a0")
    with pytest.raises(LaunchRefused, match=words):
        bodies.body(made, bodies.object_name(made.action.id))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (
            "labels",
            {"team": "not legal!"},
            "label 'team' of the run is not legal in Kubernetes: its value 'not legal!'",
        ),
        ("labels", {"te am": "x"}, "label 'te am' of the run"),
        ("labels", {"x": "v" * 64}, "label 'x'"),
        ("annotations", {"-x": "y"}, "annotation '-x' of the run"),
        ("annotations", {"A.b/c/d": "y"}, "annotation 'A.b/c/d'"),
    ],
)
def test_an_illegal_label_is_refused_by_name(kind: str, values: dict[str, str], words: str) -> None:
    message = run_pb2.Labels if kind == "labels" else run_pb2.Annotations
    run = run_with(**{kind: message(values=values)})
    with pytest.raises(LaunchRefused) as refused:
        bodies.body(replace(making(), run=run), "r1-a0")
    assert str(refused.value).startswith(words)


def test_what_is_too_large_is_named() -> None:
    spec = task_spec()
    spec.task_template.container.args.append("x" * 1_200_000)
    with pytest.raises(
        LaunchRefused, match=r"most of it is its taskTemplate, 16\d{5} bytes; make the task's definition"
    ):
        bodies.body(replace(making(), spec=spec.SerializeToString()), "r1-a0")
    envs = run_pb2.Envs(values=[{"key": "A", "value": "x" * 1_500_000}])
    with pytest.raises(LaunchRefused, match="most of it is its envVars"):
        bodies.body(replace(making(), run=run_with(envs=envs)), "r1-a0")


def test_no_value_of_a_secret_is_in_it() -> None:
    spec = task_spec()
    spec.task_template.security_context.secrets.add(key="token", env_var="TOKEN")
    built = bodies.body(replace(making(), spec=spec.SerializeToString()), "r1-a0")
    assert set(built["spec"]) <= {
        *("runName", "project", "domain", "actionName", "actionType", "taskType", "shortName", "taskTemplate"),
        *("inputUri", "runOutputBase"),
    }


def test_actions_whose_names_meet_get_names_of_their_own() -> None:
    one, other = action_id("b-c", "a"), action_id("c", "a-b")
    assert bodies.object_name(one) == bodies.object_name(other) == "a-b-c"
    assert bodies.other_name(one) != bodies.other_name(other)
    assert bodies.other_name(one).startswith("a-b-c-")
