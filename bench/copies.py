"""Many finished TaskActions with their pods, as copies of one: that takes a fifth of the cluster's work."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flyte_manager.kubernetes import access, labels
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import PODS, TASK_ACTIONS

AT_ONCE = 16
WAIT_SECONDS = 120.0


def copy_finished(kubeconfig: Path, namespace: str, count: int) -> None:
    """Waits until what runs has ended, but for the parents; returns when all copies' pods have, too."""
    asyncio.run(_copy_all(kubeconfig, namespace, count))


async def _copy_all(kubeconfig: Path, namespace: str, count: int) -> None:
    found = access.find(str(kubeconfig), "", {}, kubeconfig.parent)
    async with Client(found, qps=0) as client:
        action = (await _children_ended(client, namespace))[0]
        pod = await client.get(PODS, action["status"]["podName"], namespace=namespace)
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await _copy(client, action, pod, f"x{number}")

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        async with asyncio.timeout(WAIT_SECONDS):
            while await _copies_left(client, namespace):  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(1.0)


async def _children_ended(client: Client, namespace: str) -> Sequence[Mapping[str, Any]]:
    """All children, once the status of each says so; it waits for the log, which can't be read here."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            found = await client.list(TASK_ACTIONS, namespace=namespace)
            children = [each for each in found if each["spec"].get("parentActionName")]
            if all((each.get("status") or {}).get("phase") == "Succeeded" for each in children):
                return children
            await asyncio.sleep(1.0)


async def _copies_left(client: Client, namespace: str) -> bool:
    """Whether pods of copies still run."""
    fields = "status.phase!=Succeeded,status.phase!=Failed"
    left = await client.list(PODS, namespace=namespace, fields=fields, metadata_only=True)
    return any(each["metadata"]["labels"][labels.ACTION].startswith("x") for each in left)


async def _copy(client: Client, action: Mapping[str, Any], pod: Mapping[str, Any], name: str) -> None:
    old = action["metadata"]["name"]
    fresh = f"{old.rpartition('-')[0]}-{name}"
    spec = {**action["spec"], "actionName": name}
    made = await client.create(TASK_ACTIONS, {**action, "metadata": _like(action, fresh, name), "spec": spec})
    document = {"status": action["status"]}
    namespace = action["metadata"]["namespace"]
    await client.patch(TASK_ACTIONS, fresh, document, namespace=namespace, subresource="status", metadata_only=True)
    (owner,) = pod["metadata"]["ownerReferences"]
    owners = [{**owner, "name": fresh, "uid": made["metadata"]["uid"]}]
    body = {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]}
    metadata = {**_like(pod, f"{fresh}-0", name), "ownerReferences": owners}
    await client.create(PODS, {**body, "metadata": metadata}, metadata_only=True)


def _like(found: Mapping[str, Any], fresh: str, action: str) -> dict[str, Any]:
    metadata = found["metadata"]
    kept = {key: metadata[key] for key in ("namespace", "annotations", "ownerReferences") if key in metadata}
    return {**kept, "name": fresh, "labels": {**metadata["labels"], labels.ACTION: action}}
