"""The object store's keys for task pods, as a Secret of the manager's own making: pods name it, and hold no value."""

import base64
from collections.abc import Mapping

from flyte_manager.kubernetes.client import AlreadyExists, Client, NotFound
from flyte_manager.kubernetes.resources import SECRETS

NAME = "flyte-manager-storage"


async def keys_of(client: Client, name: str, *, namespace: str) -> frozenset[str]:
    """Of a Secret that others make; none when it is not there."""
    try:
        found = await client.get(SECRETS, name, namespace=namespace)
    except NotFound:
        return frozenset()
    return frozenset(found.get("data") or ())


async def keep_keys(client: Client, values: Mapping[str, str], *, namespace: str) -> str:
    """Makes or renews the Secret with these keys; its name."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    document = {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.kind,
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "flyte-manager"},
        },
        "type": "Opaque",
        "data": data,
    }
    try:
        await client.create(SECRETS, document, metadata_only=True)
    except AlreadyExists:
        await client.patch(SECRETS, NAME, {"data": data}, namespace=namespace, metadata_only=True)
    return NAME
