"""Whether pods reach the manager: a pod that calls it, and is deleted when it has answered.

made ─▶ seen once a second, its state is told every few seconds ─▶ answered | can't start | too late ─▶ deleted
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from flyte_manager.doctor.findings import Finding
from flyte_manager.domain.errors import Refusal
from flyte_manager.kubernetes import call_back
from flyte_manager.kubernetes.api_errors import ApiError, NotFound
from flyte_manager.kubernetes.call_back import DEADLINE_SECONDS, Judgement
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import PODS

LOOK_SECONDS = 1.0
TELL_LOOKS = 5
NAME = "way back"


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    endpoint: str
    """host:port that tasks will be given; empty when none is configured"""
    secure: bool = False
    """whether by https"""
    image: str
    """manager.kubernetes.helperImage"""
    image_pull_secrets: Sequence[str]
    serving: bool
    """whether a manager runs here now"""
    tell: Callable[[str], None]
    """says how it goes, while it takes long"""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def check_way_back(client: Client, namespace: str, way: WayBack) -> Finding:
    if not way.endpoint:
        cure = "set manager.kubernetes.taskEndpoint to host:port at which pods reach this manager"
        return Finding(NAME, "bad", f"pods don't know where the manager is: {cure}")
    if not way.image:
        cure = "set manager.kubernetes.helperImage to this manager's image (deploy/Dockerfile)"
        return Finding(NAME, "warn", f"whether pods reach {way.endpoint} was not tried, for want of an image: {cure}")
    judged, left = await _call(client, namespace, way)
    if judged.verdict == "ok":
        finding = Finding(NAME, "ok", judged.text)
    elif judged.verdict == "refused" and not way.serving:
        text = f"{judged.text}: no manager runs here now; start it, then ask again from another terminal"
        finding = Finding(NAME, "warn", text)
    elif judged.verdict == "refused":
        cure = "give manager.kubernetes.taskEndpoint this manager's address and port, and let it listen there"
        finding = Finding(NAME, "bad", f"{judged.text}, but a manager runs here: {cure} (manager.runsService.host)")
    else:
        finding = Finding(NAME, "bad", judged.text)
    return replace(finding, text=f"{finding.text}; {left}") if left else finding


async def _call(client: Client, namespace: str, way: WayBack) -> tuple[Judgement, str]:
    """What came of it, and what is left of the pod."""
    pod = call_back.pod(
        f"{'https' if way.secure else 'http'}://{way.endpoint}/healthz",
        image=way.image,
        image_pull_secrets=way.image_pull_secrets,
    )
    name = pod["metadata"]["name"]
    left = ""
    try:
        try:
            await client.create(PODS, pod, namespace=namespace)
            judged = await _judged(client, namespace, name, way)
        finally:  # also when the user interrupts
            left = await _delete(client, namespace, name)
    except (ApiError, Refusal) as error:
        cure = "`kubectl get events` may tell more"
        judged = Judgement("failed", f"the pod that should call {way.endpoint} could not be run: {error}: {cure}")
    return judged, left


async def _judged(client: Client, namespace: str, name: str, way: WayBack) -> Judgement:
    seen = Judgement("waiting", "it is made")
    for look in range(int(DEADLINE_SECONDS / LOOK_SECONDS)):
        seen = call_back.judge(await client.get(PODS, name, namespace=namespace), way.endpoint)
        if seen.verdict != "waiting":
            return seen
        if look % TELL_LOOKS == TELL_LOOKS - 1:
            way.tell(f"waiting for the pod {name}: {seen.text}")
        await way.sleep(LOOK_SECONDS)
    text = f"the pod that should call {way.endpoint} did not run within {DEADLINE_SECONDS} s: {seen.text}"
    return Judgement("failed", f"{text}: make room for it, then ask again")


async def _delete(client: Client, namespace: str, name: str) -> str:
    """Empty when nothing is left."""
    try:
        await client.delete(PODS, name, namespace=namespace, grace_seconds=0)
    except NotFound:
        return ""
    except (ApiError, Refusal) as error:
        return f"the pod is still there ({error}): `kubectl delete pod -n {namespace} {name}`"
    return ""
