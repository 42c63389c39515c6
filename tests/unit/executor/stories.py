"""What the stories of actions as TaskActions are told with, over a made-up API server."""

import asyncio
from pathlib import Path
from typing import Any

from flyte_manager.domain.actions import Action
from flyte_manager.domain.ids import ROOT
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import NAMESPACE, Cluster
from tests.fakes.kubelet import PodRun
from tests.fakes.orders import action_id, new_run, new_task
from tests.unit.kubernetes.test_orders import foreign_spec


async def create(made: Cluster, **more: Any) -> Action:
    _, root = await made.call(lambda manager: manager.ledger.create_run(new_run(base=made.base, **more)))
    return root


async def enqueue(made: Cluster, name: str, **more: Any) -> None:
    await made.call(lambda manager: manager.ledger.enqueue(new_task(name, base=made.base, **more)))


async def endless(pod: PodRun) -> int:
    pod.say(f"{pod.action} attempt {pod.attempt.number}")
    await asyncio.Event().wait()
    return 0


def apply(made: Cluster, name: str = "theirs", **spec: Any) -> str:
    """As kubectl does; its uid."""
    base = f"{made.base}/{spec.get('runName') or 'r1'}"
    content = foreign_spec(**{"inputUri": f"{base}/inputs.pb", "runOutputBase": base, **spec})
    document = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": {"name": name}, "spec": content}
    uid: str = made.api.put("taskactions", document, namespace=NAMESPACE)["metadata"]["uid"]
    return uid


def remove(made: Cluster, name: str = "r1-a0", *, plural: str = "taskactions") -> None:
    made.api.delete(plural, name, namespace=NAMESPACE)


async def phases(made: Cluster, name: str = ROOT) -> list[Phase]:
    """In which its attempts ended."""
    history = await made.call(lambda manager: manager.history(action_id(name)))
    return [each.phase for each in history.attempts]


async def no_pods_run(made: Cluster) -> None:
    await made.api.until(lambda: not made.kubelet.running())


async def refused(made: Cluster, name: str = "theirs") -> dict[str, Any]:
    """The status of one that can't be run."""
    await made.api.until(lambda: status_of(made, name).get("phase") == "Failed")
    return status_of(made, name)


def status_of(made: Cluster, name: str) -> dict[str, Any]:
    status: dict[str, Any] = made.api.get("taskactions", name, namespace=NAMESPACE).get("status") or {}
    return status


def said(status: dict[str, Any]) -> tuple[str, str]:
    """Reason and words of the condition that tells of the failure."""
    (failed,) = [each for each in status["conditions"] if each["type"] == "Failed"]
    return failed["reason"], failed["message"]


def kept_log(made: Cluster) -> str:
    log = Path(made.base, "r1/a0/1/task.log")
    return log.read_text() if log.exists() else ""
