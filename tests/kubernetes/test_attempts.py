"""Attempts as pods on a real kubelet: how they end, what is told of it, and what stays of their logs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.actions import Resource
from flyte_manager.domain.attempts import ErrorKind, Observation, Presence, StopReason
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes import access
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.pods import PodSettings
from flyte_manager.kubernetes.runtime import Pods
from flyte_manager.kubernetes.verdict import VerdictSettings
from tests.kubernetes.clusters import Kubectl, KubectlError
from tests.unit.kubernetes import launches
from tests.unit.kubernetes.test_orders import foreign_spec

SECONDS = 60.0
SETTINGS = VerdictSettings(image_pull_seconds=2, create_seconds=2)


class World:
    def __init__(self, client: Client, kubectl: Kubectl, folder: Path, image: str, owner: Resource) -> None:
        self.kubectl = kubectl
        self.client = client
        self.image = image
        self.owner = owner
        self.folder = folder
        self.woken: Counter[AttemptId] = Counter()
        self.recorder = Recorder(client, namespace=kubectl.namespace, clock=lambda: datetime.now(UTC))
        self.pods = self.make()

    def make(self) -> Pods:
        return Pods(
            client=self.client,
            pod_settings=PodSettings(namespace=self.kubectl.namespace),
            verdict_settings=SETTINGS,
            blobs=Directory(self.folder),
            wake=lambda attempt: self.woken.update([attempt]),
            clock=lambda: datetime.now(UTC),
            recorder=self.recorder,
        )

    def name(self, attempt: AttemptId) -> str:
        return f"{self.owner.name}-{attempt.number - 1}"

    async def launched(self, number: int, script: str, **container: Any) -> AttemptId:
        """`number` tells the tests' pods apart."""
        attempt = AttemptId(ActionId(RunId("flytesnacks", "development", "attempts"), "a0"), number)
        template = launches.task(container={"image": self.image, "args": ["sh", "-c", script], **container})
        await self.pods.launch(launches.launch(template, attempt=attempt, resource=self.owner))
        return attempt

    async def own(self, number: int, spec: dict[str, Any]) -> AttemptId:
        attempt = AttemptId(ActionId(RunId("flytesnacks", "development", "attempts"), "a0"), number)
        await self.pods.launch(launches.launch(launches.own_pod(spec), attempt=attempt, resource=self.owner))
        return attempt

    async def seen(self, attempt: AttemptId, holds: Callable[[Observation], object]) -> Observation:
        found: Observation | None = None
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    found = await self.pods.observe(attempt, begun=True)
                    if holds(found):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"last seen: {found}") from None

    async def over(self, attempt: AttemptId) -> Observation:
        return await self.seen(attempt, lambda seen: seen.presence is not Presence.ALIVE)

    async def gone(self, attempt: AttemptId) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    self.kubectl("get", "pod", self.name(attempt))
                except KubectlError:
                    return
                await asyncio.sleep(0.2)

    async def lines(self, attempt: AttemptId) -> tuple[list[str], list[str]]:
        """The task's output, and what the system says."""

        async def ended() -> bool:
            return True

        lines = [line async for page in self.pods.tail(attempt, ended=ended) for line in page]
        return [each.message for each in lines if not each.system], [each.message for each in lines if each.system]


