"""What every implementation of ports.Runtime and ports.Logs does. A new one is added to `WORLDS`."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from flyte_manager.domain.attempts import Observation, Presence
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Launch, LaunchRefused, Logs, Runtime
from flyte_manager.processes.runtime import Processes
from tests.fakes.runtime import FakeRuntime
from tests.unit.kubernetes import world as pods
from tests.unit.processes import world as processes

PATIENCE = 20.0


def attempt_id(number: int = 1, name: str = "a0") -> AttemptId:
    return AttemptId(ActionId(RunId("flytesnacks", "development", "r1"), name), number)


class World(Protocol):
    """A runtime, and what happens in its world without it."""

    runtime: Runtime
    logs: Logs | None
    woken: Counter[AttemptId]

    def launch_of(self, attempt: AttemptId) -> Launch:
        """Of an attempt that says hello and runs till it is let go."""

    def impossible(self) -> Launch:
        """One that the world refuses."""

    async def came_up(self, attempt: AttemptId) -> None:
        """The world does its part, so that a launched attempt runs."""

    def let_go(self, attempt: AttemptId, code: int) -> None:
        """The attempt ends by itself."""

    def lose(self, attempt: AttemptId) -> None:
        """It is gone without a word."""

    async def restart(self) -> None:
        """Another manager takes over."""


class Fakes:
    def __init__(self) -> None:
        self.woken: Counter[AttemptId] = Counter()
        self._fake = FakeRuntime(clock=lambda: datetime.now(UTC), wake=self._wake)
        self.runtime: Runtime = self._fake
        self.logs: Logs | None = None

    def _wake(self, attempt: AttemptId) -> None:
        self.woken[attempt] += 1

    def launch_of(self, attempt: AttemptId) -> Launch:
        return Launch(attempt=attempt, args=["a0"], env={})

    def impossible(self) -> Launch:
        self._fake.refusal = "no such thing"
        return self.launch_of(attempt_id())

    async def came_up(self, attempt: AttemptId) -> None:
        """It came up when it was launched."""

    def let_go(self, attempt: AttemptId, code: int) -> None:
        self._fake.finish(attempt, code)

    def lose(self, attempt: AttemptId) -> None:
        self._fake.vanish(attempt)

    async def restart(self) -> None:
        """Its memory is the world."""


@asynccontextmanager
async def fakes(_: Path) -> AsyncIterator[World]:
    yield Fakes()


class ProcessWorld:
    def __init__(self, made: processes.World, folder: Path) -> None:
        self.woken: Counter[AttemptId] = Counter()
        self._made = made
        self._folder = folder
        self._others: list[Processes] = []
        self.runtime: Runtime = made.processes
        self.logs: Logs | None = made.processes
        made.processes._wake = self._wake

    def _wake(self, attempt: AttemptId) -> None:
        self.woken[attempt] += 1

    def _signal(self, attempt: AttemptId) -> Path:
        return self._folder / f"{attempt.action.name}-{attempt.number}"

    def launch_of(self, attempt: AttemptId) -> Launch:
        file = self._signal(attempt)
        script = f"echo hello; while [ ! -e {file} ]; do sleep 0.02; done; echo bye; exit $(cat {file})"
        return Launch(attempt=attempt, args=["sh", "-c", script], env={})

    def impossible(self) -> Launch:
        return Launch(attempt=attempt_id(), args=["no-such-program"], env={})

    async def came_up(self, attempt: AttemptId) -> None:
        """It came up when it was launched."""

    def let_go(self, attempt: AttemptId, code: int) -> None:
        part = self._signal(attempt).with_suffix(".part")
        part.write_text(str(code))
        part.rename(self._signal(attempt))

    def lose(self, attempt: AttemptId) -> None:
        os.kill(self._made.shepherd(attempt), signal.SIGKILL)

    async def restart(self) -> None:
        await self._made.processes.stop_serving()
        again = processes.World(
            self._made.root,
            warm=False,
            python=processes.PYTHON,
            base_env=self._made.processes._base_env,
            grace=0.5,
            limit=1 << 20,
        ).processes
        again._wake = self._wake
        await again.start()
        self._others.append(again)
        self.runtime = self.logs = again

    async def close(self) -> None:
        for other in self._others:
            await other.stop_serving()


@asynccontextmanager
async def process_world(folder: Path) -> AsyncIterator[World]:
    async with processes.world(folder / "attempts") as made:
        opened = ProcessWorld(made, folder)
        yield opened
        await opened.close()


class PodWorld:
    def __init__(self, made: pods.World) -> None:
        self._made = made
        self.woken = made.woken
        self.runtime: Runtime = made.pods
        self.logs: Logs | None = made.pods

    def launch_of(self, attempt: AttemptId) -> Launch:
        return self._made.launch_of(attempt.action.name, attempt.number)

    def impossible(self) -> Launch:
        self._made.api.fail("create", "pods", status=422, reason="Invalid", message="Pod is invalid: spec: Required")
        return self.launch_of(attempt_id())

    async def came_up(self, attempt: AttemptId) -> None:
        self._made.api.logs[self._made.name(attempt)] = [(datetime.now(UTC), b"hello\n")]
        self._made.schedule(attempt)
        self._made.start(attempt)

    def let_go(self, attempt: AttemptId, code: int) -> None:
        log = self._made.api.logs[self._made.name(attempt)]
        assert isinstance(log, list)
        log += [(datetime.now(UTC), b"bye\n"), None]
        self._made.end(attempt, code)

    def lose(self, attempt: AttemptId) -> None:
        self._made.api.delete("pods", self._made.name(attempt), namespace=pods.NAMESPACE)

    async def restart(self) -> None:
        await self._made.restart()
        self.runtime = self.logs = self._made.pods


@asynccontextmanager
async def pod_world(folder: Path) -> AsyncIterator[World]:
    async with pods.world(folder) as made:
        yield PodWorld(made)


WORLDS: dict[str, Callable[[Path], AbstractAsyncContextManager[World]]] = {
    "fake": fakes,
    "processes": process_world,
    "pods": pod_world,
}


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with WORLDS[request.param](tmp_path) as made:
        yield made


@pytest.fixture(params=[name for name in WORLDS if name != "fake"])
async def logging_world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with WORLDS[request.param](tmp_path) as made:
        yield made


async def running(world: World, attempt: AttemptId | None = None) -> AttemptId:
    attempt = attempt or attempt_id()
    await world.runtime.launch(world.launch_of(attempt))
    await world.came_up(attempt)
    await seen(world, attempt, lambda found: found.started_at is not None)
    return attempt


async def seen(world: World, attempt: AttemptId, holds: Callable[[Observation], bool]) -> Observation:
    """What is observed, once that holds of it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await world.runtime.observe(attempt, begun=True)
            if holds(found):
                return found
            await asyncio.sleep(0.01)


