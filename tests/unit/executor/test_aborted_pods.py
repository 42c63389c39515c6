"""Aborts of actions that are pods, whenever they come, and what is kept of what has ended."""

import asyncio

import pytest

from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import ROOT, RunId
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import Cluster
from tests.fakes.kubelet import PodRun, succeed
from tests.fakes.orders import action_id, run_id, task_spec
from tests.unit.executor.stories import (
    create,
    endless,
    enqueue,
    kept_log,
    no_pods_run,
    phases,
    remove,
)

OTHERS = RunId("elsewhere", "development", "r1")


async def test_an_abort_while_the_pod_is_being_created_leaves_no_pod(made: Cluster) -> None:
    made.kubelet.program = endless
    await create(made, name="r0")
    await made.until_phase(action_id(run="r0"), Phase.RUNNING)
    made.api.delay(0.1)
    await create(made)
    await made.api.until(lambda: made.api.counts["create", "pods"] == 2)
    assert made.api.names("pods") == ["r0-a0-0"]
    await made.call(lambda manager: manager.ledger.abort_run(run_id(), "enough"))
    await made.api.until(lambda: made.api.names("pods") == ["r0-a0-0"] and made.api.counts["delete", "pods"])
    assert (await made.until_phase(action_id(), Phase.ABORTED)).reason == "enough"
    assert (await made.until_shown(action_id()))["phase"] == "Aborted"


async def test_an_abort_while_it_waits_for_a_node_deletes_the_pod(made: Cluster) -> None:
    made.kubelet.full = "no node fits"
    await create(made)
    await made.until_phase(action_id(), Phase.WAITING_FOR_RESOURCES)
    await made.call(lambda manager: manager.ledger.abort_run(run_id(), "enough"))
    await no_pods_run(made)
    assert (await made.until_shown(action_id()))["phase"] == "Aborted"


async def test_an_abort_while_the_taskaction_is_being_made_starts_no_pod(made: Cluster) -> None:
    made.api.delay(0.1)
    await create(made)
    await made.api.until(lambda: made.api.counts["create", "taskactions"])
    await made.call(lambda manager: manager.ledger.abort_run(run_id(), "enough"))
    assert (await made.until_shown(action_id()))["phase"] == "Aborted"
    assert not made.kubelet.pods


async def test_an_abort_of_what_runs_ends_its_pod_and_keeps_its_log(made: Cluster) -> None:
    made.kubelet.program = endless
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    await made.call(lambda manager: manager.ledger.abort_action(action_id(), "enough"))
    await no_pods_run(made)
    await made.api.until(lambda: "a0 attempt 1" in kept_log(made))
    assert await phases(made) == [Phase.ABORTED]
    assert "outside" not in kept_log(made)


async def test_the_log_of_an_aborted_attempt_is_kept_when_the_store_is_back(
    made: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyte_manager.kubernetes.logs._PAUSE_SECONDS", 0.01)
    made.kubelet.program = endless
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    write, refusals = made.manager.blobs.write, [1, 2, 3]

    async def refused_at_first(uri: str, content: bytes) -> None:
        if refusals:
            raise Unavailable(problem=f"the store is away ({refusals.pop()})")
        await write(uri, content)

    monkeypatch.setattr(made.manager.blobs, "write", refused_at_first)
    await made.call(lambda manager: manager.ledger.abort_action(action_id(), "enough"))
    await made.api.until(lambda: "a0 attempt 1" in kept_log(made))
    assert not refusals


async def test_a_log_that_ends_before_its_pod_is_not_asked_for_without_rest(made: Cluster) -> None:
    made.kubelet.program = endless
    made.kubelet.deleted_may_end.clear()
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    made.api.logs["r1-a0-0"].append(None)  # type: ignore[union-attr]
    await made.call(lambda manager: manager.ledger.abort_action(action_id(), "enough"))
    await made.api.until(lambda: made.api.counts["get", "pods/log"])
    await asyncio.sleep(0.5)
    assert made.api.counts["get", "pods/log"] < 10
    made.kubelet.deleted_may_end.set()
    await made.api.until(lambda: kept_log(made).count("a0 attempt 1") == 1)


async def test_an_abort_of_what_has_ended_changes_nothing(made: Cluster) -> None:
    await create(made)
    ended = await made.until_phase(action_id(), Phase.SUCCEEDED)
    await made.call(lambda manager: manager.ledger.abort_run(run_id(), "enough"))
    assert (await made.until_phase(action_id())).revision == ended.revision
    assert (await made.until_shown(action_id()))["phase"] == "Succeeded"
    assert made.api.counts["delete", "pods"] == 0


async def test_of_what_has_ended_and_was_collected_little_is_remembered(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        if pod.action == ROOT:
            await enqueue(made, "b1", run=pod.attempt.action.run.name, spec=task_spec("hello.child", retries=1))
            await made.until_phase(action_id("b1", pod.attempt.action.run.name))
            return 0
        return pod.fail("once") if pod.attempt.number == 1 else await succeed(pod)

    made.kubelet.program = program
    names = [f"r{number}" for number in range(10)]
    for name in names:
        await create(made, name=name)
    for name in names:
        await made.until_phase(action_id(run=name), Phase.SUCCEEDED)
        await made.until_shown(action_id(run=name))
        await made.until_shown(action_id("b1", name))
        remove(made, f"{name}-a0")
    manager = made.manager
    await made.api.until(lambda: not manager.objects.all() and not manager.pods._pods)
    left = {
        "objects": (manager.objects._by_action, manager.objects._informer._entries),
        "pods": (manager.pods._attempts, manager.pods._timers, manager.pods._pod_informer._entries),
        "logs": (manager.pods._logs._going, manager.pods._logs._followed, manager.pods._logs._unread_since),
        "controller": (manager.controller._waiting, manager.controller._again, manager.controller._failures),
        "timers": (manager.controller._timers,),
    }
    assert {name: each for name, each in left.items() if any(each)} == {}