@pytest.fixture
async def world(
    kubeconfig: Path,
    kubectl: Kubectl,
    sdk_image: str,
    crd: None,  # noqa: ARG001
    tmp_path: Path,
) -> AsyncIterator[World]:
    document = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": {"name": "attempts-a0"}}
    kubectl.apply({**document, "spec": foreign_spec(runName="attempts")})
    uid = kubectl("get", "taskaction", "attempts-a0", "--output=jsonpath={.metadata.uid}")
    async with Client(access.explicit(kubeconfig)) as client:
        made = World(client, kubectl, tmp_path, sdk_image, Resource("attempts-a0", uid))
        tasks = [asyncio.create_task(made.pods.run()), asyncio.create_task(made.recorder.run())]
        async with asyncio.timeout(30):
            await made.pods.synced()
            while True:
                if client.requests["watch", "pods"] and client.requests["watch", "events"]:
                    break
                await asyncio.sleep(0.01)
        yield made
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_success_with_its_times_events_and_log_in_few_requests(world: World) -> None:
    before = Counter(world.client.requests)
    attempt = await world.launched(1, "echo hello; sleep 1; echo bye")
    seen = await world.over(attempt)
    assert (seen.presence, seen.failure) == (Presence.EXITED, None)
    assert seen.exit is not None
    assert seen.exit.code == 0
    assert [each.phase for each in seen.transitions] == [Phase.INITIALIZING, Phase.RUNNING]
    await world.pods.settle(attempt)
    spent = Counter(world.client.requests) - before
    assert spent == {("create", "pods"): 1, ("log", "pods"): 1, ("create", "events"): 1}
    assert {"Scheduled", "Started"} <= {each.reason for each in seen.events}
    assert world.woken[attempt] <= 5
    world.kubectl("delete", "pod", world.name(attempt), "--now")
    assert await world.lines(attempt) == (["hello", "bye"], [])
    assert "runs in pod attempts-a0-0" in world.kubectl("describe", "taskaction", "attempts-a0")


async def test_the_ends_that_a_task_can_bring_about(world: World) -> None:
    failed = await world.launched(11, "echo why >&2; exit 3")
    signalled = await world.launched(12, "exec python -c 'import ctypes; ctypes.string_at(0)'")
    missing = await world.own(13, {"containers": [{"name": "main", "image": world.image, "command": ["no-such"]}]})
    hungry = await world.launched(
        14,
        "exec python -c 'x = bytearray(512 << 20)'",
        resources=launches.resources({"MEMORY": "64Mi"}, {"MEMORY": "64Mi"}),
    )
    slow = await world.own(
        15,
        {
            "activeDeadlineSeconds": 2,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": world.image, "command": ["sleep", "60"]}],
        },
    )
    init = {"name": "prepare", "image": world.image, "command": ["sh", "-c", "echo no route; exit 4"]}
    unprepared = await world.own(
        16, {"initContainers": [init], "containers": [{"name": "main", "image": world.image, "command": ["true"]}]}
    )
    seen = await world.over(failed)
    assert seen.exit is not None
    assert (seen.exit.code, seen.failure) == (3, None)
    seen = await world.over(signalled)
    assert seen.exit is not None
    assert (seen.exit.code, seen.failure) == (-11, None)
    seen = await world.over(missing)
    assert seen.failure is not None
    assert (seen.failure.kind, seen.failure.recoverable) == (ErrorKind.USER, False)
    assert "no-such" in seen.failure.message
    seen = await world.over(hungry)
    assert seen.failure is not None
    assert (seen.failure.kind, seen.failure.code) == (ErrorKind.USER, "OOM")
    assert "64Mi" in seen.failure.message
    seen = await world.over(slow)
    assert seen.exit is not None
    assert seen.exit.reason is StopReason.TIMEOUT
    seen = await world.over(unprepared)
    assert seen.failure is not None
    assert seen.failure.code == "InitContainerFailed"
    for attempt, expected in ((failed, "why"), (unprepared, "no route")):
        await world.pods.settle(attempt)
        assert (await world.lines(attempt))[0] == [expected]


