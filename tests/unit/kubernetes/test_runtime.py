"""Pods as attempts: launched once, observed truly, stopped, settled; and how many requests that takes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import tasks_pb2

from flyte_manager.domain.attempts import ErrorKind, Presence
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import LaunchDelayed, LaunchRefused
from flyte_manager.kubernetes.runtime import PodNameTaken, PodRefused, PodsNotAllowed, QuotaExceeded
from flyte_manager.kubernetes.verdict import VerdictSettings
from tests.unit.kubernetes import launches
from tests.unit.kubernetes.world import NAMESPACE, World, attempt_id, eventually, stamp, world


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def event(reason: str, message: str, pod: dict[str, Any], *, warning: bool = False, name: str = "e1") -> dict[str, Any]:
    now = stamp(datetime.now(UTC))
    return {
        "metadata": {"name": name},
        "involvedObject": {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
        "reason": reason,
        "message": message,
        "type": "Warning" if warning else "Normal",
        "firstTimestamp": now,
        "lastTimestamp": now,
    }


def is_being_deleted(cluster: World, attempt: AttemptId) -> bool:
    return cluster.pods._pods[attempt].delete_at is not None


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


async def test_a_launched_attempt_is_known_at_once(cluster: World) -> None:
    attempt = await cluster.launched()
    seen = await cluster.pods.observe(attempt)
    assert (seen.presence, seen.phase) == (Presence.ALIVE, Phase.QUEUED)
    assert cluster.pods.alive() == [attempt]


async def test_the_road_of_an_attempt_is_seen_step_by_step_with_the_pods_own_times(cluster: World) -> None:
    attempt = await cluster.launched()
    cluster.status(
        attempt,
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no cpu"}
        ],
    )
    seen = await cluster.seen(attempt, lambda seen: seen.phase is Phase.WAITING_FOR_RESOURCES)
    assert seen.reason == "0/1 nodes: no cpu"
    cluster.schedule(attempt)
    await cluster.seen(attempt, lambda seen: seen.phase is Phase.INITIALIZING)
    cluster.start(attempt)
    seen = await cluster.seen(attempt, lambda seen: seen.phase is Phase.RUNNING)
    assert [each.phase for each in seen.transitions] == [Phase.INITIALIZING, Phase.RUNNING]
    cluster.end(attempt, 3)
    seen = await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    assert seen.exit is not None
    assert seen.exit.code == 3
    assert seen.failure is None
    assert cluster.pods.alive() == []
    assert cluster.woken[attempt] >= 4


async def test_changes_that_do_not_matter_do_not_wake(cluster: World) -> None:
    attempt = await cluster.running()
    before = cluster.woken[attempt]
    for number in range(5):
        cluster.status(
            attempt,
            conditions=[{"type": "Ready", "status": "True", "message": str(number)}],
            podIP="10.0.0.1",
            observedGeneration=number,
        )
    cluster.end(attempt)
    await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    assert cluster.woken[attempt] <= before + 2  # the conditions lost PodScheduled once; and the end


async def test_a_finished_pod_wakes_nobody_when_it_is_collected(cluster: World) -> None:
    attempt = await cluster.ended()
    before = cluster.woken[attempt]
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    await eventually(lambda: attempt not in cluster.pods._pods)
    assert cluster.woken[attempt] == before


async def test_launching_again_makes_no_second_pod(cluster: World) -> None:
    await cluster.launched()
    await cluster.launched()
    assert cluster.api.counts["create", "pods"] == 1


async def test_a_pod_that_was_created_without_our_knowing_is_adopted(cluster: World) -> None:
    cluster.api.lose_answers("create", "pods")
    with pytest.raises(Unavailable):
        await cluster.launched()
    other = cluster.make()  # whose informer does not run: it knows no pod
    await other.launch(cluster.launch_of())
    assert len(cluster.api.names("pods", namespace=NAMESPACE)) == 1
    assert (await other.observe(attempt_id())).presence is Presence.ALIVE


@pytest.mark.parametrize("theirs", ["labels", "owner"])
async def test_a_pod_of_that_name_that_is_not_the_attempts_is_never_taken(cluster: World, theirs: str) -> None:
    await cluster.launched()
    document = cluster.document(attempt_id())
    cluster.api.delete("pods", "r1-a0-0", namespace=NAMESPACE)
    if theirs == "labels":
        document["metadata"]["labels"] = {"app": "other"}
    else:
        document["metadata"]["ownerReferences"][0]["uid"] = "another"
    cluster.api.put("pods", document, namespace=NAMESPACE)
    other = cluster.make()
    with pytest.raises(PodNameTaken, match="kubectl delete pod r1-a0-0"):
        await other.launch(cluster.launch_of())


@pytest.mark.parametrize(
    ("status", "reason", "message", "expected"),
    [
        (422, "Invalid", 'Pod "x" is invalid: spec.containers[0].image: Required value', PodRefused),
        (400, "BadRequest", "unknown field", PodRefused),
        (413, "RequestEntityTooLarge", "limit is 3145728", PodRefused),
        (403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"', PodRefused),
        (
            403,
            "Forbidden",
            'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "flyte"',
            PodsNotAllowed,
        ),
    ],
)
async def test_what_the_api_server_refuses_is_refused_in_its_words(
    cluster: World, status: int, reason: str, message: str, expected: type[LaunchRefused]
) -> None:
    cluster.api.fail("create", "pods", status=status, reason=reason, message=message)
    with pytest.raises(LaunchRefused) as refused:
        await cluster.launched()
    assert type(refused.value) is expected
    assert message in str(refused.value)
    if expected is PodsNotAllowed:
        assert "resources: [pods]" in str(refused.value)


async def test_a_quota_that_is_used_up_delays_the_launch_with_the_reason(cluster: World) -> None:
    words = 'pods "r1-a0-0" is forbidden: exceeded quota: team, requested: pods=1, used: pods=5, limited: pods=5'
    cluster.api.fail("create", "pods", status=403, reason="Forbidden", message=words)
    with pytest.raises(QuotaExceeded, match="exceeded quota: team") as delayed:
        await cluster.launched()
    assert isinstance(delayed.value, LaunchDelayed)
    await cluster.launched()
    assert cluster.exists(attempt_id())


async def test_trouble_that_is_no_refusal_is_tried_again(cluster: World) -> None:
    cluster.api.fail("create", "pods", status=404, reason="NotFound", message='namespaces "flyte" not found')
    with pytest.raises(Unavailable, match="namespaces"):
        await cluster.launched()
    await cluster.launched()
    assert cluster.exists(attempt_id())


async def test_a_pod_template_is_fetched_when_the_task_names_one(cluster: World) -> None:
    template = launches.task(metadata=tasks_pb2.TaskMetadata(pod_template_name="big"))
    with pytest.raises(LaunchRefused, match="big"):
        await cluster.launched(template=template)
    document = {"metadata": {"name": "big"}, "template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}
    cluster.api.put("podtemplates", document, namespace=NAMESPACE)
    await cluster.launched(template=template)
    assert cluster.document(attempt_id())["spec"]["nodeSelector"] == {"disk": "ssd"}


async def test_what_was_never_launched_is_absent_and_costs_no_request(cluster: World) -> None:
    before = len(cluster.api.requests)
    assert (await cluster.pods.observe(attempt_id("other"))).presence is Presence.ABSENT
    assert len(cluster.api.requests) == before


async def test_not_in_the_cache_is_never_taken_for_gone(cluster: World) -> None:
    attempt = await cluster.launched()
    blind = cluster.make()
    assert (await blind.observe(attempt, begun=True)).presence is Presence.ALIVE


async def test_an_attempt_that_had_begun_and_is_nowhere_vanished_by_other_hands(cluster: World) -> None:
    seen = await cluster.pods.observe(attempt_id(), begun=True)
    assert seen.presence is Presence.VANISHED
    assert seen.failure is not None
    assert (seen.failure.kind, seen.failure.code) == (ErrorKind.SYSTEM, "ResourceDeletedExternally")


async def test_while_the_api_server_is_gone_nothing_vanishes(cluster: World) -> None:
    attempt = await cluster.running()
    await cluster.api.refuse()
    assert (await cluster.pods.observe(attempt, begun=True)).presence is Presence.ALIVE
    await cluster.api.listen()


async def test_a_pod_deleted_by_hand_before_it_ran_vanished(cluster: World) -> None:
    attempt = await cluster.launched()
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    seen = await cluster.seen(attempt, lambda seen: seen.presence is Presence.VANISHED)
    assert seen.failure is not None
    assert seen.failure.code == "ResourceDeletedExternally"
    assert cluster.name(attempt) in seen.failure.message


async def test_a_pod_deleted_by_hand_while_it_ran_lives_until_its_end_and_then_tells_it(cluster: World) -> None:
    attempt = await cluster.running()
    cluster.obedient = False
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE, grace=30)
    await asyncio.sleep(0.05)
    assert (await cluster.pods.observe(attempt)).presence is Presence.ALIVE
    cluster.obedient = True
    await eventually(lambda: not cluster.exists(attempt))
    seen = await cluster.seen(attempt, lambda seen: seen.presence is not Presence.ALIVE)
    assert seen.presence is Presence.EXITED
    assert seen.failure is not None
    assert seen.failure.code == "ResourceDeletedExternally"


async def test_a_pod_that_succeeded_and_was_then_deleted_succeeded(cluster: World) -> None:
    attempt = await cluster.running()
    cluster.end(attempt, 0)
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    await eventually(lambda: attempt not in cluster.pods._pods)
    seen = await cluster.pods.observe(attempt, begun=True)
    assert (seen.presence, seen.failure) == (Presence.EXITED, None)
    assert seen.exit is not None
    assert seen.exit.code == 0


async def test_a_pod_that_ended_while_the_watch_was_cut_is_seen(cluster: World) -> None:
    attempt = await cluster.running()
    cluster.api.cut_watches()
    cluster.end(attempt, 4)
    seen = await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    assert seen.exit is not None
    assert seen.exit.code == 4


async def test_an_answer_that_comes_after_the_deletion_makes_no_ghost(cluster: World) -> None:
    attempt = await cluster.launched()
    document = cluster.document(attempt)
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    await eventually(lambda: attempt not in cluster.pods._pods)
    cluster.pods._take(document)
    assert cluster.pods.alive() == []


async def test_a_copy_of_a_pod_is_not_taken_for_it(cluster: World) -> None:
    attempt = await cluster.running()
    document = cluster.document(attempt)
    del document["metadata"]["uid"]
    document["metadata"]["name"] = "a-copy"
    document["status"] = {"phase": "Failed"}
    cluster.api.put("pods", document, namespace=NAMESPACE)
    await eventually(lambda: len(cluster.pods._pod_informer) == 2)
    assert (await cluster.pods.observe(attempt)).presence is Presence.ALIVE
    cluster.api.delete("pods", "a-copy", namespace=NAMESPACE)
    await eventually(lambda: len(cluster.pods._pod_informer) == 1)
    assert (await cluster.pods.observe(attempt)).presence is Presence.ALIVE


async def test_stopping_deletes_with_the_pods_own_grace_but_not_more_than_half_a_minute(cluster: World) -> None:
    cluster.obedient = False
    for name, own, expected in (("short", 5, 5), ("long", 600, 30)):
        template = launches.own_pod(
            {"containers": [{"name": "main", "image": "x"}], "terminationGracePeriodSeconds": own}
        )
        attempt = await cluster.launched(name, template=template)
        await cluster.pods.stop(attempt)
        assert cluster.document(attempt)["metadata"]["deletionGracePeriodSeconds"] == expected
        await cluster.seen(attempt, lambda seen: seen.presence is Presence.ALIVE)
        await eventually(partial(is_being_deleted, cluster, attempt))
        await cluster.pods.stop(attempt)
    assert cluster.api.counts["delete", "pods"] == 2
    cluster.obedient = True


async def test_stopping_ends_the_attempt_and_wakes(cluster: World) -> None:
    attempt = await cluster.running()
    before = cluster.woken[attempt]
    await cluster.pods.stop(attempt)
    await cluster.seen(attempt, lambda seen: seen.presence is not Presence.ALIVE)
    assert cluster.woken[attempt] > before
    await eventually(lambda: not cluster.exists(attempt))
    await cluster.pods.stop(attempt)


async def test_stopping_what_was_never_launched_only_wakes(cluster: World) -> None:
    await cluster.pods.stop(attempt_id())
    await eventually(lambda: cluster.woken[attempt_id()] == 1)
    assert cluster.api.counts["delete", "pods"] == 0


async def test_settling_ends_the_sidecars_of_an_attempt_that_has_ended(cluster: World) -> None:
    spec = {"containers": [{"name": "primary", "image": "x"}, {"name": "proxy", "image": "y"}]}
    template = launches.own_pod(spec, primary="primary")
    attempt = await cluster.running(template=template)
    cluster.end(attempt, 0, phase="Running")
    cluster.api.logs[f"{cluster.name(attempt)}/primary"] = [(datetime.now(UTC), b"done\n"), None]
    seen = await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    assert seen.failure is None
    await cluster.pods.settle(attempt)
    await eventually(lambda: not cluster.exists(attempt))
    assert await cluster.output(attempt) == ["done"]
    again = await cluster.pods.observe(attempt, begun=True)
    assert (again.presence, again.failure) == (Presence.EXITED, None)


async def test_settling_leaves_a_finished_pod_and_a_running_one(cluster: World) -> None:
    finished, alive = await cluster.ended("done"), await cluster.running("busy")
    for _ in range(2):
        await cluster.pods.settle(finished)
        await cluster.pods.settle(alive)
        await cluster.pods.settle(attempt_id("unknown"))
    assert cluster.api.counts["delete", "pods"] == 0
    assert cluster.api.counts["get", "pods/log"] == 1


async def test_time_alone_wakes_where_it_changes_the_verdict(tmp_path: Path) -> None:
    async with world(tmp_path, settings=VerdictSettings(create_seconds=2.0)) as cluster:
        attempt = await cluster.launched()
        cluster.schedule(attempt)
        cluster.containers(attempt, waiting("CreateContainerError", "no such device"), phase="Pending")
        seen = await cluster.seen(attempt, lambda seen: "no such device" in seen.reason)
        assert seen.failure is None
        before = cluster.woken[attempt]
        await eventually(lambda: cluster.woken[attempt] > before)
        seen = await cluster.pods.observe(attempt)
        assert seen.failure is not None
        assert seen.failure.code == "CreateContainerError"


async def test_a_lost_node_lets_the_attempt_go_and_its_pod_is_deleted_by_force(tmp_path: Path) -> None:
    async with world(tmp_path, settings=VerdictSettings(node_lost_seconds=0.2)) as cluster:
        cluster.obedient = False
        attempt = await cluster.running()
        cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE, grace=1)
        seen = await cluster.seen(attempt, lambda seen: seen.presence is Presence.VANISHED)
        assert seen.failure is not None
        assert seen.failure.code == "NodeLost"
        await cluster.pods.settle(attempt)
        await eventually(lambda: not cluster.exists(attempt))
        assert "its node does not answer" in (await cluster.remarks(attempt))[0]


async def test_an_uploader_that_waits_for_sidecars_gets_its_turn_with_the_pods_whole_grace(cluster: World) -> None:
    cluster.obedient = False
    attempt = await cluster.running()
    document = cluster.document(attempt)
    document["spec"]["initContainers"] = [{"name": "flyte-upload", "image": "u", "restartPolicy": "Always"}]
    document["spec"]["containers"].append({"name": "proxy", "image": "y"})
    document["spec"]["terminationGracePeriodSeconds"] = 3600
    cluster.api.put("pods", document, namespace=NAMESPACE)
    cluster.end(attempt, 0, phase="Running")
    await cluster.seen(attempt, lambda _: "deletionTimestamp" in cluster.document(attempt)["metadata"])
    assert cluster.document(attempt)["metadata"]["deletionGracePeriodSeconds"] == 3600
    assert (await cluster.pods.observe(attempt)).presence is Presence.ALIVE
    cluster.obedient = True


async def test_events_of_the_pod_come_with_what_is_observed_and_explain_what_it_waits_for(cluster: World) -> None:
    attempt = await cluster.launched()
    cluster.schedule(attempt)
    cluster.containers(attempt, waiting("ContainerCreating"), phase="Pending")
    await cluster.seen(attempt, lambda seen: seen.reason == "ContainerCreating")
    pod, before = cluster.document(attempt), cluster.woken[attempt]
    words = 'MountVolume.SetUp failed for volume "data": secret "s" not found'
    cluster.api.put("events", event("Scheduled", "assigned to node-1", pod), namespace=NAMESPACE)
    cluster.api.put("events", event("FailedMount", words, pod, warning=True, name="e2"), namespace=NAMESPACE)
    seen = await cluster.seen(attempt, lambda seen: len(seen.events) == 2)
    assert [each.reason for each in seen.events] == ["Scheduled", "FailedMount"]
    assert seen.reason == f"ContainerCreating: {words}"
    assert cluster.woken[attempt] == before + 1


async def test_the_normal_road_takes_three_requests(cluster: World) -> None:
    before = cluster.api.counts
    attempt = await cluster.ended(log=b"hello\n")
    await cluster.pods.observe(attempt)
    await cluster.pods.settle(attempt)
    await cluster.pods.settle(attempt)
    await cluster.pods.forget(attempt, b"")
    await eventually(lambda: cluster.api.counts["create", "events"])
    assert cluster.api.counts - before == {("create", "pods"): 1, ("get", "pods/log"): 1, ("create", "events"): 1}
    (told,) = cluster.api.objects("events", namespace=NAMESPACE)
    assert (told["reason"], told["involvedObject"]["name"]) == ("PodCreated", "r1-a0")
    assert "r1-a0-0" in told["message"]
