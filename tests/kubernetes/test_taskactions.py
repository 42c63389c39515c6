"""TaskActions on a real API server: what it takes, what it shows, and what goes with what."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyte_manager.domain.actions import Resource, Run
from flyte_manager.domain.attempts import ErrorKind, Failure
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import LaunchRefused, Standing
from flyte_manager.kubernetes import access, crd, taskactions
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.taskactions import TaskActionObjects
from tests.fakes.clock import NOW, FakeClock
from tests.fakes.orders import task_spec
from tests.kubernetes.clusters import Cluster, Kubectl, KubectlError
from tests.unit.kubernetes.test_orders import encoded, foreign_spec
from tests.unit.kubernetes.test_taskactions import SPEC, history, row

SECONDS = 60
"""Kubernetes' garbage collector looks for new kinds, as ours is in a cluster that just began, every 30 s."""

KIND = {"apiVersion": "flyte.org/v1", "kind": "TaskAction"}
AT = "2026-01-01T00:00:00Z"
UPSTREAM_STATUS: dict[str, Any] = {
    "stateJson": "{}",
    "pluginState": "AAEC",
    "pluginStateVersion": 3,
    "pluginPhase": "Running",
    "pluginPhaseVersion": 1,
    "attempts": 2,
    "systemFailures": 1,
    "cacheStatus": 2,
    "conditions": [
        {
            "type": kind,
            "status": holds,
            "reason": "Completed",
            "message": "",
            "lastTransitionTime": AT,
            "observedGeneration": 1,
        }
        for kind, holds in (("Progressing", "False"), ("Succeeded", "True"), ("example.org/Other", "Unknown"))
    ],
    "phaseHistory": [{"phase": "Queued", "occurredAt": AT}, {"phase": "Executing", "occurredAt": AT, "message": "x"}],
    "errorState": {"code": "c", "kind": "", "message": ""},
    "signalValue": "AAEC",
    "signalledBy": "me",
    "signalledAt": AT,
}


class World:
    def __init__(self, client: Client, namespace: str) -> None:
        self.woken: set[ActionId] = set()
        self.client = client
        self.recorder = Recorder(client, namespace=namespace, clock=FakeClock())
        self.objects = TaskActionObjects(
            client=client, namespace=namespace, wake=self.woken.add, recorder=self.recorder, clock=FakeClock()
        )

    async def make(self, name: str = "a0", *, run: str, parent: Resource | None = None) -> Resource:
        action = row(name, run=run)
        of = Run(action.id.run, Phase.RUNNING, action.task.name, "", action.base_uri, NOW)
        return await self.objects.make(action, of, spec=SPEC, parent=parent)