def is_over(found: Observation) -> bool:
    return found.presence is not Presence.ALIVE


async def woken(world: World, attempt: AttemptId, before: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if world.woken[attempt] > before:
                return
            await asyncio.sleep(0.005)


async def test_of_an_attempt_that_was_never_launched_nothing_is_known_and_nothing_fails(world: World) -> None:
    attempt = attempt_id()
    assert await world.runtime.observe(attempt) == Observation(Presence.ABSENT)
    await world.runtime.settle(attempt)
    await world.runtime.forget(attempt, b"")
    assert await world.runtime.observe(attempt) == Observation(Presence.ABSENT)


async def test_stopping_what_was_never_launched_is_no_error_and_leaves_nothing_alive(world: World) -> None:
    for _ in range(2):
        await world.runtime.stop(attempt_id())
    assert (await world.runtime.observe(attempt_id())).presence is not Presence.ALIVE


async def test_a_launched_attempt_is_alive_at_once(world: World) -> None:
    attempt = attempt_id()
    await world.runtime.launch(world.launch_of(attempt))
    found = await world.runtime.observe(attempt)
    assert found.presence is Presence.ALIVE
    assert found.failure is None


async def test_a_running_attempt_tells_its_start_whoever_asks(world: World) -> None:
    attempt = await running(world)
    for begun in (False, True):
        found = await world.runtime.observe(attempt, begun=begun)
        assert (found.presence, found.phase) == (Presence.ALIVE, Phase.RUNNING)
        assert found.started_at is not None
        assert abs((datetime.now(UTC) - found.started_at).total_seconds()) < 60


async def test_launching_again_starts_nothing(world: World) -> None:
    attempt = await running(world)
    started = (await world.runtime.observe(attempt)).started_at
    await world.runtime.launch(world.launch_of(attempt))
    assert (await world.runtime.observe(attempt)).started_at == started
    world.let_go(attempt, 3)
    await seen(world, attempt, is_over)
    await world.runtime.launch(world.launch_of(attempt))
    found = await world.runtime.observe(attempt)
    assert found.presence is Presence.EXITED
    assert found.exit is not None
    assert found.exit.code == 3


async def test_launches_at_the_same_time_make_one_attempt(world: World) -> None:
    attempt = attempt_id()
    launch = world.launch_of(attempt)

    async def insist() -> None:
        while True:
            try:
                return await world.runtime.launch(launch)
            except Unavailable:
                await asyncio.sleep(0.01)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(insist() for _ in range(10)))
    await world.came_up(attempt)
    await seen(world, attempt, lambda found: found.started_at is not None)
    world.let_go(attempt, 0)
    found = await seen(world, attempt, is_over)
    assert found.presence is Presence.EXITED


async def test_what_can_never_start_is_refused_with_a_reason(world: World) -> None:
    launch = world.impossible()
    with pytest.raises(LaunchRefused, match=r".{10}"):
        await world.runtime.launch(launch)
    assert (await world.runtime.observe(launch.attempt)).presence is Presence.ABSENT


