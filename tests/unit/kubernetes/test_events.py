"""Events of pods in memory, and events of TaskActions on their way to the cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from flyte_manager.domain.actions import Resource
from flyte_manager.domain.attempts import Event
from flyte_manager.kubernetes import events
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.events import PodEvent, PodEvents, Recorder, event_document, pod_event
from tests.fakes.clock import NOW, FakeClock
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.unit.kubernetes.statuses import at, time

RESOURCE = Resource("r1-a0", "cr-1")


def document(reason: str = "BackOff", message: str = "Back-off pulling image", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "r1-a0-0.17", "creationTimestamp": at(3)},
        "involvedObject": {"kind": "Pod", "name": "r1-a0-0", "uid": "uid-1"},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "firstTimestamp": at(1),
        "lastTimestamp": at(2),
        "count": 1,
        **more,
    }


def told(number: int, *, warning: bool = False, uid: str = "uid-1") -> PodEvent:
    return PodEvent(uid, Event(NOW + timedelta(seconds=number), f"message {number}", "Reason", warning))


def test_an_event_is_read_with_its_first_time() -> None:
    expected = Event(time(1), "Back-off pulling image", "BackOff", warning=True)
    assert pod_event(document()) == PodEvent("uid-1", expected)
    later = document(count=7, lastTimestamp=at(300))
    assert pod_event(later) == PodEvent("uid-1", expected)


def test_the_schedulers_events_have_their_time_elsewhere() -> None:
    found = pod_event(document(firstTimestamp=None, eventTime="2026-11-23T09:00:01.500000Z", type="Normal"))
    assert found is not None
    assert found.event.at == time(1.5)
    assert not found.event.warning
    bare = pod_event(document(firstTimestamp=None, eventTime=None))
    assert bare is not None
    assert bare.event.at == time(3)


def test_what_tells_of_no_pod_or_has_no_time_is_left_out() -> None:
    assert pod_event(document(involvedObject={"kind": "Node", "uid": "n"})) is None
    assert pod_event(document(involvedObject={"kind": "Pod"})) is None
    assert pod_event(document(firstTimestamp=None, metadata={})) is None


def test_an_event_that_is_told_again_is_one_event_and_wakes_once() -> None:
    woken: list[str] = []
    kept = PodEvents(woken.append)
    for count in range(5):
        found = pod_event(document(count=count, lastTimestamp=at(count)))
        assert found is not None
        kept.tell(found)
    assert len(kept.of("uid-1")) == 1
    assert woken == ["uid-1"]


def test_only_warnings_wake() -> None:
    woken: list[str] = []
    kept = PodEvents(woken.append)
    kept.tell(told(1))
    assert woken == []
    kept.tell(told(2, warning=True))
    assert woken == ["uid-1"]


def test_events_are_given_in_the_order_of_their_times_and_the_last_warning_by_itself() -> None:
    kept = PodEvents(lambda _: None)
    assert kept.last_warning("uid-1") == ""
    for number, warning in ((3, False), (1, True), (2, True)):
        kept.tell(told(number, warning=warning))
    kept.tell(told(9, warning=True, uid="uid-2"))
    assert [event.message for event in kept.of("uid-1")] == ["message 1", "message 2", "message 3"]
    assert kept.last_warning("uid-1") == "message 2"


def test_what_is_kept_is_bounded() -> None:
    kept = PodEvents(lambda _: None)
    for number in range(200):
        kept.tell(told(number))
    assert [event.message for event in kept.of("uid-1")][-1] == "message 199"
    assert len(kept.of("uid-1")) == events.EVENTS_KEPT
    for pod in range(events.PODS_KEPT + 10):
        kept.tell(told(1, uid=f"pod-{pod}"))
    assert kept.of("uid-1") == ()
    assert kept.of("pod-5") == ()
    assert len(kept.of("pod-10")) == 1


def test_the_same_words_about_the_same_object_have_the_same_name() -> None:
    def name(resource: Resource = RESOURCE, message: str = "it failed", reason: str = "AttemptFailed") -> str:
        made = event_document(
            resource,
            namespace="flyte",
            reason=reason,
            message=message,
            warning=True,
            at=NOW + timedelta(seconds=len(reason)),
        )
        return str(made["metadata"]["name"])

    assert name() == name()
    assert len({name(), name(message="other"), name(reason="Other"), name(Resource("r1-a0", "cr-2"))}) == 4


def test_an_event_of_a_taskaction_is_one_that_kubernetes_takes() -> None:
    made = event_document(RESOURCE, namespace="flyte", reason="AttemptFailed", message="x" * 3000, warning=True, at=NOW)
    assert len(made["message"]) == 1024
    assert made["type"] == "Warning"
    assert made["involvedObject"] == {
        "apiVersion": "flyte.org/v1",
        "kind": "TaskAction",
        "namespace": "flyte",
        "name": "r1-a0",
        "uid": "cr-1",
    }
    assert made["firstTimestamp"] == "2026-11-23T09:00:00Z"
    assert made["metadata"]["namespace"] == "flyte"


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as made:
        yield made


@asynccontextmanager
async def recording(api: FakeKubernetes) -> AsyncIterator[Recorder]:
    async with Client(api.access(), qps=0) as client:
        recorder = Recorder(client, namespace="flyte", clock=FakeClock())
        task = asyncio.create_task(recorder.run())
        yield recorder
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def messages(api: FakeKubernetes) -> list[str]:
    return sorted(each["message"] for each in api.objects("events", namespace="flyte"))


async def test_what_is_told_is_written_once_also_by_the_next_manager(api: FakeKubernetes) -> None:
    for _ in range(2):
        async with recording(api) as recorder:
            recorder.tell(RESOURCE, "PodCreated", "one")
            recorder.tell(RESOURCE, "PodCreated", "one")
            recorder.tell(RESOURCE, "AttemptFailed", "two", warning=True)
            await api.until(lambda: messages(api) == ["one", "two"])
            await asyncio.sleep(0.02)
    assert api.counts["create", "events"] == 4


async def test_an_event_that_is_refused_hinders_no_other(api: FakeKubernetes, caplog: pytest.LogCaptureFixture) -> None:
    api.fail("create", "events", status=403, reason="Forbidden", message="events is forbidden")
    async with recording(api) as recorder:
        recorder.tell(RESOURCE, "A", "lost")
        recorder.tell(RESOURCE, "B", "kept")
        await api.until(lambda: messages(api) == ["kept"])
    assert "events is forbidden" in caplog.text


async def test_telling_never_waits_and_what_has_no_room_is_counted(
    api: FakeKubernetes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WAITING", 20)
    async with recording(api) as recorder:
        for number in range(30):
            recorder.tell(RESOURCE, "A", f"message {number}")
        await api.until(lambda: len(messages(api)) == 20)
        recorder.tell(RESOURCE, "A", "message 29")
        await api.until(lambda: "message 29" in messages(api))
    assert "10 events were dropped" in caplog.text
