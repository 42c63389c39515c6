"""Who follows a run over connections that break knows how all of it ended."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.actions.actions_service_connect import ActionsServiceClient
from flyteidl2.actions.actions_service_pb2 import WatchForUpdatesRequest
from flyteidl2.common.identifier_pb2 import ActionIdentifier, ProjectIdentifier, RunIdentifier
from flyteidl2.common.phase_pb2 import ActionPhase
from flyteidl2.workflow.run_service_connect import RunServiceClient
from flyteidl2.workflow.run_service_pb2 import (
    WatchActionDetailsRequest,
    WatchActionsRequest,
    WatchRunDetailsRequest,
    WatchRunsRequest,
)
from flyteidl2.workflow.state_service_connect import StateServiceClient
from flyteidl2.workflow.state_service_pb2 import WatchRequest
from google.protobuf.message import Message

from tests.chaos.cutting import Road, road_to
from tests.chaos.watched_run import SCOPE, abort, action, call, ended, enqueue, start
from tests.managers import Manager, eventually, run_of

pytestmark = pytest.mark.chaos

RUN = RunIdentifier(**SCOPE, name="watched")
ROOT = ActionIdentifier(run=RUN, name="a0")
NAMES_OF_PHASES = {number: name.removeprefix("ACTION_PHASE_") for name, number in ActionPhase.items()}
BROKEN = (Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.INVALID_ARGUMENT)
"""what the client makes of a stream without an end"""

Phases = dict[str, str]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path, {"embedded.cpu": "8"}) as started:
        yield started


async def story(manager: Manager) -> None:
    """A run with tasks that succeed and fail, answered and unanswered questions and traces; then it is aborted."""
    tell = asyncio.to_thread
    for number in range(3):
        for name, argument in ((f"good{number}", "true"), (f"bad{number}", "false")):
            spec = {"taskTemplate": run_of("", argument)["taskSpec"]["taskTemplate"]}  # type: ignore[index]
            await tell(enqueue, manager, name, task={"spec": spec})
        await tell(enqueue, manager, f"trace{number}", trace={"name": "t", "phase": "ACTION_PHASE_SUCCEEDED"})
        await tell(enqueue, manager, f"asked{number}", condition={"name": "asked", "type": {"simple": "BOOLEAN"}})
    answer = {"actionId": action("asked1"), "payload": {"boolValue": True}}
    await tell(call, manager, "workflow.RunService/SignalEvent", answer)
    await tell(eventually, lambda: len(ended(manager)) == 10, what="the end of all that ends by itself")
    await tell(abort, manager)
    await tell(eventually, lambda: len(ended(manager)) == 13, what="the end")


def of_actions(message: Any) -> Phases:
    return {each.action.id.name: NAMES_OF_PHASES[each.action.status.phase] for each in message.enriched_actions}


def of_update(message: Any) -> Phases:
    told = message.action_update
    return {told.action_id.name: NAMES_OF_PHASES[told.phase]} if told.HasField("action_id") else {}


def of_details(message: Any) -> Phases:
    return {message.details.id.name: NAMES_OF_PHASES[message.details.status.phase]}


def of_run_details(message: Any) -> Phases:
    return {"a0": NAMES_OF_PHASES[message.details.action.status.phase]}


def of_runs(message: Any) -> Phases:
    return {each.action.id.name: NAMES_OF_PHASES[each.action.status.phase] for each in message.runs}


@dataclass
class Follower:
    """A client that connects again whenever its stream broke. `tells`: which actions it is told about."""

    open: Callable[[str], AsyncIterator[Message]]
    read: Callable[[Any], Phases]
    tells: Callable[[str], bool]
    seen: Phases = field(default_factory=dict)
    cuts: int = 0
    finished: bool = False

    def missing(self, expected: Phases) -> Phases:
        """What it should have been told and was not."""
        return {name: phase for name, phase in expected.items() if self.tells(name) and self.seen.get(name) != phase}

    async def follow(self, road: Road, *, step: int | None) -> None:
        """Each connection is cut one message (or `step` bytes) later than the one before."""
        while True:
            road.limit = None if step is None else step * (self.cuts + 1)
            try:
                count = 0
                async for message in self.open(road.url):
                    self.seen.update(self.read(message))
                    count += 1
                    if step is None and count == self.cuts + 1:
                        road.cut()
                self.finished = True
                return
            except ConnectError as error:
                if error.code is Code.NOT_FOUND:  # not yet
                    await asyncio.sleep(0.02)
                    continue
                if error.code not in BROKEN:
                    raise
            self.cuts += 1


def followers() -> dict[str, Follower]:
    def only(name: str) -> Callable[[str], bool]:
        return lambda other: other == name

    def details(name: str) -> Follower:
        asked = WatchActionDetailsRequest(action_id=ActionIdentifier(run=RUN, name=name))
        return Follower(lambda url: RunServiceClient(url).watch_action_details(asked), of_details, only(name))

    project = ProjectIdentifier(name="flytesnacks", domain="development")
    return {
        "WatchActions": Follower(
            lambda url: RunServiceClient(url).watch_actions(WatchActionsRequest(run_id=RUN)), of_actions, bool
        ),
        "WatchActionDetails": details("bad2"),
        "WatchActionDetails of a question": details("asked2"),
        "WatchRunDetails": Follower(
            lambda url: RunServiceClient(url).watch_run_details(WatchRunDetailsRequest(run_id=RUN)),
            of_run_details,
            only("a0"),
        ),
        "WatchRuns": Follower(
            lambda url: RunServiceClient(url).watch_runs(WatchRunsRequest(project_id=project)), of_runs, only("a0")
        ),
        "State.Watch": Follower(
            lambda url: StateServiceClient(url).watch(WatchRequest(parent_action_id=ROOT)),
            of_update,
            lambda name: name != "a0",
        ),
        "ActionsService.WatchForUpdates": Follower(
            lambda url: ActionsServiceClient(url).watch_for_updates(WatchForUpdatesRequest(parent_action_id=ROOT)),
            of_update,
            lambda name: name != "a0",
        ),
    }


@pytest.mark.parametrize("step", [None, 150], ids=["at every message", "within messages"])
async def test_a_watcher_that_is_cut_off_again_and_again_sees_every_final_state(
    manager: Manager, step: int | None
) -> None:
    start(manager)
    before = len(os.listdir(f"/proc/{manager.pid}/fd"))
    following = followers()
    async with AsyncExitStack() as stack:
        roads = [await stack.enter_async_context(road_to(manager.ports["api"])) for _ in following]
        tasks = [
            asyncio.create_task(follower.follow(road, step=step))
            for follower, road in zip(following.values(), roads, strict=True)
        ]
        await story(manager)
        expected = ended(manager)
        assert set(expected.values()) == {"SUCCEEDED", "FAILED", "ABORTED"}

        deadline = time.monotonic() + 30
        while missing := {name: each.missing(expected) for name, each in following.items() if each.missing(expected)}:
            assert time.monotonic() < deadline, missing
            assert not [task.exception() for task in tasks if task.done() and task.exception()]
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(follower.cuts or follower.finished for follower in following.values())
    assert sum(follower.cuts for follower in following.values()) > 20
    eventually(lambda: len(os.listdir(f"/proc/{manager.pid}/fd")) <= before + 4, what="the end of cut connections")
    assert "failed, id" not in manager.log
