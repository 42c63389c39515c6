"""Which world it is (DESIGN.md §3), and why: a sentence for the banner.

manager.mode embedded ──▶ processes
a kubeconfig or context is configured, in a pod, or mode kubernetes ──▶ pods, or a refusal with the cure
auto, and the current kubeconfig's cluster answers ──▶ pods when it has our kind of resource and data have a place
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyte_manager.config import Settings
from flyte_manager.domain.errors import Unavailable, Unready
from flyte_manager.kubernetes import access as cluster_access
from flyte_manager.kubernetes.access import Access, NoKubernetes
from flyte_manager.kubernetes.client import ApiError, Client, NotFound
from flyte_manager.kubernetes.crd import INSTALL, NAME
from flyte_manager.kubernetes.resources import CRDS
from flyte_manager.worlds import in_pod

LOGIN_SECONDS = 5.0
ASK_SECONDS = 0.5
"""how long a cluster that nobody named may take to answer"""


class NoStorage(Unready):
    """tasks run as pods ({why}), and pods need an object store for their data: set storage.url to s3://bucket/prefix,
    gs://… or abfss://…, or set manager.mode: embedded to run tasks as processes of this machine."""


class NoTaskEndpoint(Unready):
    """tasks run as pods ({why}), and pods must find this manager: set manager.kubernetes.taskEndpoint to the host:port
    by which they reach its API, or set manager.mode: embedded to run tasks as processes of this machine."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`access` is None for processes."""

    access: Access | None
    why: str


async def choose(settings: Settings, environ: Mapping[str, str], home: Path) -> Choice:
    """Raises NoKubernetes, NoStorage or NoTaskEndpoint when it must be pods and can't."""
    kubernetes = settings.manager.kubernetes
    named = kubernetes.kubeconfig or kubernetes.context
    if named or in_pod(environ) or settings.manager.mode == "kubernetes":
        access = cluster_access.find(kubernetes.kubeconfig, kubernetes.context, environ, home)
        if not settings.storage.url:
            raise NoStorage(why=access.source)
        if not kubernetes.task_endpoint:
            raise NoTaskEndpoint(why=access.source)
        return Choice(access, access.source)
    try:
        access = cluster_access.current(environ, home)
    except NoKubernetes as trouble:
        return Choice(None, f"tasks run as processes of this machine ({trouble})")
    missing = await _missing(settings, access)
    if missing:
        return Choice(None, f"tasks run as processes of this machine; {missing}")
    return Choice(access, access.source)


async def _missing(settings: Settings, access: Access) -> str:
    """What keeps the current cluster from being used, with the cure; empty: nothing."""
    try:
        async with asyncio.timeout(LOGIN_SECONDS):  # a plugin may have to ask a cloud
            await access.credentials.header()
        async with asyncio.timeout(ASK_SECONDS), Client(access) as client:
            await client.get(CRDS, NAME, metadata_only=True)
    except NotFound:
        wants = [f"`{INSTALL}`"]
    except (ApiError, Unavailable, NoKubernetes, TimeoutError):
        return f"the cluster of {access.source} does not answer"
    else:
        wants = []
    if not settings.storage.url:
        wants.append("set storage.url")
    if not settings.manager.kubernetes.task_endpoint:
        wants.append("set manager.kubernetes.taskEndpoint")
    return f"the cluster of {access.source} answers; to use it: {', '.join(wants)}" if wants else ""
