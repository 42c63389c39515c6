"""Tasks that call tasks, by ActionsService and by QueueService with StateService."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.sdk.user import ROADS, User, function_of

pytestmark = pytest.mark.sdk
Runs = Mapping[str, Mapping[str, Any]]
INPUTS: Mapping[str, Mapping[str, int]] = {
    "trunk": {"branches": 3, "leaves": 2},
    "mapped": {"n": 5},
    "grouped": {},
    "traced": {},
}


@pytest.fixture(scope="module")
def runs(user: User, road: str, many: int) -> Runs:
    """The ended runs, by task: all at once, from one process."""
    inputs = {"fan": {"n": many}, **INPUTS}
    orders = [{"task": f"trees.{task}", "inputs": given, "env": ROADS[road]} for task, given in inputs.items()]
    return dict(zip(inputs, user.runs(*orders), strict=True))


def test_a_parent_fans_out_to_many_children(user: User, runs: Runs, many: int) -> None:
    run = runs["fan"]
    assert run["outputs"] == [sum(range(many))]
    children = [action for action in user.actions(run["name"]) if action["metadata"].get("parent") == "a0"]
    assert len(children) == many
    assert {child["status"]["phase"] for child in children} == {"ACTION_PHASE_SUCCEEDED"}


def test_tasks_nest_three_levels_deep(user: User, runs: Runs) -> None:
    run = runs["trunk"]
    assert run["outputs"] == [sum(range(2)) + sum(range(3)) + sum(range(4))]
    actions = {action["id"]["name"]: action for action in user.actions(run["name"])}
    assert Counter(map(function_of, actions.values())) == {"trunk": 1, "branch": 3, "leaf": 9}
    parents = {
        (function_of(action), function_of(actions[action["metadata"]["parent"]]))
        for action in actions.values()
        if "parent" in action["metadata"]
    }
    assert parents == {("branch", "trunk"), ("leaf", "branch")}


def test_map_runs_a_child_for_each_item_in_one_group(user: User, runs: Runs) -> None:
    run = runs["mapped"]
    assert run["outputs"] == [[0, 1, 4, 9, 16]]
    groups = [
        action["metadata"].get("group") for action in user.actions(run["name"]) if function_of(action) == "square"
    ]
    assert len(groups) == 5
    assert len(set(groups)) == 1
    assert "square" in str(groups[0])


def test_groups_are_shown_with_their_actions(user: User, runs: Runs) -> None:
    run = runs["grouped"]
    assert run["outputs"] == [[1, 2, 1, 2]]
    groups = Counter(action["metadata"].get("group") for action in user.actions(run["name"]))
    assert groups == {None: 1, "first": 2, "second": 2}


def test_traces_are_recorded_with_their_end(user: User, runs: Runs) -> None:
    run = runs["traced"]
    assert run["outputs"] == ["5 [0, 1, 2] no such page"]
    traces = {
        function_of(action): action["status"]["phase"]
        for action in user.actions(run["name"])
        if action["metadata"]["actionType"] == "ACTION_TYPE_TRACE"
    }
    assert traces == {
        "look_up": "ACTION_PHASE_SUCCEEDED",
        "count": "ACTION_PHASE_SUCCEEDED",
        "stumble": "ACTION_PHASE_FAILED",
    }
