"""Many finished TaskActions with their pods, as copies of one: that takes a fifth of the cluster's work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flyte_manager.kubernetes import access, labels
from flyte_manager.kubernetes.api_errors import TRANSIENT, AlreadyExists
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import PODS, TASK_ACTIONS, Resource

AT_ONCE = 16
TRIES = 5
WAIT_SECONDS = 180.0


def until_ended(kubeconfig: Path, namespace: str) -> None:
    """Waits until the status of each child says that it has ended: that waits for its log, which can't be read here."""

    async def wait(client: Client) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not all(map(_has_ended, await _children(client, namespace))):  # noqa: ASYNC110 - the manager's doing
                await asyncio.sleep(1.0)

    _run(kubeconfig, wait)


def copy_finished(kubeconfig: Path, namespace: str, count: int) -> None:
    """To be called while no manager is there, which would stop pods of actions that it has no record of."""

    async def copy(client: Client) -> None:
        action = (await _children(client, namespace))[0]
        pod = await client.get(PODS, action["status"]["podName"], namespace=namespace)
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await _copy(client, action, pod, f"x{number}")

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

    _run(kubeconfig, copy)


def _run(kubeconfig: Path, work: Callable[[Client], Awaitable[None]]) -> None:
    async def connected() -> None:
        found = access.find(str(kubeconfig), "", {}, kubeconfig.parent)
        async with Client(found, qps=0) as client:
            await work(client)

    asyncio.run(connected())


async def _children(client: Client, namespace: str) -> Sequence[Mapping[str, Any]]:
    found = await client.list(TASK_ACTIONS, namespace=namespace)
    return [each for each in found if each["spec"].get("parentActionName")]


def _has_ended(action: Mapping[str, Any]) -> bool:
    return bool((action.get("status") or {}).get("phase") == "Succeeded")


async def _copy(client: Client, action: Mapping[str, Any], pod: Mapping[str, Any], name: str) -> None:
    old = action["metadata"]["name"]
    fresh = f"{old.rpartition('-')[0]}-{name}"
    spec = {**action["spec"], "actionName": name}
    made = await _create(client, TASK_ACTIONS, {**action, "metadata": _like(action, fresh, name), "spec": spec})
    await _ended(client, TASK_ACTIONS, action, fresh)
    (owner,) = pod["metadata"]["ownerReferences"]
    owners = [{**owner, "name": fresh, "uid": made["metadata"]["uid"]}]
    # nobody places it or plays its kubelet: it is over at once
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"} | {"schedulerName": "nobody"}
    body = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
    metadata = {**_like(pod, f"{fresh}-0", name), "ownerReferences": owners}
    await _create(client, PODS, {**body, "metadata": metadata})
    await _ended(client, PODS, pod, f"{fresh}-0")


async def _create(client: Client, resource: Resource, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """As often as it takes: the server may be busy."""
    metadata = document["metadata"]
    for turn in range(TRIES):
        try:
            return await client.create(resource, document, metadata_only=True)
        except AlreadyExists:
            return await client.get(resource, metadata["name"], namespace=metadata["namespace"], metadata_only=True)
        except TRANSIENT:
            await asyncio.sleep(2**turn)
    raise TimeoutError(f"{metadata['name']} can't be created")


async def _ended(client: Client, resource: Resource, like: Mapping[str, Any], name: str) -> None:
    namespace = like["metadata"]["namespace"]
    document = {"status": like["status"]}
    await client.patch(resource, name, document, namespace=namespace, subresource="status", metadata_only=True)


def _like(found: Mapping[str, Any], fresh: str, action: str) -> dict[str, Any]:
    metadata = found["metadata"]
    kept = {key: metadata[key] for key in ("namespace", "annotations", "ownerReferences") if key in metadata}
    return {**kept, "name": fresh, "labels": {**metadata["labels"], labels.ACTION: action}}
