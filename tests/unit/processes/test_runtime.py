"""Attempts as processes: started once, observed, stopped, limited, cleaned up."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flyte_manager.domain.attempts import Presence, StopReason
from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.processes import folder as disk
from flyte_manager.processes import linux, temporary
from flyte_manager.processes.runtime import NotStarted
from tests.unit.processes.world import World, attempt_id, eventually, is_alive, launch_of, world


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "attempts") as made:
        yield made


async def test_a_command_runs_and_its_end_is_told(cold: World) -> None:
    before = datetime.now(UTC)
    attempt = await cold.shell("a0", "echo hello; exit 3")
    seen = await cold.end(attempt)
    assert seen.presence is Presence.EXITED
    assert seen.exit
    assert (seen.exit.code, seen.exit.reason) == (3, None)
    assert before <= seen.exit.started_at <= seen.exit.ended_at <= datetime.now(UTC)
    assert seen.started_at == seen.exit.started_at
    assert seen.exit.usage.peak_memory > 0
    assert await cold.output(attempt) == ["hello"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo one >&2; echo '  two ' >&2; echo out; exit 3", "two"),
        ("printf 'no end of line' >&2; exit 3", "no end of line"),
        ("printf '\\377 broken\\n' >&2; kill -9 $$", "\N{REPLACEMENT CHARACTER} broken"),
        ("yes x | head -c 1000 | tr -d '\\n' >&2; exit 3", "x" * 300),
        ("echo words >&2; echo '[flyte] WARNING Flyte runtime completed' >&2; exit 3", "words"),
        ("echo well >&2; exit 0", ""),
        ("exit 3", ""),
    ],
)
async def test_the_last_words_of_a_process_that_died_are_told(cold: World, script: str, words: str) -> None:
    seen = await cold.end(await cold.shell("a0", script))
    assert seen.exit
    assert seen.exit.detail == words


async def test_the_wake_up_comes_after_the_record(cold: World) -> None:
    attempts = [await cold.shell(f"a{n}", "true") for n in range(10)]
    for attempt in attempts:
        await cold.woken(attempt)
    assert all(cold.presence_at_wake[attempt] for attempt in attempts)


async def test_what_was_never_launched_is_absent(cold: World) -> None:
    assert (await cold.processes.observe(attempt_id())).presence is Presence.ABSENT


async def test_a_running_attempt_is_alive_with_its_start(cold: World) -> None:
    attempt = await cold.shell("a0", "sleep 60")
    seen = await cold.processes.observe(attempt)
    assert seen.presence is Presence.ALIVE
    assert seen.started_at
    assert await cold.processes.alive() == [attempt]


async def test_an_attempt_that_removes_its_folder_is_not_started_again(cold: World, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/starts; rm -r {cold.folder(attempt_id())}; while [ ! -e {tmp_path}/go ]; do :; done"
    attempt = await cold.shell("a0", script)
    await eventually(lambda: not cold.folder(attempt).exists())
    seen = await cold.processes.observe(attempt, begun=True)
    assert seen.presence is Presence.ALIVE
    (tmp_path / "go").touch()
    await cold.woken(attempt)
    seen = await cold.processes.observe(attempt, begun=True)
    assert seen.presence is Presence.VANISHED
    assert seen.exit
    assert "was removed" in seen.exit.detail
    assert (tmp_path / "starts").read_text() == "x\n"


async def test_an_attempt_that_removes_its_folder_can_be_stopped(cold: World) -> None:
    attempt = await cold.shell("a0", f"rm -r {cold.folder(attempt_id())}; sleep 60")
    await eventually(lambda: not cold.folder(attempt).exists())
    await cold.processes.stop(attempt)
    await cold.woken(attempt)


@pytest.mark.parametrize("by_another", [False, True])
async def test_an_attempt_that_froze_its_shepherd_can_be_stopped(cold: World, tmp_path: Path, by_another: bool) -> None:
    attempt = await cold.shell("a0", "kill -STOP $PPID; sleep 60")
    frozen = Path(f"/proc/{cold.shepherd(attempt)}/stat")
    await eventually(lambda: frozen.read_text().rsplit(")", 1)[1].split()[0] == "T")
    async with world(tmp_path / "attempts") as other:
        await (other if by_another else cold).processes.stop(attempt)
        await cold.woken(attempt)
    assert (await cold.processes.observe(attempt)).presence is Presence.EXITED


async def test_a_new_manager_ends_what_lives_of_an_attempt_without_a_folder(cold: World, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; rm -r {cold.folder(attempt_id())}; exec env -i sleep 60"
    attempt = await cold.shell("a0", script)
    await eventually(lambda: not cold.folder(attempt).exists())
    async with world(tmp_path / "attempts") as other:
        assert (await other.processes.observe(attempt, begun=True)).presence is Presence.VANISHED
    await eventually(lambda: not is_alive(int((tmp_path / "pid").read_text())))


async def test_the_end_is_told_of_an_attempt_whose_shepherds_pid_is_another_process_now(cold: World) -> None:
    attempt = attempt_id()
    cold.folder(attempt).mkdir(parents=True)
    lock = disk.open_lock(str(cold.folder(attempt)))
    disk.write_mark(lock, disk.Mark(os.getpid(), linux.birth(os.getpid()) + 1, 0.0))
    os.close(lock)
    await cold.shell("a0", "true")
    assert (await cold.end(attempt)).presence is Presence.VANISHED


WITHOUT_FORKS = """
import os, sys
from flyte_manager.processes import folder, shepherd
def fails():
    raise BlockingIOError("no process is left")
