"""Parts of the cluster, the manager, the store and the network fail in the middle of runs; people delete what they
should not; orders are bad. Every action ends once, with the truth, and nothing stays behind.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kubernetes.clusters import Cluster, Kubectl, KubectlError
from tests.kubernetes.plain_runs import Runs, foreign, mark, pod_defaults, until_file
from tests.kubernetes.proxies import Proxy, before_api_server
from tests.managers import Manager
from tests.s3 import S3Server
from tests.sdk.test_object_store import store_of
from tests.unit.kubernetes.test_orders import encoded, foreign_spec

KILLS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tasks leave their marks."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def proxied(kubectl: Kubectl, folder: Path) -> Iterator[tuple[Proxy, Path]]:
    file = folder.with_name(f"{folder.name}.kubeconfig")
    with before_api_server(kubectl, file) as proxy:
        yield proxy, file


@pytest.fixture(scope="module")
def proxy(proxied: tuple[Proxy, Path]) -> Proxy:
    """What the manager takes for the API server."""
    return proxied[0]


@pytest.fixture(scope="module")
def pods_settings(folder: Path, proxied: tuple[Proxy, Path]) -> Mapping[str, str]:
    return {
        "manager.kubernetes.podDefaults": pod_defaults(folder),
        "manager.kubernetes.kubeconfig": str(proxied[1]),
    }


@pytest.fixture
def runs(pods_manager: Manager, kubectl: Kubectl, folder: Path, sdk_image: str) -> Iterator[Runs]:
    """After each test nothing is left running, all is told as it is, and no failure was unforeseen."""
    told = len(pods_manager.log)
    made = Runs(pods_manager, kubectl, folder, sdk_image)
    yield made
    left = made.live()
    for run in left:  # of a test that failed: the next one's concern is its own
        made.abort(run)
    assert not left
    made.eventually(lambda: not made.live_pods(), "the end of all pods")
    made.eventually(lambda: not made.unlike(), "all TaskActions as their rows")
    assert "Traceback" not in pods_manager.log[told:]


def once(*names: str) -> Counter[str]:
    return Counter(f"{what} {name}" for name in names for what in ("begin", "end"))


def marks_of(runs: Runs, run: str) -> Counter[str]:
    return Counter({text: count for text, count in runs.marks.items() if f" {run}" in text})


def begin_and_end(name: str, between: str) -> str:
    return f"{mark(f'begin {name}')}; {between}; {mark(f'end {name}')}"


def test_an_api_server_that_is_away_loses_nothing(runs: Runs, cluster: Cluster) -> None:
    """It stays away for longer than the Lease holds (12 s): every part of the manager has then given up once."""
    names = ("b1", "b2", "b3")
    runs.start("away", until_file("away-all"))
    for name in names:
        runs.enqueue("away", name, begin_and_end(f"away-{name}", until_file("away-go")))
    runs.until("RUNNING", "away", *names)
    with cluster.without("kube-apiserver"):
        runs.enqueue("away", "b4", begin_and_end("away-b4", "true"))
        runs.eventually(lambda: "can't be reached" in runs.reason("away", "b4"), "a queued action's reason")
        assert runs.phase("away", "b4") == "WAITING_FOR_RESOURCES"
        runs.let("away-go")
        ended = once(*(f"away-{name}" for name in names))
        runs.eventually(lambda: marks_of(runs, "away") == ended, "the ends of the pods")
        runs.eventually(lambda: not runs.manager.serves(), "the Lease's end")
        runs.start("away-too", mark("away-too"))
        assert "could not be renewed" in runs.manager.last_log
        assert "following pods is cut off" in runs.manager.last_log
        assert {runs.phase("away", name) for name in names} == {"RUNNING"}
    runs.until("SUCCEEDED", "away", *names)
    for part in ("kube-scheduler", "kubelet", "kube-controller-manager"):
        with cluster.without(part):
            pass  # else it would look for the API server again after up to a minute, which is not ours to test
    runs.until("SUCCEEDED", "away", "b4")
    runs.until("SUCCEEDED", "away-too")
    runs.let("away-all")
    runs.until("SUCCEEDED", "away")
    everything = once(*(f"away-{name}" for name in (*names, "b4")))
    assert marks_of(runs, "away-") == everything
    assert runs.marks["away-too"] == 1
    assert set(runs.rows("away").values()) == {("SUCCEEDED", 1)}
    assert set(runs.pods("away")) == {f"away-{name}-0" for name in ("a0", *names, "b4")}


def test_a_manager_killed_again_and_again_repeats_nothing(runs: Runs) -> None:
    chance = random.Random(4)
    names = [f"b{number}" for number in range(10)]
    # Every third fails at first; the others take more or less time, so that kills fall between all their steps.
    scripts = {
        name: begin_and_end(f"kills-{name}-$FLYTE_ATTEMPT_NUMBER", f"sleep {chance.uniform(0, 4):.1f}")
        + (" && [ $FLYTE_ATTEMPT_NUMBER -gt 0 ]" if number % 3 == 0 else "")
        for number, name in enumerate(names)
    }
    runs.start("kills", until_file("kills-all"))
    for turn in range(KILLS):
        for name in names[: 2 * (turn + 1)]:  # those that were enqueued before, too, as a parent may
            runs.enqueue("kills", name, scripts[name], retries=1)
        time.sleep(chance.uniform(0, 1.5))
        runs.manager.kill9()
        if turn % 2:  # and in its start
            runs.manager.spawn()
            time.sleep(chance.uniform(0.5, 2.5))
            runs.manager.kill9()
        runs.manager.start()
    runs.until("SUCCEEDED", "kills", *names)
    runs.let("kills-all")
    runs.until("SUCCEEDED", "kills")
    attempts = {name: 2 if number % 3 == 0 else 1 for number, name in enumerate(names)}
    assert runs.rows("kills") == {"a0": ("SUCCEEDED", 1)} | {
        name: ("SUCCEEDED", count) for name, count in attempts.items()
    }
    each = [f"{name}-{number}" for name, count in attempts.items() for number in range(count)]
    assert marks_of(runs, "kills") == once(*(f"kills-{one}" for one in each))
    assert set(runs.pods("kills")) == {"kills-a0-0", *(f"kills-{one}" for one in each)}


def test_a_kubelet_that_starts_anew_goes_on_with_its_pods(runs: Runs, cluster: Cluster) -> None:
    runs.start("node", until_file("node-all"))
    runs.enqueue("node", "b1", begin_and_end("node-b1", until_file("node-go")))
    runs.until("RUNNING", "node", "a0", "b1")
    with cluster.without("kubelet"):
        runs.enqueue("node", "b2", begin_and_end("node-b2", "true"))
        runs.until("INITIALIZING", "node", "b2")
        runs.let("node-go")
        runs.eventually(lambda: marks_of(runs, "node") == once("node-b1"), "the end of b1")
    runs.until("SUCCEEDED", "node", "b1", "b2")
    runs.let("node-all")
    runs.until("SUCCEEDED", "node")
    assert marks_of(runs, "node") == once("node-b1", "node-b2")
    assert set(runs.rows("node").values()) == {("SUCCEEDED", 1)}


def test_connections_cut_at_any_moment_change_nothing(runs: Runs, proxy: Proxy) -> None:
    chance = random.Random(5)
    names = [f"b{number}" for number in range(8)]
    runs.start("cuts", until_file("cuts-all"))
    ended = 0
    for name in names:
        seconds = f"sleep {chance.uniform(0, 2):.1f}"
        runs.enqueue("cuts", name, begin_and_end(f"cuts-{name}", seconds))
        time.sleep(chance.uniform(0, 0.6))
        ended += proxy.cut()
    while {runs.phase("cuts", name) for name in names} != {"SUCCEEDED"}:
        runs.eventually(lambda: proxy.open, "new connections")  # type: ignore[arg-type, return-value]
        ended += proxy.cut()
        time.sleep(chance.uniform(0.5, 1.5))
    runs.let("cuts-all")
    runs.until("SUCCEEDED", "cuts")
    assert ended > 2 * len(names)
    assert marks_of(runs, "cuts") == once(*(f"cuts-{name}" for name in names))
    assert set(runs.rows("cuts").values()) == {("SUCCEEDED", 1)}
    assert len(runs.pods("cuts")) == len(names) + 1


def test_a_pod_deleted_by_hand_is_a_failure_of_the_system_and_tried_again(runs: Runs, kubectl: Kubectl) -> None:
    runs.start("pod", f"{mark('pod $FLYTE_ATTEMPT_NUMBER')}; [ $FLYTE_ATTEMPT_NUMBER = 0 ] && exec sleep 600; true")
    runs.until("RUNNING", "pod")
    kubectl("delete", "pod", "pod-a0-0", "--now", "--wait=false")
    runs.until("SUCCEEDED", "pod")
    first, second = runs.details("pod")["attempts"]
    assert first["errorInfo"]["kind"] == "KIND_SYSTEM"
    assert "pod pod-a0-0 was deleted from outside this manager" in first["errorInfo"]["message"]
    assert second["phase"] == "ACTION_PHASE_SUCCEEDED"
    runs.eventually(lambda: runs.task_action("pod-a0")["status"]["phase"] == "Succeeded", "the TaskAction's end")
    status = runs.task_action("pod-a0")["status"]
    assert (status["attempts"], status["systemFailures"]) == (2, 1)
    assert (runs.marks["pod 0"], runs.marks["pod 1"]) == (1, 1)


def test_a_deleted_task_action_aborts_its_action_and_the_roots_the_run(runs: Runs, kubectl: Kubectl) -> None:
    names = ("b1", "b2", "b3")
    runs.start("gone", "exec sleep 600")
    runs.enqueue("gone", "b0", "true")
    for name in names:
        runs.enqueue("gone", name, "exec sleep 600")
    runs.until("RUNNING", "gone", *names)
    runs.until("SUCCEEDED", "gone", "b0")
    kubectl("delete", "taskaction", "gone-b1", "--wait=false")
    runs.until("ABORTED", "gone", "b1")
    assert "its TaskAction gone-b1 was deleted" in runs.reason("gone", "b1")
    runs.eventually(lambda: "gone-b1-0" not in runs.pods("gone"), "the end of b1's pod")
    assert {runs.phase("gone", name) for name in ("a0", "b2", "b3")} == {"RUNNING"}
    kubectl("delete", "taskaction", "gone-a0", "--wait=false")
    runs.until("ABORTED", "gone", "a0", "b2", "b3")
    assert runs.rows("gone") == {"b0": ("SUCCEEDED", 1), **dict.fromkeys(("a0", *names), ("ABORTED", 1))}
    assert runs.manager.rows("SELECT phase FROM runs WHERE name = 'gone'") == [("ABORTED",)]
    runs.eventually(lambda: not runs.pods("gone"), "the end of all pods of the run")


def test_a_run_waits_for_room_in_the_quota(runs: Runs, kubectl: Kubectl) -> None:
    kubectl("create", "quota", "tight", "--hard=pods=0")
    kubectl("wait", "quota/tight", "--for=jsonpath={.status.hard.pods}=0", "--timeout=60s")
    runs.start("room", mark("room"))
    runs.until("WAITING_FOR_RESOURCES", "room")
    assert "exceeded quota: tight" in runs.reason("room")
    runs.eventually(lambda: "exceeded quota: tight" in runs.task_action("room-a0")["status"]["message"], "its message")
    assert not runs.pods("room")
    kubectl("patch", "quota", "tight", "--type=merge", '--patch={"spec":{"hard":{"pods":"100"}}}')
    runs.until("SUCCEEDED", "room")
    kubectl("delete", "quota", "tight")
    assert (runs.marks["room"], runs.rows("room")["a0"][1]) == (1, 1)


def test_a_pod_that_admission_refuses_fails_in_its_words(runs: Runs, kubectl: Kubectl, namespace: str) -> None:
    limit = {"type": "Container", "max": {"cpu": "100m"}}
    kubectl.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "low"}, "spec": {"limits": [limit]}})
    cpu = {"resources": {"requests": [{"name": "CPU", "value": "500m"}]}}
    runs.start("limited", "true", container=cpu)
    runs.until("FAILED", "limited")
    kubectl("delete", "limitrange", "low")
    enforce = "pod-security.kubernetes.io/enforce"
    kubectl("label", "namespace", namespace, f"{enforce}=restricted")
    runs.start("insecure", "true")
    runs.until("FAILED", "insecure")
    kubectl("label", "namespace", namespace, f"{enforce}-")
    for run, words in (("limited", "maximum cpu usage per Container is 100m"), ("insecure", "violates PodSecurity")):
        error = runs.details(run)["errorInfo"]
        assert words in error["message"]
        assert error["kind"] == "KIND_USER"
        runs.eventually(lambda run=run: bool(runs.task_action(f"{run}-a0")["status"].get("errorState")), "its error")  # type: ignore[misc]
        assert runs.task_action(f"{run}-a0")["status"]["errorState"]["message"] == error["message"]
        assert not runs.pods(run)


def test_an_unschedulable_pod_tells_why_and_can_be_aborted(runs: Runs) -> None:
    runs.start("huge", "true", container={"resources": {"requests": [{"name": "CPU", "value": "1000"}]}})
    runs.eventually(lambda: "Insufficient cpu" in runs.reason("huge"), "the scheduler's words")
    assert runs.phase("huge") == "WAITING_FOR_RESOURCES"
    runs.eventually(lambda: "Insufficient cpu" in runs.task_action("huge-a0")["status"]["message"], "its message")
    assert runs.task_action("huge-a0")["status"]["phase"] == "WaitingForResources"
    runs.abort("huge")
    runs.until("ABORTED", "huge")
    runs.eventually(lambda: not runs.pods("huge"), "the end of its pod")


def test_broken_task_actions_fail_alone(runs: Runs, kubectl: Kubectl, s3: S3Server, namespace: str) -> None:
    def spec(run: str, name: str = "a0", parent: str | None = None, **changed: object) -> dict[str, object]:
        base = f"s3://{s3.bucket}/{namespace}/{run}"
        given = {"runName": run, "actionName": name, "parentActionName": parent, "envVars": None}
        places = {"inputUri": f"{base}/inputs.pb", "runOutputBase": base}
        return foreign_spec(**{**given, **places, **changed})

    runs.start("well", until_file("well-all"))
    runs.start("over", "true")
    runs.until("SUCCEEDED", "over")
    with pytest.raises(KubectlError, match=r"spec.taskTemplate: Invalid value"):
        kubectl.apply(foreign(spec("refused", taskTemplate="%%%"), "refused"))
    with pytest.raises(KubectlError, match=r"missing required field .runName."):
        kubectl.apply(foreign(spec("refused", runName=None), "refused"))
    broken = {"taskTemplate": encoded(b"\xff\xff")}
    kubectl.apply(
        foreign(spec("garbled", **broken), "garbled"),
        foreign(spec("baseless", runOutputBase=None), "baseless"),
        foreign(spec("well", "b1", "a0", **broken), "garbled-child"),
        foreign(spec("over", "b1", "a0"), "too-late"),
        foreign(spec("rootless", "b1"), "rootless"),
    )
    for name, words in {
        "garbled": "taskTemplate is no flyteidl2.core.TaskTemplate",
        "baseless": "required spec fields are empty: [runOutputBase]",
        "garbled-child": "taskTemplate is no flyteidl2.core.TaskTemplate",
        "too-late": "SUCCEEDED",
        "rootless": "names no parent",
    }.items():
        kubectl("wait", "--for=condition=Failed", f"taskaction/{name}", "--timeout=60s")
        status = runs.task_action(name)["status"]
        assert {each["reason"] for each in status["conditions"]} == {"InvalidSpec"}
        assert (status["phase"], status["errorState"]["code"]) == ("Failed", "InvalidSpec")
        assert words in status["errorState"]["message"]
    for run, action, name in (
        ("garbled", "a0", "garbled"),
        ("baseless", "a0", "baseless"),
        ("well", "b1", "garbled-child"),
    ):
        assert runs.phase(run, action) == "FAILED"
        told = runs.details(run, action)["errorInfo"]["message"]
        assert told == runs.task_action(name)["status"]["errorState"]["message"]
    assert runs.phase("well") == "RUNNING"
    runs.let("well-all")
    runs.until("SUCCEEDED", "well")
    assert set(runs.rows("over")) == {"a0"}


def test_a_root_and_its_child_applied_together_run(runs: Runs, kubectl: Kubectl, s3: S3Server, namespace: str) -> None:
    """The child first: it waits for its parent."""
    base = f"s3://{s3.bucket}/{namespace}/hands"
    places = {"runName": "hands", "inputUri": f"{base}/inputs.pb", "runOutputBase": base, "envVars": {"WHO": "hands"}}
    root, child = (
        runs.template(script) for script in (f"{until_file('hands-all')}; {mark('$WHO-root')}", mark("$WHO-child"))
    )
    one = foreign(foreign_spec(**places, actionName="b1", parentActionName="a0", taskTemplate=encoded(child)), "one")
    kubectl.apply(one)
    runs.eventually(lambda: "WaitsForParent" in kubectl("describe", "taskaction", "one"), "what it waits for")
    kubectl.apply(one, foreign(foreign_spec(**places, taskTemplate=encoded(root)), "two"))
    runs.until("SUCCEEDED", "hands", "b1")
    runs.let("hands-all")
    runs.until("SUCCEEDED", "hands")
    assert (runs.marks["hands-root"], runs.marks["hands-child"]) == (1, 1)
    assert set(runs.pods("hands")) == {"one-0", "two-0"}


def test_a_store_that_is_away_at_the_end_of_attempts_makes_none_fail(runs: Runs, s3: S3Server, namespace: str) -> None:
    output = {"key": "o0", "value": {"type": {"simple": "INTEGER"}}}
    names = ("b1", "b2", "b3")
    runs.start("store", until_file("store-all"))
    runs.enqueue("store", "b1", f"{until_file('store-go')}; {mark('end store-b1')}")
    runs.enqueue("store", "b2", f"{until_file('store-go')}; echo because; {mark('end store-b2')}; exit 3")
    runs.enqueue(
        "store",
        "b3",
        f"{until_file('store-go')}; {mark('end store-b3')}",
        interface={"outputs": {"variables": [output]}},
    )
    runs.until("RUNNING", "store", *names)
    ((base,),) = runs.manager.rows("SELECT base_uri FROM runs WHERE name = 'store'")
    outputs = b"\n\x06\n\x02o0\x12\x00"  # written in place of the task
    asyncio.run(store_of(s3, namespace).write(f"{base}/b3/1/outputs.pb", outputs))
    s3.stop()
    try:
        runs.let("store-go")
        runs.eventually(lambda: all(runs.marks[f"end store-{name}"] for name in names), "the ends of the commands")
        runs.eventually(lambda: set(runs.pods("store").values()) == {"Running", "Succeeded", "Failed"}, "pods' ends")
        runs.eventually(
            lambda: len(set(re.findall(r"store/(b\d).*tried again", runs.manager.last_log))) == len(names), "tries"
        )
        assert {runs.phase("store", name) for name in names} == {"RUNNING"}
    finally:
        s3.start()
    runs.until("SUCCEEDED", "store", "b1", "b3")
    runs.until("FAILED", "store", "b2")
    assert "exit code 3" in runs.details("store", "b2")["errorInfo"]["message"]
    runs.let("store-all")
    runs.until("SUCCEEDED", "store")
    assert {name: attempt for name, (_, attempt) in runs.rows("store").items()} == dict.fromkeys(("a0", *names), 1)