async def test_what_keeps_a_pod_from_starting_is_told_in_the_clusters_words(world: World) -> None:
    large = await world.launched(21, "true", resources=launches.resources({"CPU": "1000"}))
    nowhere = await world.launched(22, "true", image="127.0.0.1:1/no/such:image")
    misnamed = await world.launched(23, "true", image="NO SUCH IMAGE")
    reference = {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}
    unset = await world.own(
        24, {"containers": [{"name": "main", "image": world.image, "env": [{"name": "X", "valueFrom": reference}]}]}
    )
    volume = {"name": "data", "secret": {"secretName": "no-such-volume"}}
    mount = {"name": "data", "mountPath": "/data"}
    unmounted = await world.own(
        25,
        {"volumes": [volume], "containers": [{"name": "main", "image": world.image, "volumeMounts": [mount]}]},
    )
    seen = await world.seen(large, lambda seen: seen.phase is Phase.WAITING_FOR_RESOURCES)
    assert "Insufficient cpu" in seen.reason
    seen = await world.seen(unset, lambda seen: seen.failure)
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.recoverable) == ("CreateContainerConfigError", False)
    assert "no-such-secret" in seen.failure.message
    seen = await world.seen(misnamed, lambda seen: seen.failure)
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.recoverable) == ("InvalidImageName", False)
    seen = await world.seen(nowhere, lambda seen: seen.failure)
    assert seen.failure is not None
    assert (seen.failure.kind, seen.failure.code) == (ErrorKind.USER, "ImagePullBackOff")
    assert "127.0.0.1:1/no/such:image" in seen.failure.message
    seen = await world.seen(unmounted, lambda seen: "no-such-volume" in seen.reason)
    assert (seen.phase, seen.failure) == (Phase.INITIALIZING, None)
    for attempt in (large, nowhere, misnamed, unset, unmounted):
        await world.pods.stop(attempt)
    for attempt in (large, nowhere, misnamed, unset, unmounted):
        assert (await world.over(attempt)).presence in (Presence.VANISHED, Presence.EXITED)


async def test_a_stopped_task_ends_in_peace_and_its_last_words_are_kept(world: World) -> None:
    attempt = await world.launched(31, "trap 'echo good-bye; exit 0' TERM; echo here; while :; do sleep 0.1; done")
    await world.seen(attempt, lambda seen: seen.started_at)
    await asyncio.sleep(0.5)
    before = world.woken[attempt]
    await world.pods.stop(attempt)
    await world.over(attempt)
    assert world.woken[attempt] > before
    await world.gone(attempt)
    await world.pods.settle(attempt)
    assert (await world.lines(attempt))[0] == ["here", "good-bye"]


async def test_a_pod_deleted_by_hand_is_told_as_that(world: World) -> None:
    running = await world.launched(41, "sleep 60")
    await world.seen(running, lambda seen: seen.started_at)
    world.kubectl("delete", "pod", world.name(running), "--grace-period=1", "--wait=false")
    seen = await world.over(running)
    assert seen.failure is not None
    assert (seen.failure.kind, seen.failure.code) == (ErrorKind.SYSTEM, "ResourceDeletedExternally")
    await world.gone(running)
    seen = await world.make().observe(running, begun=True)
    assert seen.presence is Presence.VANISHED


async def test_a_task_beside_a_sidecar_ends_with_the_task_and_settling_ends_the_sidecar(world: World) -> None:
    main = {"name": "main", "image": world.image, "command": ["sh", "-c", "echo done"]}
    side = {"name": "side", "image": world.image, "command": ["sleep", "600"]}
    attempt = await world.own(51, {"terminationGracePeriodSeconds": 1, "containers": [main, side]})
    seen = await world.over(attempt)
    assert (seen.presence, seen.failure) == (Presence.EXITED, None)
    await world.pods.settle(attempt)
    await world.gone(attempt)
    assert (await world.lines(attempt))[0] == ["done"]
    seen = await world.pods.observe(attempt, begun=True)
    assert (seen.presence, seen.failure) == (Presence.EXITED, None)


async def test_a_log_is_followed_line_by_line_from_before_the_start(world: World) -> None:
    attempt = await world.launched(61, "for n in 1 2 3; do echo line $n; sleep 0.5; done; printf 'no end'")
    over = asyncio.Event()

    async def ended() -> bool:
        return over.is_set()

    lines = []
    async with asyncio.timeout(SECONDS):
        async for page in world.pods.tail(attempt, ended=ended):
            lines += [line.message for line in page if not line.system]
            if lines[-1:] == ["no end"]:
                over.set()
    assert lines == ["line 1", "line 2", "line 3", "no end"]