@pytest.mark.parametrize("code", [0, 3])
async def test_an_end_wakes_and_is_told_with_code_and_times(world: World, code: int) -> None:
    attempt = await running(world)
    before = world.woken[attempt]
    world.let_go(attempt, code)
    await woken(world, attempt, before)
    found = await seen(world, attempt, is_over)
    assert (found.presence, found.failure) == (Presence.EXITED, None)
    assert found.exit is not None
    assert (found.exit.code, found.exit.reason) == (code, None)
    assert found.exit.started_at <= found.exit.ended_at
    assert abs((datetime.now(UTC) - found.exit.ended_at).total_seconds()) < 60


async def test_a_stop_ends_a_running_attempt_and_wakes(world: World) -> None:
    attempt = await running(world)
    before = world.woken[attempt]
    await world.runtime.stop(attempt)
    await world.runtime.stop(attempt)
    await woken(world, attempt, before)
    found = await seen(world, attempt, is_over)
    assert found.presence in (Presence.EXITED, Presence.VANISHED)
    assert found.exit is None or found.exit.code != 0
    await world.runtime.stop(attempt)
    assert is_over(await world.runtime.observe(attempt, begun=True))


async def test_a_stop_after_the_end_changes_nothing(world: World) -> None:
    attempt = await running(world)
    world.let_go(attempt, 0)
    before = await seen(world, attempt, is_over)
    await world.runtime.stop(attempt)
    found = await world.runtime.observe(attempt)
    assert (found.presence, found.exit) == (before.presence, before.exit)


async def test_settling_and_forgetting_may_be_repeated_and_change_nothing_that_is_observed(world: World) -> None:
    attempt = await running(world)
    await world.runtime.settle(attempt)
    assert (await world.runtime.observe(attempt)).presence is Presence.ALIVE
    world.let_go(attempt, 3)
    before = await seen(world, attempt, is_over)
    for _ in range(2):
        await world.runtime.settle(attempt)
        await world.runtime.forget(attempt, b"")
        assert await world.runtime.observe(attempt, begun=True) == before


async def test_an_attempt_that_is_gone_without_a_word_vanished_and_wakes(world: World) -> None:
    attempt = await running(world)
    before = world.woken[attempt]
    world.lose(attempt)
    await woken(world, attempt, before)
    found = await seen(world, attempt, is_over)
    assert found.presence is Presence.VANISHED


async def test_attempts_of_one_action_do_not_touch_each_other(world: World) -> None:
    first, second = await running(world), await running(world, attempt_id(2))
    world.let_go(first, 1)
    await seen(world, first, is_over)
    await world.runtime.settle(first)
    assert (await world.runtime.observe(second)).presence is Presence.ALIVE
    await world.runtime.stop(second)
    await seen(world, second, is_over)
    found = await world.runtime.observe(first)
    assert found.exit is not None
    assert found.exit.code == 1


async def test_the_next_manager_knows_what_this_one_knew(world: World) -> None:
    ended, lives = await running(world), await running(world, attempt_id(2))
    world.let_go(ended, 3)
    before = await seen(world, ended, is_over)
    started = (await world.runtime.observe(lives)).started_at
    await world.restart()
    assert (await world.runtime.observe(ended)).exit == before.exit
    found = await world.runtime.observe(lives)
    assert (found.presence, found.started_at) == (Presence.ALIVE, started)
    await world.runtime.launch(world.launch_of(lives))
    woken_before = world.woken[lives]
    world.let_go(lives, 4)
    await woken(world, lives, woken_before)
    found = await seen(world, lives, is_over)
    assert found.exit is not None
    assert found.exit.code == 4


async def output(world: World, attempt: AttemptId, ended: Callable[[], Awaitable[bool]]) -> list[str]:
    assert world.logs is not None
    pages = world.logs.tail(attempt, ended=ended)
    return [line.message for page in [page async for page in pages] for line in page if not line.system]


async def test_a_reader_follows_the_log_to_its_end(logging_world: World) -> None:
    attempt, over = await running(logging_world), asyncio.Event()

    async def ended() -> bool:
        return over.is_set()

    async with asyncio.timeout(PATIENCE):
        reader = asyncio.create_task(output(logging_world, attempt, ended))
        await asyncio.sleep(0.3)
        assert not reader.done()
        logging_world.let_go(attempt, 0)
        await seen(logging_world, attempt, is_over)
        over.set()
        assert await reader == ["hello", "bye"]


async def test_a_settled_log_is_told_again_and_again_also_by_the_next_manager(logging_world: World) -> None:
    async def ended() -> bool:
        return True

    attempt = await running(logging_world)
    logging_world.let_go(attempt, 1)
    await seen(logging_world, attempt, is_over)
    await logging_world.runtime.settle(attempt)
    for _ in range(2):
        async with asyncio.timeout(PATIENCE):
            assert await output(logging_world, attempt, ended) == ["hello", "bye"]
        await logging_world.restart()
