"""The checks of a cluster and of the object storage. What they make there they delete again."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flyte_manager.doctor.findings import Finding
from flyte_manager.doctor.way_back import WayBack, check_way_back
from flyte_manager.domain.errors import Refusal
from flyte_manager.kubernetes import crd, reviews
from flyte_manager.kubernetes.api_errors import ApiError, Forbidden, NotFound
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.permissions import all_permissions
from flyte_manager.kubernetes.resources import CRDS, NAMESPACES


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the doctor asks of a cluster."""

    found: str
    """which one, and how it was found"""
    client: Client
    namespace: str
    way_back: WayBack
    storage: str
    """its URL; empty when none is configured"""
    probe: Callable[[], Awaitable[None]] | None
    """writes, reads and deletes an object; raises a Refusal. None when no storage is configured"""
    needed: bool
    """whether tasks will run there; else what is bad only tells why they won't"""


async def examine_cluster(cluster: Cluster) -> AsyncIterator[Finding]:
    """All findings, one by one, as the checks run."""
    async for finding in _examine(cluster):
        yield finding if cluster.needed or finding.state != "bad" else replace(finding, state="warn")


async def _examine(cluster: Cluster) -> AsyncIterator[Finding]:
    answers = await check_answers(cluster.client, cluster.found)
    yield answers
    if answers.state == "ok":
        there = await check_namespace(cluster.client, cluster.namespace)
        yield there
        yield await check_crd(cluster.client)
        found = await check_permissions(cluster.client, cluster.namespace)
        for finding in found:
            yield finding
        if all(each.state == "ok" for each in (there, *found)):
            yield await check_way_back(cluster.client, cluster.namespace, cluster.way_back)
    yield await check_storage(cluster.storage, cluster.probe)


async def check_answers(client: Client, found: str) -> Finding:
    """Whether the API server answers, to these credentials."""
    try:
        version = await client.version()
    except (ApiError, Refusal) as error:
        cure = "choose another by manager.kubernetes.kubeconfig or context, or mend its credentials"
        return Finding("cluster", "bad", f"{found}: {error}: {cure}")
    return Finding("cluster", "ok", f"{found}, Kubernetes {version}")


async def check_namespace(client: Client, namespace: str) -> Finding:
    try:
        await client.get(NAMESPACES, namespace)
    except NotFound:
        cure = f"`kubectl create namespace {namespace}`, or set manager.kubernetes.namespace"
        return Finding("namespace", "bad", f"{namespace} does not exist: {cure}")
    except Forbidden:
        return Finding("namespace", "ok", f"{namespace}; the manager may not look at it, and needs not to")
    except (ApiError, Refusal) as error:
        return Finding("namespace", "bad", f"{namespace}: {error}: try again")
    return Finding("namespace", "ok", f"{namespace} is there")


async def check_crd(client: Client) -> Finding:
    """Whether the cluster knows TaskActions, as this version of the manager does."""
    try:
        found = await client.get(CRDS, crd.NAME)
    except NotFound:
        return Finding("TaskAction", "bad", f"the cluster does not know {crd.NAME}: `{crd.INSTALL}`")
    except Forbidden:
        return Finding("TaskAction", "warn", f"whether the cluster knows {crd.NAME} may not be looked at: see below")
    except (ApiError, Refusal) as error:
        return Finding("TaskAction", "bad", f"{error}: try again")
    if not covers(found["spec"], crd.definition()["spec"]):
        return Finding("TaskAction", "bad", f"{crd.NAME} is another version than this manager's: `{crd.INSTALL}`")
    return Finding("TaskAction", "ok", f"{crd.NAME} is there, as this manager knows it")


def covers(found: object, ours: object) -> bool:
    """Whether all of ours is in what was found, which may have more: the API server fills in defaults."""
    if isinstance(ours, Mapping):
        return isinstance(found, Mapping) and all(name in found and covers(found[name], ours[name]) for name in ours)
    if isinstance(ours, list):
        return isinstance(found, list) and len(found) == len(ours) and all(map(covers, found, ours))
    return found == ours


async def check_permissions(client: Client, namespace: str) -> Sequence[Finding]:
    """Asks the API server for each of them. What is missing is shown as the rules to add."""
    try:
        problems = await reviews.problems(client, namespace)
    except (ApiError, Refusal) as error:
        return [Finding("permissions", "bad", f"what the manager may do can't be asked: {error}: try again")]
    findings = [Finding("permissions", "bad", problem) for problem in problems]
    return findings or [Finding("permissions", "ok", f"all {len(all_permissions())} are there")]


async def check_storage(url: str, probe: Callable[[], Awaitable[None]] | None) -> Finding:
    if probe is None:
        return Finding("storage", "bad", "no object storage is configured, and pods share no disk: set storage.url")
    try:
        await probe()
    except Refusal as refusal:
        return Finding("storage", "bad", str(refusal))
    return Finding("storage", "ok", f"{url}: an object was written, read and deleted")
