"""Scheduler and kubelet of the made-up API server: each pod is scheduled, started, and ends as its program tells.

created ─▶ scheduled (while there is room) ─▶ running: program ─▶ its exit code │ deleted: 143, and gone
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flyteidl2.core import execution_pb2

from flyte_manager.domain.ids import AttemptId
from flyte_manager.kubernetes.labels import attempt_of
from tests.fakes.kubernetes_api import FakeKubernetes

SIGTERM_CODE = 143


@dataclass(eq=False)
class PodRun:
    """One pod's life, as its program sees it."""

    attempt: AttemptId
    name: str
    uid: str
    args: list[str]
    log: list[Any]
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """it was deleted"""

    @property
    def action(self) -> str:
        return self.attempt.action.name

    @property
    def outputs(self) -> Path:
        return Path(self.args[self.args.index("--outputs-path") + 1])

    def say(self, text: str) -> None:
        self.log.append((datetime.now(UTC), f"{text}\n".encode()))

    def write(self, name: str, content: bytes) -> None:
        """As the task's code does, before it ends."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        (self.outputs / name).write_bytes(content)

    def fail(self, message: str, *, recoverable: bool = True, system: bool = False) -> int:
        """Writes error.pb; the exit code of the SDK's tasks that fail."""
        kind = execution_pb2.ContainerError
        document = execution_pb2.ErrorDocument()
        document.error.code, document.error.message = "ValueError", message
        document.error.kind = kind.RECOVERABLE if recoverable else kind.NON_RECOVERABLE
        document.error.origin = execution_pb2.ExecutionError.SYSTEM if system else execution_pb2.ExecutionError.USER
        self.write("error.pb", document.SerializeToString())
        return 1


Program = Callable[[PodRun], Awaitable[int]]


async def succeed(pod: PodRun) -> int:
    pod.say(f"{pod.action} attempt {pod.attempt.number}")
    return 0


class Kubelet:
    """Runs all pods of the API server. `program` may be changed at any time."""

    def __init__(self, api: FakeKubernetes, program: Program = succeed, *, namespace: str = "flyte") -> None:
        self.program = program
        self.full = ""
        """why no pod can be scheduled; empty: there is room"""
        self.deleted_may_end = asyncio.Event()
        """cleared: pods that were deleted run on"""
        self.deleted_may_end.set()
        self.pods: Counter[AttemptId] = Counter()
        """how many there ever were for each attempt"""
        self.lives: dict[str, PodRun] = {}
        """by uid"""
        self._api = api
        self._namespace = namespace
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Works until it is cancelled."""
        listeners = self._api._objects.listeners
        listeners.add(self._changed)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    self._look(group)
                    await self._changed.wait()
        finally:
            listeners.discard(self._changed)

    def make_room(self) -> None:
        self.full = ""
        self._changed.set()

    def running(self) -> list[str]:
        """Names of pods that have not ended."""
        found = self._api._objects.of("pods", self._namespace)
        return [each["metadata"]["name"] for each in found if not _ended(each)]

    def _look(self, group: asyncio.TaskGroup) -> None:
        found = {each["metadata"]["uid"]: each for each in self._api._objects.of("pods", self._namespace)}
        for uid, life in self.lives.items():
            if uid not in found:
                life.stopped.set()
        for uid, document in found.items():
            metadata = document["metadata"]
            if uid in self.lives:
                if "deletionTimestamp" in metadata:
                    self.lives[uid].stopped.set()
                continue
            if self.full and "deletionTimestamp" not in metadata:
                self._refuse(document)
                continue
            attempt = attempt_of(metadata["labels"])
            assert attempt is not None, f"nobody's pod: {metadata['name']}"
            self.pods[attempt] += 1
            args = document["spec"]["containers"][0].get("args") or []
            log = self._api.logs[metadata["name"]] = []
            self.lives[uid] = PodRun(attempt, metadata["name"], uid, args, log)
            if "deletionTimestamp" in metadata:
                self._api.finish_deletion(metadata["name"], namespace=self._namespace)
            else:
                group.create_task(self._live(self.lives[uid]), name=metadata["name"])

    def _refuse(self, document: dict[str, Any]) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": self.full}
        if (document.get("status") or {}).get("conditions") != [condition]:
            status = {"phase": "Pending", "conditions": [condition]}
            self._api.set_pod_status(document["metadata"]["name"], status, namespace=self._namespace)

    async def _live(self, life: PodRun) -> None:
        self._start(life)
        program = asyncio.create_task(self._run(life), name=f"program of {life.name}")
        stopped = asyncio.create_task(life.stopped.wait())
        try:
            await asyncio.wait([program, stopped], return_when=asyncio.FIRST_COMPLETED)
            code = program.result() if program.done() else SIGTERM_CODE
        finally:
            program.cancel()
            stopped.cancel()
            await asyncio.wait([program, stopped])
        if life.stopped.is_set():
            await self.deleted_may_end.wait()
        life.log.append(None)
        document = self._document(life)
        if document is None:
            return
        self._end(life, code)
        if "deletionTimestamp" in document["metadata"]:
            self._api.finish_deletion(life.name, namespace=self._namespace)

    async def _run(self, life: PodRun) -> int:
        return await self.program(life)

    def _document(self, life: PodRun) -> dict[str, Any] | None:
        """The pod, unless it is gone, or another one has its name."""
        found = self._api.objects("pods", namespace=self._namespace)
        return next((each for each in found if each["metadata"]["uid"] == life.uid), None)

    def _start(self, life: PodRun) -> None:
        document = self._document(life)
        if document is None:
            return
        now = _stamp()
        document["spec"]["nodeName"] = "node-1"
        document["status"] = {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now}],
            "containerStatuses": [
                {"name": each["name"], "state": {"running": {"startedAt": now}}}
                for each in document["spec"]["containers"]
            ],
        }
        self._api.put("pods", document, namespace=self._namespace)

    def _end(self, life: PodRun, code: int) -> None:
        document = self._document(life)
        assert document is not None
        status = document["status"]
        status["phase"] = "Failed" if code else "Succeeded"
        for each in status["containerStatuses"]:
            started = each["state"]["running"]["startedAt"]
            reason = "Error" if code else "Completed"
            ended = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": _stamp()}
            each["state"] = {"terminated": ended}
        self._api.set_pod_status(life.name, status, namespace=self._namespace)


def _ended(pod: dict[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
