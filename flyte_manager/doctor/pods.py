"""What a start would open for pods, opened for the checks of cluster.py.

mode embedded ──▶ nothing is asked          a cluster that must be used ──▶ what is wrong with it is bad
a cluster that could be used ──▶ its state is told, no more: tasks run as processes until it has all it needs
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from flyte_manager.choice import ASK_SECONDS, NoStorage, NoTaskEndpoint, choose
from flyte_manager.cluster import helper_image, object_store, open_client
from flyte_manager.config import Settings
from flyte_manager.doctor.cluster import Cluster, examine_cluster
from flyte_manager.doctor.findings import Finding
from flyte_manager.doctor.way_back import WayBack
from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.ports import Clock
from flyte_manager.kubernetes import access as cluster_access
from flyte_manager.kubernetes.access import Access, NoKubernetes
from flyte_manager.kubernetes.api_errors import ApiError
from flyte_manager.kubernetes.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, and from where."""

    environ: Mapping[str, str]
    home: Path
    serving: bool
    """whether a manager runs here now"""
    tell: Callable[[str], None]
    """says how it goes, while it takes long"""
    clock: Clock


@dataclass(frozen=True, slots=True)
class Choice:
    """What a start would choose."""

    finding: Finding
    pods: bool
    """whether tasks run as pods"""
    access: Access | None
    """of the cluster to look at, used or not"""


async def choose_as_a_start(settings: Settings, asking: Asking) -> Choice:
    kubernetes, environ, home = settings.manager.kubernetes, asking.environ, asking.home
    try:
        chosen = await choose(settings, environ, home)
    except NoKubernetes as refusal:
        return Choice(Finding("mode", "bad", str(refusal)), pods=True, access=None)
    except (NoStorage, NoTaskEndpoint):  # the checks tell of them
        access = cluster_access.find(kubernetes.kubeconfig, kubernetes.context, environ, home)
        return Choice(Finding("mode", "ok", f"tasks run as pods: {access.source}"), pods=True, access=access)
    if chosen.access is not None:
        return Choice(Finding("mode", "ok", f"tasks run as pods: {chosen.why}"), pods=True, access=chosen.access)
    finding = Finding("mode", "ok", chosen.why)
    try:
        return Choice(finding, pods=False, access=cluster_access.current(environ, home))
    except NoKubernetes:
        return Choice(finding, pods=False, access=None)


async def examine_pods(settings: Settings, choice: Choice, asking: Asking) -> AsyncIterator[Finding]:
    """All findings, one by one, as the checks run."""
    if choice.access is None:
        return
    kubernetes = settings.manager.kubernetes
    try:
        probe = object_store(settings.storage, asking.clock).probe if settings.storage.url else None
    except Refusal as refusal:
        yield Finding("storage", "bad", str(refusal))
        return
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(open_client(choice.access, kubernetes))
        except Refusal as refusal:
            yield Finding("cluster", "bad" if choice.pods else "warn", str(refusal))
            return
        if not choice.pods and not await _answers(client):
            return
        cluster = Cluster(
            found=choice.access.source,
            client=client,
            namespace=kubernetes.namespace,
            way_back=WayBack(
                endpoint=kubernetes.task_endpoint,
                secure=bool(settings.server.tls.certificate),
                image=await helper_image(kubernetes, client, asking.environ),
                image_pull_secrets=kubernetes.image_pull_secrets,
                serving=asking.serving,
                tell=asking.tell,
            ),
            storage=settings.storage.url,
            probe=probe,
            needed=choice.pods,
        )
        async for finding in examine_cluster(cluster):
            yield finding


async def _answers(client: Client) -> bool:
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await client.version()
    except (ApiError, Refusal, TimeoutError):
        return False
    return True
