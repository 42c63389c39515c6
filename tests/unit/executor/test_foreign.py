"""TaskActions by other hands: recorded and run like ours, or refused in words."""

import base64
from typing import Any

import pytest

from flyte_manager.domain.ids import ROOT, RunId
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import Cluster
from tests.fakes.kubelet import PodRun, succeed
from tests.fakes.orders import action_id, task_spec
from tests.unit.executor.stories import apply, create, endless, enqueue, no_pods_run, refused, said, status_of

OTHERS = RunId("elsewhere", "development", "r1")


async def test_a_run_and_its_child_by_other_hands_run_like_ours(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        if pod.action == ROOT:
            apply(made, "their-child", actionName="b1", parentActionName=ROOT)
            await made.until_phase(action_id("b1"))
        return await succeed(pod)

    made.kubelet.program = program
    uid = apply(made)
    root = await made.until_phase(action_id(), Phase.SUCCEEDED)
    assert root.resource is not None
    assert (root.resource.name, root.resource.uid) == ("theirs", uid)
    await made.until_shown(action_id())
    await made.until_shown(action_id("b1"))
    assert made.api.counts["create", "taskactions"] == 0
    assert sorted(made.api.names("pods")) == ["their-child-0", "theirs-0"]


async def test_a_child_by_other_hands_that_comes_before_its_parent_waits_for_it(made: Cluster) -> None:
    made.kubelet.program = endless
    apply(made, "their-child", actionName="b1", parentActionName=ROOT)
    await made.api.until(lambda: any(each["reason"] == "WaitsForParent" for each in made.api.objects("events")))
    apply(made)
    await made.until_phase(action_id("b1"), Phase.RUNNING)


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no base64": ({"taskTemplate": "%%%"}, "taskTemplate is not base64"),
    "no template": ({"taskTemplate": base64.b64encode(b"\xff\xff").decode()}, "no flyteidl2.core.TaskTemplate"),
    "no task type": ({"taskType": None}, "required spec fields are empty: [taskType]"),
    "no inputs": ({"inputUri": None}, "required spec fields are empty: [inputUri]"),
    "no base": ({"runOutputBase": None}, "required spec fields are empty: [runOutputBase]"),
    "no kind": ({"actionType": "dream"}, "actionType 'dream' is not known"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("child", [False, True], ids=["root", "child"])
async def test_one_with_damage_fails_with_the_words_of_its_condition(made: Cluster, damage: str, child: bool) -> None:
    spec, words = DAMAGE[damage]
    made.kubelet.program = endless
    key = action_id("b1" if child else ROOT)
    if child:
        await create(made)
        await made.until_phase(action_id(), Phase.RUNNING)
        spec = {**spec, "actionName": "b1", "parentActionName": ROOT}
    apply(made, **spec)
    failed = await made.until_phase(key, Phase.FAILED)
    assert failed.failure is not None
    assert words in failed.failure.message
    assert failed.failure.code == "InvalidSpec"
    status = await made.until_shown(key)
    assert said(status) == ("InvalidSpec", failed.failure.message)
    assert status["errorState"]["message"] == failed.failure.message
    assert made.api.names("pods") == (["r1-a0-0"] if child else [])


NO_ROW: dict[str, tuple[dict[str, Any], str]] = {
    "no run": ({"runName": None}, "required spec fields are empty: [runName]"),
    "illegal run": ({"runName": "R_1"}, "run name 'R_1' is not a legal name"),
    "illegal action": ({"actionName": "a/0", "parentActionName": ROOT}, "action name 'a/0' is not a legal name"),
    "illegal parent": ({"actionName": "b1", "parentActionName": "/"}, "action name '/' is not a legal name"),
    "wrong root": ({"actionName": "main"}, "action 'main' names no parent"),
    "no project": ({"project": None}, "required spec fields are empty: [project]"),
    "unknown domain": ({"domain": "moon"}, "domain 'moon' was not found"),
    "elsewhere": ({"runOutputBase": "/etc"}, "/etc"),
}


@pytest.mark.parametrize("damage", NO_ROW)
async def test_one_that_can_have_no_row_is_refused_in_its_status_and_others_run(made: Cluster, damage: str) -> None:
    spec, words = NO_ROW[damage]
    apply(made, **spec)
    await create(made, name="r2")
    await made.until_phase(action_id(run="r2"), Phase.SUCCEEDED)
    reason, message = said(await refused(made))
    assert reason == "InvalidSpec"
    assert words in message
    live = await made.call(lambda manager: manager.reader.live())
    assert [each.id.run.name for each in live] == []


async def test_one_below_an_action_that_has_ended_is_refused(made: Cluster) -> None:
    await create(made)
    await made.until_phase(action_id(), Phase.SUCCEEDED)
    apply(made, actionName="b1", parentActionName=ROOT)
    reason, message = said(await refused(made))
    assert reason == "InvalidSpec"
    assert "run 'r1' has ended (SUCCEEDED)" in message


async def test_one_of_another_task_for_a_run_that_there_is_is_refused(made: Cluster) -> None:
    made.kubelet.program = endless
    await create(made)
    await made.until_phase(action_id(), Phase.RUNNING)
    apply(made)
    reason, message = said(await refused(made))
    assert reason == "InvalidSpec"
    assert "is recorded already, with TaskAction r1-a0" in message
    assert (await made.until_phase(action_id(), Phase.RUNNING)).failure is None


async def test_without_their_records_those_that_had_not_ended_fail_and_say_so_and_others_stay(made: Cluster) -> None:
    await create(made, name="r0")
    await made.until_phase(action_id(run="r0"), Phase.SUCCEEDED)
    shown = await made.until_shown(action_id(run="r0"))

    async def program(pod: PodRun) -> int:
        if pod.action == ROOT and pod.attempt.number == 1:
            return pod.fail("once")
        if pod.action == ROOT:
            await enqueue(made, "b1")
        return await endless(pod)

    made.kubelet.program = program
    await create(made, spec=task_spec(retries=1))
    await made.until_phase(action_id("b1"), Phase.RUNNING)
    await made.restart(lose=made.folder / "flyte.db")
    failed = await made.until_phase(action_id(), Phase.FAILED)
    assert failed.failure is not None
    assert "the record of this action is gone" in failed.failure.message
    assert said(await made.until_shown(action_id())) == ("InvalidSpec", failed.failure.message)
    await made.api.until(lambda: status_of(made, "r1-b1").get("phase") == "Failed")
    await no_pods_run(made)
    assert status_of(made, "r0-a0") == shown
    assert set(made.kubelet.pods.values()) == {1}
