"""Actions as TaskActions and pods, from the order to the end, over a made-up API server: all that others can do to
them, and all that the API server can do to us."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flyte_manager.domain.attempts import ErrorKind
from flyte_manager.domain.ids import ROOT, ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import NAMESPACE, Cluster, Manager
from tests.fakes.kubelet import PodRun, succeed
from tests.fakes.orders import action_id, new_condition, new_run, run_id, task_spec
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


# Making and adopting.


async def test_a_tree_runs_to_its_end_each_action_owned_by_its_parent(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        child = {ROOT: "b1", "b1": "c1"}.get(pod.action)
        if child:
            await enqueue(made, child, parent=pod.action)
            await made.until_phase(action_id(child))
        return await succeed(pod)

    made.kubelet.program = program
    await create(made)
    await made.until_phase(action_id(), Phase.SUCCEEDED)
    owners = {}
    for name in (ROOT, "b1", "c1"):
        status = await made.until_shown(action_id(name))
        assert status["phase"] == "Succeeded"
        document = made.api.get("taskactions", f"r1-{name}", namespace=NAMESPACE)
        owners[name] = [each["name"] for each in document["metadata"].get("ownerReferences", ())]
    assert owners == {ROOT: [], "b1": ["r1-a0"], "c1": ["r1-b1"]}
    assert set(made.kubelet.pods.values()) == {1}


async def test_a_child_waits_for_its_parents_taskaction(made: Cluster) -> None:
    made.kubelet.program = endless
    made.api.fail("create", "taskactions", status=503, times=None)
    await create(made)
    await enqueue(made, "b1")
    await asyncio.sleep(0.1)
    assert not made.api.names("taskactions")
    made.api.mend()
    await made.until_phase(action_id("b1"), Phase.RUNNING)
    root = made.api.get("taskactions", "r1-a0", namespace=NAMESPACE)
    child = made.api.get("taskactions", "r1-b1", namespace=NAMESPACE)
    assert child["metadata"]["ownerReferences"][0]["uid"] == root["metadata"]["uid"]


async def test_one_whose_creation_was_answered_by_nobody_is_taken(made: Cluster) -> None:
    made.api.lose_answers("create", "taskactions")
    made.api.lose_answers("create", "pods")
    await create(made)
    await made.until_phase(action_id(), Phase.SUCCEEDED)
    assert made.api.names("taskactions") == ["r1-a0"]
    assert made.kubelet.pods == {AttemptId(action_id(), 1): 1}


async def test_the_same_run_name_in_two_projects_is_two_runs(made: Cluster) -> None:
    await create(made)
    await made.call(
        lambda manager: manager.ledger.create_run(
            replace(new_run(base=made.base), id=OTHERS, base_uri=f"{made.base}/o")
        )
    )
    for run in (run_id(), OTHERS):
        await made.until_phase(ActionId(run, ROOT), Phase.SUCCEEDED)
    first, second = made.api.names("taskactions")
    assert {first, second[: len("r1-a0")]} == {"r1-a0"}
    assert sorted(made.api.names("pods")) == sorted([f"{first}-0", f"{second}-0"])


async def test_a_condition_has_a_taskaction_and_no_pod(made: Cluster) -> None:
    made.kubelet.program = endless
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    await made.call(lambda manager: manager.ledger.enqueue(replace(new_condition("b1"), base_uri="")))
    assert (await made.until_shown(action_id("b1")))["phase"] == "Paused"
    await made.call(lambda manager: manager.ledger.signal(action_id("b1"), b"yes"))
    await made.until_phase(action_id("b1"), Phase.SUCCEEDED)
    assert (await made.until_shown(action_id("b1")))["phase"] == "Succeeded"
    assert made.api.names("pods") == ["r1-a0-0"]


# Deleted by others.


@pytest.mark.parametrize("full", ["0/1 nodes are available", ""])
async def test_deleting_the_root_aborts_the_tree_and_no_pod_is_left(made: Cluster, full: str) -> None:
    made.kubelet.program = endless
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    made.kubelet.full = full
    await enqueue(made, "b1")
    await made.until_phase(action_id("b1"), Phase.WAITING_FOR_RESOURCES if full else Phase.RUNNING)
    remove(made)
    root = await made.until_phase(action_id(), Phase.ABORTED)
    assert root.reason == "its TaskAction r1-a0 was deleted"
    child = await made.until_phase(action_id("b1"), Phase.ABORTED)
    assert child.reason in ("parent ended", "its TaskAction r1-b1 was deleted")
    await no_pods_run(made)
    await made.api.until(lambda: not made.api.names("taskactions"))
    assert made.api.counts["create", "taskactions"] == 2


async def test_one_that_is_deleted_while_its_pod_waits_is_aborted(made: Cluster) -> None:
    made.kubelet.full = "no node fits"
    await create(made)
    waiting = await made.until_phase(action_id(), Phase.WAITING_FOR_RESOURCES)
    assert waiting.reason in ("no node fits", "")
    remove(made)
    assert (await made.until_phase(action_id(), Phase.ABORTED)).reason == "its TaskAction r1-a0 was deleted"
    await no_pods_run(made)


async def test_deleting_a_child_aborts_it_alone(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        if pod.action == ROOT:
            await enqueue(made, "b1")
            await made.until_phase(action_id("b1"), Phase.ABORTED)
            return 0
        return await endless(pod)

    made.kubelet.program = program
    await create(made)
    await made.until_phase(action_id("b1"), Phase.RUNNING)
    remove(made, "r1-b1")
    await made.until_phase(action_id(), Phase.SUCCEEDED)
    await no_pods_run(made)


async def test_deleting_one_that_has_ended_changes_nothing(made: Cluster) -> None:
    await create(made)
    ended = await made.until_phase(action_id(), Phase.SUCCEEDED)
    await made.until_shown(action_id())
    remove(made)
    await create(made, name="r2")
    await made.until_phase(action_id(run="r2"), Phase.SUCCEEDED)
    await made.restart()
    assert (await made.until_phase(action_id())).revision == ended.revision
    await made.until_shown(action_id(run="r2"))
    assert made.api.names("taskactions") == ["r2-a0"]


async def test_one_that_was_deleted_while_no_manager_looked_is_aborted(made: Cluster) -> None:
    made.kubelet.program = endless
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    made.manager.life.died.set()
    remove(made)
    assert (await made.until_phase(action_id(), Phase.ABORTED)).reason == "its TaskAction r1-a0 was deleted"
    assert made.lives > 1


async def test_a_pod_that_is_deleted_is_a_system_failure_and_the_next_attempt_runs(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        return await (endless(pod) if pod.attempt.number == 1 else succeed(pod))

    made.kubelet.program = program
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    remove(made, "r1-a0-0", plural="pods")
    ended = await made.until_phase(action_id(), Phase.SUCCEEDED)
    assert (ended.attempt, ended.system_failures, ended.user_failures) == (2, 1, 0)
    assert await phases(made) == [Phase.FAILED, Phase.SUCCEEDED]
    assert (await made.until_shown(action_id()))["systemFailures"] == 1


# Budgets.


async def test_after_three_system_retries_it_is_over_whatever_the_task_may_retry(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        return pod.fail("the disk is gone", system=True)

    made.kubelet.program = program
    await create(made, spec=task_spec(retries=9))
    ended = await made.until_phase(action_id(), Phase.FAILED)
    assert await phases(made) == [Phase.FAILED] * 4
    assert (ended.system_failures, ended.user_failures) == (4, 0)
    assert ended.failure is not None
    assert ended.failure.kind is ErrorKind.SYSTEM
    assert ended.failure.message == "the disk is gone"


async def test_user_and_system_failures_have_budgets_of_their_own(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        return pod.fail("no", system=pod.attempt.number in (1, 3))

    made.kubelet.program = program
    await create(made, spec=task_spec(retries=1))
    ended = await made.until_phase(action_id(), Phase.FAILED)
    assert (ended.attempt, ended.system_failures, ended.user_failures) == (4, 2, 2)
    assert made.api.names("pods") == [f"r1-a0-{number}" for number in range(4)]


async def test_what_is_not_recoverable_is_not_tried_again(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        return pod.fail("never", recoverable=False)

    made.kubelet.program = program
    await create(made, spec=task_spec(retries=5))
    await made.until_phase(action_id(), Phase.FAILED)
    assert await phases(made) == [Phase.FAILED]


# What the API server refuses.


async def test_a_pod_that_is_refused_fails_the_action_with_the_servers_words(made: Cluster) -> None:
    words = 'Pod "r1-a0-0" is invalid: spec.containers[0].image: Required value'
    made.api.fail("create", "pods", status=422, reason="Invalid", message=words)
    await create(made, spec=task_spec(retries=3))
    failed = await made.until_phase(action_id(), Phase.FAILED)
    assert failed.failure is not None
    assert words in failed.failure.message
    assert await phases(made) == [Phase.FAILED]
    assert words in (await made.until_shown(action_id()))["errorState"]["message"]


async def test_a_taskaction_that_is_refused_fails_the_action_with_the_servers_words(made: Cluster) -> None:
    made.api.fail("create", "taskactions", status=422, reason="Invalid", message="spec.runName: too odd")
    await create(made)
    failed = await made.until_phase(action_id(), Phase.FAILED)
    assert failed.failure is not None
    assert "spec.runName: too odd" in failed.failure.message
    assert not made.api.names("taskactions")


@pytest.mark.parametrize("plural", ["pods", "taskactions"])
async def test_without_permission_it_fails_with_the_rule_that_is_needed(made: Cluster, plural: str) -> None:
    made.api.denied.add(f"create {plural}")
    await create(made)
    failed = await made.until_phase(action_id(), Phase.FAILED)
    assert failed.failure is not None
    assert f"resources: [{plural}" in failed.failure.message


@pytest.mark.parametrize("plural", ["pods", "taskactions"])
async def test_without_room_in_the_quota_it_waits_with_the_reason_and_then_runs(made: Cluster, plural: str) -> None:
    words = f'{plural} "r1-a0" is forbidden: exceeded quota: team, requested: {plural}=1, used: {plural}=5'
    made.api.fail("create", plural, status=403, reason="Forbidden", message=words, times=None)
    await create(made)
    waiting = await made.until_phase(action_id(), Phase.WAITING_FOR_RESOURCES)
    assert words in waiting.reason
    if plural == "pods":
        assert words in (await made.until_shown(action_id()))["message"]
    made.api.mend()
    ended = await made.until_phase(action_id(), Phase.SUCCEEDED)
    assert (ended.attempt, ended.reason) == (1, "")


# Trouble.


async def test_while_the_api_server_is_down_the_reason_is_shown_and_then_all_goes_on(made: Cluster) -> None:
    release = asyncio.Event()

    async def program(pod: PodRun) -> int:
        if pod.attempt.action.run.name == "r1":
            await release.wait()
        return await succeed(pod)

    made.kubelet.program = program
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    await made.api.refuse()
    await create(made, name="r2")
    waiting = await made.until_phase(action_id(run="r2"), Phase.WAITING_FOR_RESOURCES)
    assert "can't be reached" in waiting.reason
    release.set()
    await asyncio.sleep(0.1)
    assert (await made.until_phase(action_id(), Phase.RUNNING)).attempt == 1
    await made.api.listen()
    for run in ("r1", "r2"):
        ended = await made.until_phase(action_id(run=run), Phase.SUCCEEDED)
        assert (ended.attempt, ended.reason) == (1, "")
    assert set(made.kubelet.pods.values()) == {1}


async def test_a_log_that_cannot_be_read_keeps_the_next_attempt_waiting_with_the_reason(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        return pod.fail("once") if pod.attempt.number == 1 else await succeed(pod)

    made.kubelet.program = program
    made.api.fail("get", "pods/log", status=500, message="error dialing backend", times=None)
    await create(made, spec=task_spec(retries=1))
    waiting = await made.until_phase(action_id(), Phase.WAITING_FOR_RESOURCES)
    assert waiting.attempt == 2
    assert "error dialing backend" in waiting.reason
    made.api.mend()
    assert (await made.until_phase(action_id(), Phase.SUCCEEDED)).reason == ""


async def test_a_log_that_cannot_be_read_delays_what_kubectl_shows_and_nothing_else(
    made: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyte_manager.executor.reconcile.SETTLE_CHECK_SECONDS", 0.1)
    made.api.fail("get", "pods/log", status=500, message="error dialing backend", times=None)
    await create(made)
    await made.until_phase(action_id(), Phase.SUCCEEDED)
    await asyncio.sleep(0.35)
    assert 2 <= made.api.counts["get", "pods/log"] <= 5
    assert made.api.get("taskactions", "r1-a0", namespace=NAMESPACE)["status"]["phase"] != "Succeeded"
    monkeypatch.setattr("flyte_manager.kubernetes.logs.PATIENCE_SECONDS", 0.0)
    await made.api.until(
        lambda: made.api.get("taskactions", "r1-a0", namespace=NAMESPACE)["status"]["phase"] == "Succeeded"
    )
    assert "error dialing backend" in kept_log(made)


async def fan(made: Cluster, between: Any) -> None:
    """A root with three children; `between` is called in the middle of everything."""

    async def program(pod: PodRun) -> int:
        between()
        if pod.action == ROOT:
            for number in range(3):
                await enqueue(made, f"b{number}")
            for number in range(3):
                await made.until_phase(action_id(f"b{number}"))
                between()
        await asyncio.sleep(0.01)
        between()
        return await succeed(pod)

    made.kubelet.program = program
    await create(made)
    await made.until_phase(action_id(), Phase.SUCCEEDED)
    for name in (ROOT, "b0", "b1", "b2"):
        assert await phases(made, name) == [Phase.SUCCEEDED]
        assert (await made.until_shown(action_id(name)))["phase"] == "Succeeded"
    assert set(made.kubelet.pods.values()) == {1}
    assert made.api.counts["delete", "pods"] == 0


@pytest.mark.parametrize("trouble", ["cut", "clean ends", "too old", "all"])
async def test_watches_that_end_lose_nothing(made: Cluster, trouble: str) -> None:
    def between() -> None:
        if trouble in ("clean ends", "all"):
            made.api.end_watches_after(1)
        if trouble in ("too old", "all"):
            made.api.expire()
        if trouble != "clean ends":
            made.api.cut_watches()

    await fan(made, between)


async def test_a_slow_api_server_makes_nothing_double(made: Cluster) -> None:
    made.api.delay(0.03)
    await fan(made, lambda: None)


async def test_a_cache_that_is_blind_kills_and_doubles_nothing(made: Cluster) -> None:
    made.kubelet.program = endless
    for plural in ("pods", "taskactions"):
        made.api.fail("watch", plural, status=500, times=None)
    made.api.cut_watches()
    await create(made)
    await made.api.until(lambda: made.kubelet.pods)
    for _ in range(20):
        await made.call(_look_at_all)
        await asyncio.sleep(0.005)
    row = await made.call(lambda manager: manager.action(action_id()))
    assert (row.attempt, row.final) == (1, False)
    assert made.kubelet.running() == ["r1-a0-0"]
    await made.restart()
    await made.until_phase(action_id(), Phase.RUNNING)
    assert made.kubelet.pods == {AttemptId(action_id(), 1): 1}
    assert made.api.counts["delete", "pods"] == 0


async def _look_at_all(manager: Manager) -> None:
    for action in await manager.reader.live():
        manager.controller.enqueue(action.id)