@pytest.fixture(scope="module", autouse=True)
def definition(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--filename=-", input=crd.manifest())
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{crd.NAME}", "--timeout=30s")


@pytest.fixture
async def world(kubeconfig: Path, namespace: str) -> AsyncIterator[World]:
    async with Client(access.explicit(kubeconfig)) as client:
        made = World(client, namespace)
        tasks = [asyncio.create_task(made.objects.run()), asyncio.create_task(made.recorder.run())]
        async with asyncio.timeout(30):
            await made.objects.synced()
        yield made
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_an_object_of_the_go_executor_is_kept_whole(kubectl: Kubectl) -> None:
    spec = foreign_spec(
        **{"runName": "r" * 30, "actionName": "x" * 30, "parentActionName": "a0", "actionType": "task", "group": "g"},
        **{"cacheKey": "k" * 256, "interruptible": True, "conditionSpec": encoded(b"\x0a\x01a")},
    )
    kubectl.apply({**KIND, "metadata": {"name": "upstream"}, "spec": spec})
    patch = json.dumps({"status": UPSTREAM_STATUS})
    kubectl("patch", "taskaction", "upstream", "--subresource=status", "--type=merge", f"--patch={patch}")
    found = kubectl.json("get", "taskaction", "upstream")
    assert (found["spec"], found["status"]) == (spec, UPSTREAM_STATUS)


@pytest.mark.parametrize(
    "changed", [{"taskTemplate": "%%%"}, {"runName": None}, {"actionName": "x" * 31}, {"actionType": "trace"}]
)
def test_damage_that_the_schema_knows_is_refused_by_the_server(kubectl: Kubectl, changed: dict[str, Any]) -> None:
    with pytest.raises(KubectlError, match=r"is invalid|missing required field"):
        kubectl.apply({**KIND, "metadata": {"name": "damaged"}, "spec": foreign_spec(**changed)})


async def test_get_and_describe_show_how_an_action_goes(world: World, kubectl: Kubectl) -> None:
    failure = Failure(ErrorKind.USER, "ValueError", "boom \ud800 ünd\nmore")
    action = replace(row(run="shown"), resource=await world.make(run="shown"))
    for phase in (Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING):
        action = replace(action, phase=phase)
        await world.objects.show(history(action))
        assert world.objects.shows(action)
    assert kubectl("get", "taskaction", "shown-a0").split()[:6] == [
        *("NAME", "PHASE", "RUN", "ACTION", "TASKTYPE", "STATUS"),
    ]
    assert kubectl("get", "taskaction", "shown-a0", "--no-headers").split()[1:6] == [
        *("Running", "shown", "a0", "python", "Executing"),
    ]
    action = replace(action, phase=Phase.FAILED, ended_at=NOW, failure=failure)
    await world.objects.show(history(action))
    assert action.resource is not None
    world.objects.tell(action.resource, "AttemptFailed", "attempt 1: boom", warning=True)
    assert kubectl("get", "taskaction", "shown-a0", "--no-headers").split()[1] == "Failed"
    await until(lambda: kubectl.json("get", "events")["items"])
    text = kubectl("describe", "taskaction", "shown-a0")
    for words in ("ValueError: boom ? ünd", "PermanentFailure", "Attempts:", "Phase History:", "AttemptFailed"):
        assert words in text
    found = kubectl.json("get", "taskaction", "shown-a0")
    assert [each["phase"] for each in found["status"]["phaseHistory"]] == ["Queued", "Failed"]
    assert world.objects.shows(action)
    kubectl("wait", "--for=condition=Failed", "taskaction/shown-a0", "--timeout=5s")


async def test_deleting_the_root_deletes_the_tree(world: World, kubectl: Kubectl) -> None:
    root = await world.make(run="tree")
    child = await world.make("b1", run="tree", parent=root)
    leaf = await world.make("c1", run="tree", parent=child)
    actions = [replace(row(name, run="tree"), resource=of) for name, of in (("a0", root), ("b1", child), ("c1", leaf))]
    assert [await world.objects.standing(each) for each in actions] == [Standing.STANDS] * 3
    kubectl("delete", "taskaction", "tree-a0")
    await until(lambda: {each.id for each in actions} <= world.woken)
    assert [await world.objects.standing(each) for each in actions] == [Standing.DELETED] * 3


async def test_one_by_other_hands_is_found_with_its_damage(world: World, kubectl: Kubectl) -> None:
    spec = foreign_spec(runName="damaged", taskTemplate=encoded(b"\xff\xff"))
    kubectl.apply({**KIND, "metadata": {"name": "theirs"}, "spec": spec})
    key = row(run="damaged").id
    await until(lambda: key in world.woken)
    found = world.objects.found(key)
    assert found is not None
    assert found.problem == "taskTemplate is no flyteidl2.core.TaskTemplate"
    await world.objects.refuse(found, found.problem)
    shown = kubectl("get", "taskaction", "theirs", "--no-headers").split()
    assert (shown[1], shown[5]) == ("Failed", "InvalidSpec")


async def test_a_status_is_never_written_to_another_object_of_that_name(world: World, kubectl: Kubectl) -> None:
    action = replace(row(run="twice"), resource=await world.make(run="twice"))
    kubectl("delete", "taskaction", "twice-a0")
    kubectl.apply({**KIND, "metadata": {"name": "twice-a0"}, "spec": foreign_spec(runName="twice")})
    await world.objects.show(history(action))
    assert "status" not in kubectl.json("get", "taskaction", "twice-a0")


async def test_the_largest_that_we_make_is_taken(world: World) -> None:
    spec = task_spec()
    spec.task_template.container.args.append("x" * 740_000)
    action = row(run="large")
    of = Run(action.id.run, Phase.RUNNING, action.task.name, "", action.base_uri, NOW)
    resource = await world.objects.make(action, of, spec=spec.SerializeToString(), parent=None)
    words = Failure(ErrorKind.USER, "ValueError", "\U0001f40d" * 50_000)
    failed = replace(action, resource=resource, phase=Phase.FAILED, failure=words, ended_at=NOW)
    await world.objects.show(history(failed))
    assert world.objects.shows(failed)


async def test_the_namespace_must_exist(world: World) -> None:
    nowhere = TaskActionObjects(
        client=world.client, namespace="nowhere", wake=world.woken.add, recorder=world.recorder, clock=FakeClock()
    )
    action = row()
    of = Run(action.id.run, Phase.RUNNING, action.task.name, "", action.base_uri, NOW)
    with pytest.raises(taskactions.NamespaceMissing, match="kubectl create namespace nowhere"):
        await nowhere.make(action, of, spec=SPEC, parent=None)


async def test_the_rule_that_is_missing_is_named(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    kubectl("create", "serviceaccount", "nobody")
    stranger = kubectl.logged_in_as("nobody", tmp_path / "nobody.kubeconfig")
    async with Client(access.explicit(stranger.kubeconfig)) as client:
        with pytest.raises(LaunchRefused, match=r"its Role needs the rule \{apiGroups: \[.flyte\.org.\]"):
            await World(client, namespace).make(run="denied")
