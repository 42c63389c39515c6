"""Lists with every field, function and sort that there is, and values that no field is for: answered or refused.

Each request has a value of its own out of a fixed order; `FUZZ_EXAMPLES` in the environment sends all values to all.
"""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, product
from typing import Any

import pytest

from flyte_manager.domain.filters import Function
from flyte_manager.store import action_lists, listing, projects, run_lists, task_lists
from tests.managers import Manager
from tests.security.asking import OK, PROJECT, RUN, TASK_NAME, Asker, Body, prepared
from tests.security.fuzzing.odd_values import INJECTIONS, KNOWN, PATHS, SCALES

LABELS = dict.fromkeys(("labels.x", 'labels."', "labels.$[0]"), run_lists.FIELDS["labels"])
FIELDS: Mapping[str, tuple[Body, listing.Fields]] = {
    "workflow.RunService/ListRuns": ({"projectId": PROJECT}, {**run_lists.FIELDS, **LABELS}),
    "workflow.RunService/ListActions": ({"runId": RUN}, action_lists.FIELDS),
    "task.TaskService/ListTasks": ({"projectId": PROJECT}, task_lists.FIELDS),
    "task.TaskService/ListVersions": ({"taskName": TASK_NAME}, task_lists.FIELDS),
}
FUNCTIONS = [*(each.value for each in Function), 8, -1, 99]
VALUES = [*KNOWN, *INJECTIONS, *PATHS[:6], *SCALES, "%", "_", "\ud7ff", "4", "RUNNING", "true", "2026-01-01T00:00:00Z"]
GOOD = {
    listing.NUMBER.rule: "1",
    listing.MOMENT.rule: "2026-01-01T00:00:00Z",
    listing.PHASE.rule: "RUNNING",
    listing.KIND.rule: "TASK",
    listing.SOURCE.rule: "1",
    listing.FLAG.rule: "true",
}
KEYS: Sequence[object] = (None, "", "x", "\ud800", "9" * 5000, "a\0b", 1, [], {}, "2026-01-01", "-1", "RUNNING")
REFUSED = ("invalid_argument",)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with Manager(tmp_path_factory.mktemp("lists")) as started:
        yield started


@pytest.fixture(scope="module")
def asker(manager: Manager) -> Iterator[Asker]:
    with prepared(manager) as opened:
        yield opened


@pytest.fixture(autouse=True)
def alive(manager: Manager) -> Iterator[None]:
    seen = len(manager.log)
    yield
    assert manager.serves()
    assert "failed, id" not in manager.log[seen:]


def turns(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The values for each request: one after the other, or all when many were asked for."""
    for number in count():
        yield values if os.environ.get("FUZZ_EXAMPLES") else [values[number % len(values)]]


def asked(asker: Asker, method: str, request: Body) -> str:
    answer = asker.ask(method, {**FIELDS[method][0], "request": request})
    assert answer.code in (OK, *REFUSED), f"{method} {request}: {answer}"
    assert not any(word in answer.message for word in ("SELECT", "sqlite", "Traceback", "FROM ")), answer
    return answer.code


@pytest.mark.parametrize("method", FIELDS)
def test_no_filter_is_a_fault(asker: Asker, method: str) -> None:
    found = set()
    turn = turns(VALUES)
    for field, function in product([*FIELDS[method][1], "x", ""], FUNCTIONS):
        for value in next(turn):
            filters = [{"field": field, "function": function, "values": [value]}]
            found.add(asked(asker, method, {"filters": filters}))
        known = FIELDS[method][1].get(field)
        good = GOOD.get(known.type.rule, "x") if known else "x"
        filters = [{"field": field, "function": function, "values": [good]}]
        found.add(asked(asker, method, {"filters": filters}))
        filters = [{"field": field, "function": function, "values": [*next(turn), "x"]}]
        found.add(asked(asker, method, {"filters": filters}))
    assert found == {OK, *REFUSED}


@pytest.mark.parametrize("method", FIELDS)
def test_no_sort_and_no_token_is_a_fault(asker: Asker, method: str) -> None:
    found = set()
    turn = turns(KEYS)
    for field, way in product(FIELDS[method][1], ("ASCENDING", "DESCENDING")):
        sort = {"sortBy": {"key": field, "direction": way}}
        found.add(asked(asker, method, sort))
        for key in next(turn):
            for token in forged(("-" if way == "DESCENDING" else "+") + field, key):
                found.add(asked(asker, method, {**sort, "token": token}))
    assert found == {OK, *REFUSED}


def forged(first: str, value: object) -> Iterator[str]:
    """Tokens as the manager makes them, with this as the key of the row that came last."""
    rest: Sequence[tuple[str, ...]] = (
        ("-created_at", "-name", "-project", "-domain"),
        ("+created_at", "-name"),
        ("-created_at", "-version"),
        ("-created_at", "+name"),
    )
    for others in rest:
        names = [first, *(name for name in others if name[1:] != first[1:])]
        key = [value, *["2026-01-01T00:00:00+00:00", "x", "x", "x"][: len(names) - 1]]
        yield base64.urlsafe_b64encode(json.dumps([names, key]).encode()).decode().rstrip("=")
    yield json.dumps(value)
    yield "²"


def test_no_filter_of_projects_groups_and_secrets_is_a_fault(asker: Asker) -> None:
    turn = turns(VALUES)
    started = {"projectId": PROJECT, "startDate": "2026-01-01T00:00:00Z"}
    forms = turns(["eq({0},{1})", "value_in({0},{1};{1})", "contains({0}", "{1}"])
    for field, value in product([*projects.FIELDS, "x", ""], VALUES):
        for form in next(forms):
            text = form.format(field, value)
            answer = asker.ask("project.ProjectService/ListProjects", {"filters": text, "token": next(turn)[0]})
            assert answer.code in (OK, *REFUSED), f"{text}: {answer}"
            assert "SELECT" not in answer.message
    for field, function in product(run_lists.FIELDS, FUNCTIONS):
        each = {"field": field, "function": function, "values": next(turn)[:1]}
        answer = asker.ask("workflow.RunService/WatchGroups", {**started, "request": {"filters": [each]}})
        assert answer.code in (OK, *REFUSED), f"{each}: {answer}"
    for value in VALUES:
        answer = asker.ask("secret.SecretService/ListSecrets", {"token": value, "limit": 1})
        assert answer.code in (OK, *REFUSED), f"{value}: {answer}"


def test_a_page_of_a_thousand_is_the_most_that_any_list_gives(asker: Asker) -> None:
    for method in FIELDS:
        for limit, code in ((0, OK), (1000, OK), (1001, "invalid_argument"), (2**32 - 1, "invalid_argument")):
            assert asked(asker, method, {"limit": limit}) == code
