"""Tasks with `cache=`: what is kept, taken, waited for, ignored and overwritten."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import ROADS, User

pytestmark = pytest.mark.sdk
OVERWRITE = "overwrite_cache"
HIT, POPULATED = "CACHE_HIT", "CACHE_POPULATED"


class Calls:
    """Runs tasks of caching.py and counts their calls that really ran."""

    def __init__(self, user: User, file: Path) -> None:
        self.user = user
        self._file = file
        self._env = {"CALLS": str(file)}

    def run(self, *calls: tuple[str, Mapping[str, object]]) -> Sequence[dict[str, Any]]:
        """One after the other. Inputs that are no inputs: OVERWRITE."""
        return self.user.runs(*(self._order(task, dict(inputs)) for task, inputs in calls))

    def _order(self, task: str, inputs: dict[str, object]) -> dict[str, Any]:
        context = {OVERWRITE: inputs.pop(OVERWRITE, False)}
        return {"task": f"caching.{task}", "inputs": inputs, "env": self._env, "context": context, "after": True}

    def begin(self, task: str, **inputs: object) -> str:
        return self.user.begin(f"caching.{task}", self._env, **inputs)

    def by(self, road: str) -> "Calls":
        """Whose tasks start others by that road."""
        other = Calls(self.user, self._file)
        other._env |= ROADS[road]
        return other

    def count(self, call: str) -> int:
        return self._file.read_text().splitlines().count(call) if self._file.exists() else 0

    def statuses(self, run: str, task: str) -> list[str]:
        return [self.status(run, name) for name in self.user.children(run, task)]

    def status(self, run: str, action: str = "a0") -> str:
        return str(self.user.details(run, action)["status"].get("cacheStatus", ""))


@pytest.fixture
def calls(user: User, shared: Path, request: pytest.FixtureRequest) -> Calls:
    folder = shared / request.node.name
    folder.mkdir()
    folder.chmod(0o777)
    return Calls(user, folder / "calls")


def test_an_equal_call_is_not_made_again(calls: Calls) -> None:
    triples = ("triples", {"x": 1, "times": 1})
    first, again, other = calls.run(("triples", {"x": 1, "times": 3}), triples, ("triples", {"x": 2, "times": 1}))
    assert (first["outputs"], again["outputs"], other["outputs"]) == ([[3, 3, 3]], [[3]], [[6]])
    assert sorted(calls.statuses(first["name"], "triple")) == [HIT, HIT, POPULATED]
    assert calls.statuses(again["name"], "triple") == [HIT]
    assert (calls.count("triple 1"), calls.count("triple 2")) == (1, 1)


def test_what_tasks_call_is_cached_by_either_road(calls: Calls) -> None:
    for road in ROADS:
        (run,) = calls.by(road).run(("triples", {"x": 5, "times": 2}))
        assert run["outputs"] == [[15, 15]]
    assert calls.count("triple 5") == 1


def test_a_hit_starts_nothing_and_says_whose_outputs_it_took(calls: Calls) -> None:
    first, run = (each["name"] for each in calls.run(*[("triples", {"x": 10, "times": 1})] * 2))
    (name,) = calls.user.children(run, "triple")
    (attempt,) = calls.user.details(run, name)["attempts"]
    assert [each["phase"] for each in attempt["phaseTransitions"]] == ["ACTION_PHASE_QUEUED", "ACTION_PHASE_SUCCEEDED"]
    source = attempt["cacheMetadata"]["sourceActionAttempt"]
    assert (source["actionId"]["run"]["name"], source["attempt"]) == (first, 1)
    assert "logsAvailable" not in attempt
    (event,) = [each for each in attempt["clusterEvents"] if each["reason"] == "CacheHit"]
    assert first in event["message"]
    assert attempt["outputs"]["outputUri"].endswith(f"{run}/{name}/1")


def test_runs_themselves_are_cached_and_share_with_calls_from_tasks(calls: Calls) -> None:
    triple = ("triple", {"x": 20})
    first, second, parent = calls.run(triple, triple, ("triples", {"x": 20, "times": 1}))
    assert first["outputs"] == second["outputs"] == [60]
    assert (calls.status(first["name"]), calls.status(second["name"])) == (POPULATED, HIT)
    assert calls.statuses(parent["name"], "triple") == [HIT]
    assert calls.count("triple 20") == 1


def test_the_version_is_made_of_the_function_where_none_is_given(calls: Calls) -> None:
    halves = ("halves", {"x": 3})
    program = calls.user.folder / "caching.py"
    before = program.read_text()
    try:
        assert [each["outputs"] for each in calls.run(halves, halves)] == [[1.5], [1.5]]
        assert calls.count("halve 3") == 1
        program.write_text(before.replace("return x / 2", "return -x / 2"))
        assert [each["outputs"] for each in calls.run(halves)] == [[-1.5]]
    finally:
        program.write_text(before)
    assert calls.count("halve 3") == 2


def test_inputs_that_are_ignored_make_no_difference(calls: Calls) -> None:
    runs = calls.run(
        ("comments", {"x": 1, "comment": "first"}),
        ("comments", {"x": 1, "comment": "second"}),
        ("commented", {"x": 1, "comment": "third"}),
        ("comments", {"x": 2, "comment": "second"}),
    )
    assert [each["outputs"] for each in runs] == [["first"], ["first"], ["first"], ["second"]]


def test_a_run_may_overwrite_what_is_kept(calls: Calls) -> None:
    triples = {"x": 30, "times": 1}
    _, overwrites, takes, _ = calls.run(
        ("triples", triples),
        ("triples", {**triples, OVERWRITE: True}),
        ("triples", triples),
        ("triple", {"x": 30, OVERWRITE: True}),
    )
    assert calls.statuses(overwrites["name"], "triple") == [POPULATED]
    assert calls.statuses(takes["name"], "triple") == [HIT]
    assert calls.count("triple 30") == 3


def test_of_ten_equal_calls_at_once_one_runs_and_the_others_wait_for_it(calls: Calls) -> None:
    run = calls.begin("together", x=1, times=10, seconds=2.0)
    waits = "waits for the same call of run"

    def nine_wait() -> bool:
        query = "SELECT cache_status FROM actions WHERE run = ? AND phase = 'WAITING_FOR_RESOURCES' AND reason LIKE ?"
        return calls.user.manager.rows(query, run, f"{waits} {run} %") == [(1,)] * 9

    eventually(nine_wait)
    eventually(lambda: calls.user.phase(run) == "SUCCEEDED")
    assert calls.count("alone 1") == 1
    assert sorted(calls.statuses(run, "alone")) == [HIT] * 9 + [POPULATED]


def test_when_the_one_fails_the_next_one_runs(calls: Calls) -> None:
    (run,) = calls.run(("tried_together", {"x": 1, "times": 5}))
    assert run["outputs"] == [4]
    assert calls.count("fails_first 1") == 2
    assert sorted(calls.statuses(run["name"], "fails_first")) == [HIT] * 3 + ["CACHE_MISS", POPULATED]


def test_when_the_one_is_aborted_the_next_one_runs(calls: Calls) -> None:
    first = calls.begin("alone", x=2, seconds=60.0)
    eventually(lambda: calls.count("alone 2") == 1)
    second = calls.begin("alone", x=2, seconds=60.0)
    eventually(lambda: calls.user.phase(second) == "WAITING_FOR_RESOURCES")
    calls.user.flyte("abort", "run", first)
    eventually(lambda: calls.count("alone 2") == 2)
    assert calls.user.phase(second) == "RUNNING"
    calls.user.flyte("abort", "run", second)


def test_who_waits_goes_on_waiting_after_the_manager_was_killed(calls: Calls, manager: Manager) -> None:
    first = calls.begin("alone", x=3, seconds=8.0)
    eventually(lambda: calls.count("alone 3") == 1)
    second = calls.begin("alone", x=3, seconds=8.0)
    eventually(lambda: calls.user.phase(second) == "WAITING_FOR_RESOURCES")
    manager.kill9()
    manager.start()
    eventually(lambda: calls.user.phase(second) == "SUCCEEDED")
    assert (calls.status(first), calls.status(second)) == (POPULATED, HIT)
    assert calls.count("alone 3") == 1


def test_what_succeeds_while_the_manager_is_away_is_kept(calls: Calls, manager: Manager) -> None:
    run = calls.begin("alone", x=4, seconds=1.0)
    eventually(lambda: calls.count("alone 4") == 1)
    manager.kill9()
    time.sleep(2.0)
    manager.start()
    eventually(lambda: calls.user.phase(run) == "SUCCEEDED")
    assert calls.status(run) == POPULATED
    (again,) = calls.run(("alone", {"x": 4, "seconds": 1.0}))
    assert calls.status(again["name"]) == HIT


def test_what_is_too_old_is_made_anew(calls: Calls) -> None:
    freshes = ("freshes", {"x": 1})
    ((first, second),) = calls.run(freshes)[0]["outputs"]
    assert first == second
    time.sleep(max(0.0, first + 4 - time.time()))
    ((third, _),) = calls.run(freshes)[0]["outputs"]
    assert third > first + 3
    assert calls.count("fresh 1") == 2


def test_files_and_calls_without_outputs_are_kept(calls: Calls) -> None:
    runs = calls.run(*[("reads", {"text": "hello"})] * 2)
    assert [each["outputs"] for each in runs] == [["hello"], ["hello"]]
    assert (calls.count("written hello"), calls.count("nothing 5")) == (1, 1)


def test_outputs_that_are_gone_are_made_again(calls: Calls, manager: Manager) -> None:
    triple = ("triple", {"x": 40})
    first, hit = (each["name"] for each in calls.run(triple, triple))
    for folder in (manager.data / "blobs").glob(f"*/*/{first}"):
        shutil.rmtree(folder)
    assert calls.status(hit) == HIT
    assert "120" in calls.user.flyte("get", "io", "--outputs-only", hit)
    again, last = calls.run(triple, triple)
    assert (again["outputs"], calls.status(again["name"])) == ([120], POPULATED)
    assert calls.count("triple 40") == 2
    assert calls.status(last["name"]) == HIT


def test_an_entry_is_deleted_by_hand(calls: Calls) -> None:
    triple = ("triple", {"x": 50})
    run = calls.run(triple)[0]["name"]
    ((key,),) = calls.user.manager.rows("SELECT cache_key FROM actions WHERE run = ?", run)
    scope = {"project": "flytesnacks", "domain": "development"}
    body = {"baseRequest": {"key": key}, "identifier": scope}
    found = calls.user.manager.call("cacheservice.v2.CacheService/Get", body).raise_for_status().json()["output"]
    assert run in json.dumps(found)
    calls.user.manager.call("cacheservice.v2.CacheService/Delete", body).raise_for_status()
    calls.run(triple)
    assert calls.count("triple 50") == 2
