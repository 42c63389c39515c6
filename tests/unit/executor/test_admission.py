"""Who may start: what is held, released, waited for; never more than there is, never a deadlock, nothing kept."""

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from flyte_manager.domain.actions import Action
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.executor.admission import Admission, Demand
from tests.fakes.clock import NOW
from tests.fakes.orders import action_id

GIB = 1 << 30
ONE = Demand(1.0, GIB)


class Desk:
    """An admission, and whom it woke."""

    def __init__(self, cpu: float = 2.0, memory: int = 8 * GIB) -> None:
        self.woken: list[str] = []
        self.admission = Admission(cpu=cpu, memory=memory, wake=lambda action: self.woken.append(action.name))

    def start(self, name: str, parent: str = "", *, demand: Demand = ONE, age: float = 0, run: str = "r1") -> str:
        """Why it waits."""
        action = task(name, parent, age=age, run=run)
        self.admission.track(action)
        return self.admission.ask(action, demand)

    def end(self, name: str, parent: str = "") -> None:
        self.admission.track(replace(task(name, parent), phase=Phase.SUCCEEDED))

    def check(self) -> None:
        """What is counted is what is held."""
        each = self.admission
        leaves = [demand for action, demand in each._held.items() if action not in each._children]
        assert each._leaves == len(leaves)
        assert each._free_cpu == pytest.approx(each.cpu - sum(demand.cpu for demand in leaves))
        assert each._free_memory == each.memory - sum(demand.memory for demand in each._held.values())
        assert not each._held.keys() & each._waiting.keys()
        assert all(each._children.values())
        if each._waiting:
            assert each._leaves, "all wait and nothing runs"

    def is_empty(self) -> bool:
        each = self.admission
        assert each._free_cpu == pytest.approx(each.cpu)
        assert each._free_memory == each.memory
        return not (each._held or each._waiting or each._children or each._depths or each._leaves)


def task(name: str, parent: str = "", *, age: float = 0, run: str = "r1") -> Action:
    made = NOW - timedelta(seconds=age)
    return Action(id=action_id(name, run), kind=Kind.TASK, phase=Phase.QUEUED, created_at=made, parent=parent)


def test_what_fits_starts_and_the_next_waits_with_the_reason() -> None:
    desk = Desk()
    assert desk.start("a") == desk.start("b") == ""
    reason = desk.start("c")
    assert reason == "waits for 1 CPU and 1024 MiB: 0 of 2 CPU and 6144 of 8192 MiB are free, 1 in line"
    assert desk.start("c") == reason
    desk.end("a")
    assert desk.woken == ["c"]
    assert desk.start("c") == ""
    desk.check()


def test_the_deepest_starts_first_then_the_oldest() -> None:
    desk = Desk(cpu=1)
    desk.start("a")
    for name, parent, age in (("young", "", 1), ("old", "", 9), ("deep", "a", 0)):
        desk.start(name, parent, age=age)
    desk.end("deep", "a")
    desk.end("a")
    desk.end("old")
    assert desk.woken == ["old", "young"]

    desk = Desk(cpu=1)
    desk.start("a")
    desk.start("other", age=9)
    desk.admission.track(task("b", "a"))
    assert desk.woken == ["other"]  # a waits for b, so its core is free
    assert desk.start("b", "a") != ""
    assert desk.start("third", age=99) != ""
    desk.end("other")
    assert desk.woken == ["other", "b"]


def test_actions_of_the_same_name_age_and_depth_stand_in_one_line() -> None:
    """Names are the same in every run of the same code, and clocks tick coarsely."""
    desk = Desk(cpu=1)
    assert desk.start("a0", run="r1") == ""
    assert desk.start("a0", run="r2") != ""
    assert desk.start("a0", run="r3") != ""


def test_a_waiting_parent_frees_its_cpu_but_not_its_memory() -> None:
    desk = Desk(cpu=1, memory=2 * GIB)
    assert desk.start("a") == ""
    assert desk.start("b", "a") == ""
    assert desk.admission._free_memory == 0
    desk.check()
    desk.end("b", "a")
    desk.check()
    desk.end("a")
    assert desk.is_empty()


