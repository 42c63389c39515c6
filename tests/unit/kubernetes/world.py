"""The world of pods over a fake API server, with a kubelet that does what a test says, and ends what is deleted."""

import asyncio
import copy
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.actions import Resource
from flyte_manager.domain.attempts import Observation
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.ports import Launch, LogLine
from flyte_manager.kubernetes import labels
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.pods import PodSettings
from flyte_manager.kubernetes.runtime import Pods
from flyte_manager.kubernetes.verdict import VerdictSettings
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.unit.kubernetes import launches

PATIENCE = 10.0
NAMESPACE = "flyte"
MAIN = "primary"


def attempt_id(name: str = "a0", number: int = 1) -> AttemptId:
    return AttemptId(ActionId(RunId("flytesnacks", "development", "r1"), name), number)


def stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


async def eventually(holds: Callable[[], object | Awaitable[object]]) -> None:
    """Waits until it is; fails after PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.005)


class World:
    def __init__(self, api: FakeKubernetes, client: Client, root: Path, settings: VerdictSettings, log_limit: int):
        self.api = api
        self.client = client
        self.root = root
        self.blobs = Directory(root)
        self.woken: Counter[AttemptId] = Counter()
        self.recorder = Recorder(client, namespace=NAMESPACE, clock=lambda: datetime.now(UTC))
        self.obedient = True
        """deleted pods end"""
        self.settings = settings
        self.log_limit = log_limit
        self.pods = self.make()
        self._running: list[asyncio.Task[None]] = []

    async def start_manager(self) -> None:
        self._running = [asyncio.create_task(work) for work in (self.pods.run(), self.recorder.run())]
        async with asyncio.timeout(PATIENCE):
            await self.pods.synced()

    async def stop_manager(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def restart(self) -> None:
        """Another manager takes over."""
        await self.stop_manager()
        self.pods = self.make()
        await self.start_manager()

    def make(self) -> Pods:
        return Pods(
            client=self.client,
            pod_settings=PodSettings(namespace=NAMESPACE),
            verdict_settings=self.settings,
            blobs=self.blobs,
            wake=self._wake,
            clock=lambda: datetime.now(UTC),
            recorder=self.recorder,
            log_limit=self.log_limit,
        )

    def _wake(self, attempt: AttemptId) -> None:
        self.woken[attempt] += 1

    def name(self, attempt: AttemptId) -> str:
        return f"r1-{attempt.action.name}-{attempt.number - 1}"

    def launch_of(self, name: str = "a0", number: int = 1, **more: Any) -> Launch:
        attempt = attempt_id(name, number)
        resource = Resource(f"r1-{name}", f"uid-of-{name}")
        return launches.launch(attempt=attempt, resource=resource, **more)

    async def launched(self, name: str = "a0", number: int = 1, **more: Any) -> AttemptId:
        launch = self.launch_of(name, number, **more)
        await self.pods.launch(launch)
        return launch.attempt

    async def running(self, name: str = "a0", number: int = 1, **more: Any) -> AttemptId:
        attempt = await self.launched(name, number, **more)
        self.schedule(attempt)
        self.start(attempt)
        await self.seen(attempt, lambda seen: seen.started_at is not None)
        return attempt

    async def ended(
        self, name: str = "a0", number: int = 1, *, code: int = 0, log: bytes = b"", **more: Any
    ) -> AttemptId:
        attempt = await self.running(name, number, **more)
        self.api.logs[self.name(attempt)] = log
        self.end(attempt, code)
        await self.seen(attempt, lambda seen: seen.exit is not None)
        return attempt

    async def seen(
        self, attempt: AttemptId, holds: Callable[[Observation], bool], *, begun: bool = False
    ) -> Observation:
        """What is observed, once that holds of it."""
        last: list[Observation] = []

        async def holds_now() -> bool:
            last[:] = [await self.pods.observe(attempt, begun=begun)]
            return holds(last[0])

        await eventually(holds_now)
        return last[0]

    # What scheduler and kubelet do.

    def document(self, attempt: AttemptId) -> dict[str, Any]:
        return self.api.get("pods", self.name(attempt), namespace=NAMESPACE)

    def exists(self, attempt: AttemptId) -> bool:
        return self.name(attempt) in self.api.names("pods", namespace=NAMESPACE)

    def status(self, attempt: AttemptId, **changes: Any) -> None:
        document = self.document(attempt)
        status = {"phase": "Pending", **document.get("status", {}), **changes}
        self.api.set_pod_status(self.name(attempt), status, namespace=NAMESPACE)

    def schedule(self, attempt: AttemptId) -> None:
        document = self.document(attempt)
        document["spec"]["nodeName"] = "node-1"
        document.setdefault("status", {})["conditions"] = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(datetime.now(UTC))}
        ]
        self.api.put("pods", document, namespace=NAMESPACE)

    def containers(self, attempt: AttemptId, state: dict[str, Any], *, phase: str, **changes: Any) -> None:
        """The primary container is in that state; the others keep theirs, or run."""
        document = self.document(attempt)
        before = {each["name"]: each for each in document.get("status", {}).get("containerStatuses", ())}
        statuses = []
        for container in document["spec"]["containers"]:
            other = before.get(container["name"], {"state": {"running": {"startedAt": stamp(datetime.now(UTC))}}})
            shown = state if container["name"] == MAIN else other["state"]
            statuses.append({"name": container["name"], "state": copy.deepcopy(shown)})
        self.status(attempt, phase=phase, containerStatuses=statuses, **changes)

    def start(self, attempt: AttemptId) -> None:
        self.containers(attempt, {"running": {"startedAt": stamp(datetime.now(UTC))}}, phase="Running")

    def end(self, attempt: AttemptId, code: int = 0, *, phase: str = "", reason: str = "") -> None:
        now = stamp(datetime.now(UTC))
        reason = reason or ("Completed" if code == 0 else "Error")
        ended = {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}
        self.containers(attempt, {"terminated": ended}, phase=phase or ("Failed" if code else "Succeeded"))

    async def obey(self) -> None:
        """Ends pods that were deleted, as a kubelet does; what they wrote is gone with them."""
        while True:
            for document in self.api.objects("pods", namespace=NAMESPACE):
                metadata = document["metadata"]
                if self.obedient and "deletionTimestamp" in metadata:
                    await self._finish(metadata["name"])
            await asyncio.sleep(0.01)

    async def _finish(self, name: str) -> None:
        attempt = next(a for a in self.pods_known() if self.name(a) == name)
        states = [each["state"] for each in self.document(attempt).get("status", {}).get("containerStatuses", ())]
        if not any("terminated" in state for state in states):
            self.end(attempt, 143)
        log = self.api.logs.get(name)
        if isinstance(log, list):
            log.append(None)
        await asyncio.sleep(0.02)
        self.api.finish_deletion(name, namespace=NAMESPACE)
        self.api.logs.pop(name, None)

    def pods_known(self) -> list[AttemptId]:
        found = [
            labels.attempt_of(each["metadata"]["labels"]) for each in self.api.objects("pods", namespace=NAMESPACE)
        ]
        return [each for each in found if each is not None]

    # Logs.

    async def lines(self, attempt: AttemptId, *, ended: bool = True) -> list[LogLine]:
        async def over() -> bool:
            return ended

        async with asyncio.timeout(PATIENCE):
            return [line async for page in self.pods.tail(attempt, ended=over) for line in page]

    async def output(self, attempt: AttemptId) -> list[str]:
        return [line.message for line in await self.lines(attempt) if not line.system]

    async def remarks(self, attempt: AttemptId) -> list[str]:
        return [line.message for line in await self.lines(attempt) if line.system]


@asynccontextmanager
async def world(
    root: Path, *, settings: VerdictSettings | None = None, log_limit: int = 1 << 20
) -> AsyncIterator[World]:
    async with FakeKubernetes() as api, Client(api.access(), qps=0) as client:
        made = World(api, client, root, settings or VerdictSettings(), log_limit)
        kubelet = asyncio.create_task(made.obey())
        try:
            await made.start_manager()
            yield made
        finally:
            await made.stop_manager()
            kubelet.cancel()
            await asyncio.gather(kubelet, return_exceptions=True)