os.fork = fails
shepherd.Shepherd(folder.Order(sys.argv[1], ["true"], {}, program="/bin/true"), None).start()
"""


def test_an_attempt_whose_fork_failed_may_be_started_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_FORKS, str(tmp_path)]
    assert "no process is left" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert (tmp_path / disk.LOCK).read_bytes() == b""


@pytest.mark.parametrize("zygote", [True, False], ids=["beside the zygote", "without the zygote"])
async def test_a_task_dies_with_its_shepherd(cold: World, tmp_path: Path, zygote: bool) -> None:
    attempt = await cold.shell(
        "a0", f"echo $$ > {tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; exec sleep 60"
    )
    await eventually((tmp_path / "pid").exists)
    if not zygote:
        await cold.processes.stop_serving()
    os.kill(cold.shepherd(attempt), signal.SIGKILL)
    await eventually(lambda: not is_alive(int((tmp_path / "pid").read_text())))  # nobody has looked at it


async def test_a_second_launch_starts_nothing(cold: World, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/starts; sleep 0.2"
    attempt = await cold.shell("a0", script)
    await cold.shell("a0", script)
    await cold.end(attempt)
    await cold.shell("a0", script)
    assert (tmp_path / "starts").read_text() == "x\n"


async def test_simultaneous_launches_by_two_managers_start_the_attempt_once(cold: World, tmp_path: Path) -> None:
    launch = launch_of("a0", "sh", "-c", f"echo x >> {tmp_path}/starts; sleep 0.2")

    async def insist(made: World) -> None:
        while True:
            try:
                return await made.processes.launch(launch)
            except NotStarted:
                await asyncio.sleep(0.01)

    async with world(tmp_path / "attempts") as other:
        await asyncio.gather(*(insist(made) for made in (cold, other) * 10))
        await cold.end(launch.attempt)
        await other.end(launch.attempt)
    assert (tmp_path / "starts").read_text() == "x\n"


async def test_a_folder_locked_by_somebody_else_means_try_again(cold: World) -> None:
    folder = cold.folder(attempt_id())
    folder.mkdir(parents=True)
    lock = disk.open_lock(str(folder))
    try:
        assert linux.lock(lock)
        with pytest.raises(NotStarted, match="locked"):
            await cold.shell("a0", "true")
    finally:
        os.close(lock)
    await cold.end(await cold.shell("a0", "true"))


async def test_stop_asks_all_processes_politely(cold: World, tmp_path: Path) -> None:
    attempt = await cold.shell(
        "a0",
        "trap 'wait; echo bye; exit 5' TERM;"
        f"(trap 'touch {tmp_path}/child; exit' TERM; echo up; sleep 60 & wait) & wait",
    )
    await eventually(lambda: _said(cold, attempt, "up"))
    await cold.processes.stop(attempt)
    seen = await cold.end(attempt)
    assert seen.exit
    assert (seen.exit.code, seen.exit.reason) == (5, StopReason.ABORTED)
    assert "bye" in await cold.output(attempt)
    assert "ABORTED" in await cold.remarks(attempt)
    assert (tmp_path / "child").exists()


async def test_after_the_grace_period_the_whole_tree_is_killed(cold: World) -> None:
    attempt = await cold.shell("a0", "trap '' TERM; setsid sh -c 'echo $$; sleep 61' & echo $$; sleep 62; sleep 63")
    await eventually(lambda: _lines(cold, attempt, 2))
    await cold.processes.stop(attempt)
    await cold.processes.stop(attempt)
    seen = await cold.end(attempt)
    assert seen.exit
    assert (seen.exit.code, seen.exit.reason) == (-signal.SIGKILL, StopReason.ABORTED)
    assert not any(is_alive(int(pid)) for pid in await cold.output(attempt))


async def test_an_attempt_stopped_before_its_launch_never_starts(cold: World, tmp_path: Path) -> None:
    await cold.processes.stop(attempt_id())
    seen = await cold.end(attempt_id())
    assert seen.exit
    assert seen.exit.reason is StopReason.ABORTED
    await cold.shell("a0", f"touch {tmp_path}/started")
    await cold.processes.stop(attempt_id())
    assert (await cold.processes.observe(attempt_id())).exit == seen.exit
    assert not (tmp_path / "started").exists()


async def test_leftovers_are_killed_daemons_too(cold: World) -> None:
    attempt = await cold.shell("a0", "setsid sh -c 'echo $$; exec sleep 60' & (sleep 61 & echo $!) ; sleep 0.2")
    seen = await cold.end(attempt)
    assert seen.exit
    assert seen.exit.code == 0
    pids = await cold.output(attempt)
    assert len(pids) == 2
    assert not any(is_alive(int(pid)) for pid in pids)
    assert "2 processes that outlived the task were killed" in await cold.remarks(attempt)


async def test_a_task_above_its_memory_limit_is_killed(cold: World) -> None:
    hungry = "python -c 'import time; x = bytes(1) * (300 << 20); x = x.replace(bytes(1), b\"x\"); time.sleep(60)'"
    attempt = await cold.shell("a0", f"{hungry}; sleep 60", memory_limit=150 << 20)
    seen = await cold.end(attempt)
    assert seen.exit
    assert (seen.exit.code, seen.exit.reason) == (-signal.SIGKILL, StopReason.OUT_OF_MEMORY)
    assert "its limit is 150 MiB" in seen.exit.detail
    assert seen.exit.usage.peak_memory > 150 << 20


async def test_a_task_above_its_time_limit_is_stopped(cold: World) -> None:
    attempt = await cold.shell("a0", "sleep 60", run_seconds=0.3)
    seen = await cold.end(attempt)
    assert seen.exit
    assert (seen.exit.code, seen.exit.reason) == (-signal.SIGTERM, StopReason.TIMEOUT)
    assert "its limit of 0.3 s" in seen.exit.detail
    assert (seen.exit.ended_at - seen.exit.started_at).total_seconds() < 10


async def test_cpu_time_of_the_whole_tree_is_counted(cold: World) -> None:
    burn = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    attempt = await cold.shell("a0", 'python -c "$BURN"; python -c "$BURN"', env={"BURN": burn})
    seen = await cold.end(attempt)
    assert seen.exit
    assert seen.exit.usage.cpu_seconds > 0.4


async def test_secrets_are_files_for_this_user_only_and_go_with_the_attempt(cold: World) -> None:
    show = "cd $FLYTE_SECRETS_DEFAULT_DIR && cat group/key plain && stat -c %a . group group/key"
    attempt = await cold.shell("a0", show, secret_files={"group/key": b"s3cret\n", "plain": b"p\n"})
    await cold.end(attempt)
    assert await cold.output(attempt) == ["s3cret", "p", "700", "700", "600"]
    assert not (cold.folder(attempt) / disk.SECRETS).exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
async def test_a_secret_outside_its_folder_is_refused(cold: World, name: str) -> None:
    with pytest.raises(LaunchRefused, match="secret"):
        await cold.shell("a0", "true", secret_files={name: b""})


async def test_a_command_that_is_not_there_is_refused(cold: World) -> None:
    with pytest.raises(LaunchRefused, match="no-such-command"):
        await cold.start("a0", "no-such-command")
    with pytest.raises(LaunchRefused, match="no command"):
        await cold.start("a0")
    assert (await cold.processes.observe(attempt_id())).presence is Presence.ABSENT


async def test_a_program_that_the_kernel_refuses_ends_with_a_code_and_a_remark(cold: World, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    stale.write_text("#!/no/such/interpreter\n")
    stale.chmod(0o755)
    odd = tmp_path / "odd"
    odd.write_bytes(b"\x7fELF nonsense")
    odd.chmod(0o755)
    for name, program, code in (("a0", stale, 127), ("a1", odd, 126)):
        attempt = await cold.start(name, str(program))
        seen = await cold.end(attempt)
        assert seen.exit
        assert seen.exit.code == code
        assert f"{program} could not be started" in await cold.remarks(attempt)


async def test_the_environment_is_the_base_and_the_attempts_own(tmp_path: Path) -> None:
    base = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "A": "base", "B": "base", "TMPDIR": "/nowhere"}
    async with world(tmp_path / "attempts", base_env=base) as made:
        attempt = await made.shell("a0", "env; pwd; ls -a", env={"A": "own"})
        await made.end(attempt)
        output = await made.output(attempt)
        folder = made.folder(attempt)
        place = temporary.place(str(folder))
    told = dict(line.split("=", 1) for line in output if "=" in line)
    assert (told["A"], told["B"]) == ("own", "base")
    assert "PYTHONDONTWRITEBYTECODE" not in told
    assert told["TMPDIR"] == place
    assert told[disk.MARKER] == str(folder)
    assert told["PATH"].endswith(":/usr/bin:/bin")
    assert "HOME" not in told
    assert output[-3:] == [str(folder / "work"), ".", ".."]


async def test_sockets_of_multiprocessing_fit_into_a_deep_folder(tmp_path: Path) -> None:
    serve = "import multiprocessing as m; l = m.Manager().list([1]); print(len(l))"
    async with world(tmp_path / ("deep" * 20) / "attempts") as made:
        attempt = await made.start("a0", "python", "-c", serve)
        seen = await made.end(attempt)
        assert await made.output(attempt) == ["1"]
        assert seen.exit
        assert seen.exit.code == 0
        await made.processes.forget(attempt, b"")


async def test_a_folder_that_the_results_name_is_not_forgotten(cold: World) -> None:
    attempt = await cold.shell("a0", "echo x > file")
    await cold.end(attempt)
    result = cold.folder(attempt) / disk.WORK / "file"
    await cold.processes.forget(attempt, b"a literal: " + bytes(result))
    assert result.read_text() == "x\n"


async def test_forgetting_keeps_the_log_and_the_record(cold: World) -> None:
    attempt = await cold.shell("a0", "echo kept; echo x > file; echo y > $TMPDIR/file; sleep 0.3")
    await cold.processes.forget(attempt, b"")
    assert (cold.folder(attempt) / disk.WORK).exists(), "a running attempt is left alone"
    ended = await cold.end(attempt)
    await cold.processes.forget(attempt, b"")
    await cold.processes.forget(attempt, b"")
    assert sorted(path.name for path in cold.folder(attempt).iterdir()) == ["exit.json", "lock", "log"]
    assert await cold.processes.observe(attempt) == ended
    assert await cold.output(attempt) == ["kept"]


async def test_a_damaged_record_counts_as_vanished(cold: World) -> None:
    attempt = await cold.shell("a0", "true")
    await cold.end(attempt)
    (cold.folder(attempt) / disk.RECORD).write_text("")
    seen = await cold.processes.observe(attempt)
    assert seen.presence is Presence.VANISHED
    assert seen.exit
    assert "damaged" in seen.exit.detail


async def test_an_attempt_with_a_path_for_a_name_is_refused(cold: World) -> None:
    with pytest.raises(LaunchRefused):
        await cold.shell("..", "true")


async def test_the_task_cannot_read_the_managers_or_its_shepherds_files(cold: World) -> None:
    attempt = await cold.start("a0", "python", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))")
    await cold.end(attempt)
    (fds,) = await cold.output(attempt)
    links = fds.strip("[]").replace("'", "").split(", ")
    assert len(links) == 5, "stdin, stdout, stderr, the lock, and the folder being listed"


async def _said(made: World, attempt: object, word: str) -> bool:
    assert attempt == attempt_id()
    return word in await made.output(attempt_id())


async def _lines(made: World, attempt: object, count: int) -> bool:
    assert attempt == attempt_id()
    return len(await made.output(attempt_id())) >= count