def test_when_no_leaf_runs_the_next_starts_whatever_it_asks() -> None:
    desk = Desk(cpu=1, memory=GIB)
    parent = ""
    for depth in range(20):
        assert desk.start(f"a{depth}", parent, demand=Demand(1, GIB)) == ""
        parent = f"a{depth}"
        desk.check()
    assert desk.start("b") != ""


def test_a_demand_above_the_machine_is_clamped() -> None:
    desk = Desk()
    assert desk.start("a", demand=Demand(64, 1 << 50)) == ""
    assert desk.start("b", demand=Demand(0.1, 1)) != ""
    desk.end("a")
    assert desk.woken == ["b"]


def test_the_first_in_line_is_not_overtaken() -> None:
    desk = Desk()
    desk.start("a")
    desk.start("big", demand=Demand(2, GIB), age=5)
    assert desk.start("small", demand=Demand(0.1, 1)) != ""
    desk.end("a")
    assert desk.woken == ["big"]


def test_releasing_what_was_never_held_frees_nothing() -> None:
    desk = Desk()
    desk.admission.release(action_id("a"))
    desk.end("b")
    desk.end("c", "a")
    assert desk.is_empty()


def test_leaving_the_line_leaves_nothing_behind() -> None:
    desk = Desk(cpu=1)
    desk.start("a")
    desk.start("b")
    assert desk.admission.waits(action_id("b"))
    desk.end("b")
    desk.end("a")
    assert desk.woken == []
    assert desk.is_empty()


def test_a_parent_that_ends_before_its_children_is_freed_once() -> None:
    desk = Desk()
    desk.start("a")
    desk.start("b", "a")
    desk.end("a")
    desk.check()
    desk.end("b", "a")
    assert desk.is_empty()


def test_adopting_what_runs_counts_it_once() -> None:
    desk = Desk()
    action = task("a")
    desk.admission.track(action)
    for _ in range(2):
        desk.admission.adopt(action, ONE)
        assert desk.admission.ask(action, ONE) == ""
    desk.check()
    desk.end("a")
    assert desk.is_empty()


@pytest.mark.parametrize("seed", range(30))
def test_whatever_comes_the_counts_hold(seed: int) -> None:
    chance, desk = random.Random(seed), Desk(cpu=4, memory=6 * GIB)
    live: dict[str, str] = {}
    for step in range(300):
        children = set(live.values())
        match chance.choice(("start", "start", "ask", "ask", "release", "end", "stale", "adopt")):
            case "start":
                parent = chance.choice(["", *live])
                live[f"c{step}"] = parent
                desk.admission.track(task(f"c{step}", parent, age=chance.random()))
            case "ask" if live:
                name = chance.choice(list(live))
                demand = Demand(chance.choice((0.5, 1, 3, 99)), chance.choice((GIB >> 2, GIB, 9 * GIB)))
                desk.admission.ask(task(name, live[name]), demand)
            case "release" if live:
                desk.admission.release(action_id(chance.choice(list(live))))
            case "adopt" if live:
                name = chance.choice(list(live))
                desk.admission.adopt(task(name, live[name]), ONE)
            case "end" if live:
                name = chance.choice(list(live))
                for each in (name, *(child for child, parent in live.items() if parent == name and name in children)):
                    desk.end(each, live[each])
                live = {each: parent for each, parent in live.items() if each != name and parent != name}
            case "stale":  # an old listing and a late turn tell of one that has ended; its next turn puts it right
                desk.admission.track(task("gone", chance.choice(["", *live])))
                desk.admission.ask(task("gone"), ONE)
                desk.check()
                for parent in ("", *live):
                    desk.end("gone", parent)
        desk.check()
    for name, parent in live.items():
        desk.end(name, parent)
    desk.check()
    assert desk.is_empty()


def test_actions_wait_in_line_until_their_turn_and_are_told_apart() -> None:
    desk = Desk(cpu=1)
    desk.start("a")
    desk.start("b")
    assert [desk.admission.waits(ActionId(action_id().run, name)) for name in ("a", "b", "c")] == [False, True, False]
