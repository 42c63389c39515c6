"""Kubernetes events, both ways: those of pods are read, those of TaskActions are written.

Read: each event of a pod is kept for a while, and given out with what is seen of its attempt. One that is told again
(its count grows) is the same event. A warning wakes the attempt, because the kubelet often says there, and nowhere
else, why a pod does not start.

Written: by a task of its own, from a queue that drops what it has no room for, because nobody waits for an event. Its
name follows from what it says, so that saying it again, after a restart too, makes no second one.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from flyte_manager.domain.actions import Resource
from flyte_manager.domain.attempts import Event
from flyte_manager.domain.ports import Clock
from flyte_manager.kubernetes.api_errors import TRANSIENT, AlreadyExists, ApiError
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.pod_status import moment
from flyte_manager.kubernetes.resources import EVENTS

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 1024
COMPONENT = "flyte-manager"
PODS_KEPT = 10_000
EVENTS_KEPT = 32
WAITING = 1000
_NAMES_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class PodEvent:
    """An event of a pod, in short."""

    pod_uid: str
    event: Event


def pod_event(document: Mapping[str, Any]) -> PodEvent | None:
    """None for what tells of no pod."""
    involved = document.get("involvedObject") or {}
    if involved.get("kind") != "Pod" or not involved.get("uid"):
        return None
    first = document.get("firstTimestamp") or document.get("eventTime")
    at = moment(first) or moment((document.get("metadata") or {}).get("creationTimestamp"))
    if at is None:
        return None
    event = Event(
        at=at.astimezone(UTC),
        message=_short(document.get("message") or ""),
        reason=document.get("reason") or "",
        warning=document.get("type") == "Warning",
    )
    return PodEvent(involved["uid"], event)


class PodEvents:
    """The newest events of pods, by the pods' uids. `warned` is called with the uid when a new warning came."""

    def __init__(self, warned: Callable[[str], None]) -> None:
        self._warned = warned
        self._events: OrderedDict[str, OrderedDict[tuple[str, str], Event]] = OrderedDict()

    def tell(self, told: PodEvent) -> None:
        of_pod = self._events.setdefault(told.pod_uid, OrderedDict())
        self._events.move_to_end(told.pod_uid)
        key = (told.event.reason, told.event.message)
        known = of_pod.get(key)
        if known is not None and known.at <= told.event.at:
            return
        of_pod[key] = told.event
        if len(of_pod) > EVENTS_KEPT:
            of_pod.popitem(last=False)
        if len(self._events) > PODS_KEPT:
            self._events.popitem(last=False)
        if told.event.warning and known is None:
            self._warned(told.pod_uid)

    def of(self, pod_uid: str) -> tuple[Event, ...]:
        """In the order of their times."""
        return tuple(sorted(self._events.get(pod_uid, {}).values(), key=lambda event: event.at))

    def last_warning(self, pod_uid: str) -> str:
        """Its message; empty when there was none."""
        warnings = [event.message for event in self.of(pod_uid) if event.warning]
        return warnings[-1] if warnings else ""


def event_document(
    resource: Resource, *, namespace: str, reason: str, message: str, warning: bool, at: datetime
) -> dict[str, Any]:
    """A core/v1 Event of a TaskAction."""
    digest = hashlib.sha256("\0".join((resource.uid, reason, message)).encode(errors="replace")).hexdigest()
    stamp = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{resource.name[:230]}.{digest[:16]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": "flyte.org/v1",
            "kind": "TaskAction",
            "namespace": namespace,
            "name": resource.name,
            "uid": resource.uid,
        },
        "reason": reason,
        "message": _short(message),
        "type": "Warning" if warning else "Normal",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }


def _short(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 1]}…"


class Recorder:
    """Writes events of TaskActions, one after the other. `tell` never waits."""

    def __init__(self, client: Client, *, namespace: str, clock: Clock) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING)
        self._told: OrderedDict[str, None] = OrderedDict()
        self._dropped = 0

    def tell(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        document = event_document(
            resource, namespace=self._namespace, reason=reason, message=message, warning=warning, at=self._clock()
        )
        name = document["metadata"]["name"]
        if name in self._told:
            return
        try:
            self._waiting.put_nowait(document)
        except asyncio.QueueFull:
            self._dropped += 1
            return
        self._told[name] = None
        if len(self._told) > _NAMES_KEPT:
            self._told.popitem(last=False)

    async def run(self) -> NoReturn:
        """Works until it is cancelled."""
        while True:
            document = await self._waiting.get()
            try:
                await self._client.create(EVENTS, document)
            except AlreadyExists:
                pass
            except (ApiError, *TRANSIENT) as error:
                log.warning("event %s is not written: %s", document["metadata"]["name"], error)
            if self._dropped:
                log.warning("%d events were dropped: the cluster takes them too slowly", self._dropped)
                self._dropped = 0
