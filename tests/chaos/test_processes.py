"""Manager, zygote, shepherds and tasks are killed in the middle of their work; no attempt is lost or run twice."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_manager.domain.attempts import Presence, StopReason
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import AttemptId
from flyte_manager.processes import forker, linux
from tests.unit.processes.world import World, attempt_id, eventually, is_alive, launch_of, world

pytestmark = pytest.mark.chaos


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "attempts") as made:
        yield made


def zygote_of(made: World) -> int:
    pid = made.processes.zygote_pid
    assert pid
    return pid


async def insist(made: World, name: str, script: str) -> AttemptId:
    """Launches as the executor does: again while the world can't."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await made.shell(name, script)
            except Unavailable:
                await asyncio.sleep(0.02)


async def count_output(made: World, attempt: AttemptId, count: int) -> bool:
    return len(await made.output(attempt)) >= count


async def test_without_its_shepherd_an_attempt_ends_with_all_its_processes(cold: World) -> None:
    attempt = await cold.shell("a0", "setsid sh -c 'echo $$; sleep 61' & (echo $$; sleep 62) & sleep 63")
    await eventually(lambda: count_output(cold, attempt, 2))
    shepherd = cold.shepherd(attempt)
    (task,) = linux.children(shepherd)
    below = linux.descendants(task)
    os.kill(shepherd, signal.SIGKILL)
    seen = await cold.end(attempt)
    assert seen.presence is Presence.VANISHED
    assert seen.exit
    assert "left word" in seen.exit.detail
    await eventually(lambda: not any(is_alive(pid) for pid in (task, *below)))
    assert await cold.processes.observe(attempt) == seen
    await cold.shell("a0", "echo again")
    assert "again" not in await cold.output(attempt)


async def test_tasks_go_on_without_their_zygote_and_the_next_one_takes_over(cold: World) -> None:
    attempt = await cold.shell("a0", "echo begun; sleep 1; echo ended; exit 7")
    old = zygote_of(cold)
    os.kill(old, signal.SIGKILL)
    other = await insist(cold, "a1", "echo next")
    assert zygote_of(cold) != old
    await cold.end(other)
    seen = await cold.end(attempt)
    assert seen.exit
    assert seen.exit.code == 7
    assert await cold.output(attempt) == ["begun", "ended"]


async def test_a_zygote_that_hangs_is_replaced(cold: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forker, "ANSWER_SECONDS", 0.5)
    old = zygote_of(cold)
    os.kill(old, signal.SIGSTOP)
    await cold.end(await insist(cold, "a0", "true"))
    # on a busy machine its successor may be too slow for this short limit as well: then there is none for a moment
    await eventually(lambda: cold.processes.zygote_pid not in (None, old))


async def test_a_warm_zygote_comes_back_warm(tmp_path: Path) -> None:
    async with world(tmp_path / "attempts", warm=True) as made:
        old = zygote_of(made)
        os.kill(old, signal.SIGKILL)
        await made.end(await insist(made, "a0", "true"))
        assert made.processes.warm_status == "warm"
        assert zygote_of(made) != old


async def test_without_zygote_and_shepherd_the_rest_is_swept_and_the_attempt_vanished(cold: World) -> None:
    attempt = await cold.shell("a0", "setsid sh -c 'echo $$; sleep 61' & sleep 62")
    await eventually(lambda: count_output(cold, attempt, 1))
    (daemon,) = map(int, await cold.output(attempt))
    shepherd = cold.shepherd(attempt)
    os.kill(zygote_of(cold), signal.SIGKILL)
    os.kill(shepherd, signal.SIGKILL)
    seen = await cold.end(attempt)
    assert seen.presence is Presence.VANISHED
    await eventually(lambda: not is_alive(daemon))


async def test_another_manager_adopts_what_runs_and_is_woken_at_its_end(tmp_path: Path) -> None:
    async with world(tmp_path / "attempts") as first:
        attempt = await first.shell("a0", "echo begun; sleep 1; echo ended")
        stopped = await first.shell("a1", "sleep 60")
        await first.processes.stop_serving()
        async with world(tmp_path / "attempts") as second:
            assert await second.processes.alive() == [attempt, stopped]
            assert (await second.processes.observe(attempt)).presence is Presence.ALIVE
            assert (await second.processes.observe(stopped)).presence is Presence.ALIVE
            await second.processes.stop(stopped)
            assert (await second.end(attempt)).exit
            seen = await second.end(stopped)
            assert seen.exit
            assert seen.exit.reason is StopReason.ABORTED
            assert await second.output(attempt) == ["begun", "ended"]


MANAGER = """
import asyncio, sys
from pathlib import Path
from tests.unit.processes.world import world

async def main():
    async with world(Path(sys.argv[1])) as made:
        await made.shell("a0", "echo begun; sleep 1; echo ended; exit 7")
        print(made.processes.zygote_pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_manager_leaves_no_zygote_and_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "attempts"
    top = str(Path(__file__).parents[2])
    manager = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MANAGER, str(root), stdout=asyncio.subprocess.PIPE, cwd=top
    )
    assert manager.stdout
    zygote = int(await manager.stdout.readline())
    manager.kill()
    await manager.wait()
    await eventually(lambda: not is_alive(zygote))
    async with world(root) as made:
        assert (await made.processes.observe(attempt_id())).presence is Presence.ALIVE
        seen = await made.end(attempt_id())
        assert seen.exit
        assert seen.exit.code == 7
        assert await made.output(attempt_id()) == ["begun", "ended"]


async def test_a_killed_task_is_recorded_with_its_signal(cold: World) -> None:
    attempt = await cold.shell("a0", "echo up; sleep 60")
    await eventually(lambda: count_output(cold, attempt, 1))
    (task,) = linux.children(cold.shepherd(attempt))
    os.kill(task, signal.SIGKILL)
    seen = await cold.end(attempt)
    assert seen.exit
    assert (seen.presence, seen.exit.code, seen.exit.reason) == (Presence.EXITED, -9, None)


async def test_under_random_kills_every_attempt_starts_at_most_once_and_its_end_is_known(
    cold: World, tmp_path: Path
) -> None:
    dice = random.Random(7)
    starts = tmp_path / "starts"

    async def live(name: str) -> Presence:
        seconds = 30 if name == hunted[0] else 0.1
        launch = launch_of(name, "sh", "-c", f"echo {name} >> {starts}; sleep {seconds}")
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(Unavailable):
                    await cold.processes.launch(launch)
                    await cold.woken(launch.attempt)
                seen = await cold.processes.observe(launch.attempt)
                if seen.presence in (Presence.EXITED, Presence.VANISHED):
                    return seen.presence
                await asyncio.sleep(0.02)

    hunted: list[str] = []

    async def kill() -> None:
        while True:
            await asyncio.sleep(dice.uniform(0.02, 0.1))
            victim = cold.processes.zygote_pid if dice.random() < 0.1 else some_shepherd()
            if victim:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)

    def some_shepherd() -> int | None:
        for name in dice.sample(hunted, len(hunted)):
            with contextlib.suppress(AssertionError, FileNotFoundError):
                shepherd = cold.shepherd(attempt_id(name))
                if linux.birth(shepherd):
                    return shepherd
        return None

    killer = asyncio.create_task(kill())
    presences = []
    for batch in range(6):
        names = [f"a{batch}{n}" for n in range(6)]
        hunted[:] = names[:3]
        presences += await asyncio.gather(*(live(name) for name in names))
    killer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await killer
    ran = starts.read_text().split()
    assert len(ran) == len(set(ran))
    assert set(presences) == {Presence.EXITED, Presence.VANISHED}
