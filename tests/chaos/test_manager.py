"""Manager and zygote are killed in the middle of runs of the real SDK; what tasks did is counted by their own marks.

Each task appends one line to a file when it begins and one when it ends, so a task that was lost is missing there, and
one that ran twice stands there twice.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.actions import actions_service_connect, actions_service_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import run_service_connect, run_service_pb2

from tests.managers import ABORTED_AT_EXIT, Manager, eventually, run_of, steady_ports

pytestmark = [pytest.mark.chaos, pytest.mark.sdk]

SERVING_SECONDS = 3.0
CHILDREN = 6
FAN = 20
KILLS = 8
STREAMS = 50

PROGRAM = """
import asyncio, os, sys
import flyte

env = flyte.TaskEnvironment(name="chaos")

def mark(marks: str, what: str) -> None:
    file = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (what + "\\n").encode())
    os.close(file)

@env.task
async def sleeper(marks: str, number: int, seconds: float) -> int:
    mark(marks, f"begin {number}")
    await asyncio.sleep(seconds)
    mark(marks, f"end {number}")
    return number * 10

@env.task(retries=2)
async def flaky(marks: str) -> int:
    attempt = flyte.ctx().attempt_number
    mark(marks, f"flaky {attempt}")
    await asyncio.sleep(1)
    if attempt == 0:
        raise ValueError("the first attempt fails")
    return attempt

@env.task
async def parent(marks: str, children: int, seconds: float) -> list[int]:
    mark(marks, "begin parent")
    sleepers = (sleeper(marks, number, seconds) for number in range(children))
    found = list(await asyncio.gather(*sleepers, flaky(marks)))
    mark(marks, "end parent")
    return found

@env.task
async def fan(marks: str, children: int, seconds: float) -> list[int]:
    mark(marks, "begin parent")
    found = list(await asyncio.gather(*(sleeper(marks, number, seconds) for number in range(children))))
    mark(marks, "end parent")
    return found

if __name__ == "__main__":
    endpoint = os.environ["FLYTE_ENDPOINT_OF_TEST"]
    flyte.init(endpoint=endpoint, insecure=True, project="flytesnacks", domain="development")
    _, task, name, marks, children, seconds = sys.argv
    run = flyte.with_runcontext(name=name).run(globals()[task], marks, int(children), float(seconds))
    mark(marks, "run created")
    run.wait()
    print("outputs:", run.outputs().o0)
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "manager", {"embedded.cpu": "8"}, steady_ports()) as started:
        yield started


class Running:
    """One run of the program above."""

    def __init__(self, manager: Manager, folder: Path, task: str, *, name: str, children: int, seconds: float) -> None:
        self.manager = manager
        self.name = name
        self._marks = folder / f"{name}.marks"
        script = folder / "program.py"
        script.write_text(PROGRAM)
        self.client = manager.client(script, task, name, str(self._marks), str(children), str(seconds))

    @property
    def marks(self) -> Counter[str]:
        return Counter(self._marks.read_text().splitlines() if self._marks.exists() else [])

    def until(self, *marks: str) -> None:
        def seen() -> bool:
            assert self.client.poll() in (None, 0, ABORTED_AT_EXIT), self.client.communicate()[0]
            return all(mark in self.marks for mark in marks)

        eventually(seen, 60, what=", ".join(marks))

    def outputs(self) -> str:
        """What the client printed at the end of `run.wait()`, which must have gone well."""
        output, _ = self.client.communicate(timeout=120)
        assert self.client.returncode in (0, ABORTED_AT_EXIT), output
        return output.rpartition("outputs: ")[2].strip()

    def actions(self) -> Counter[tuple[str, str, int]]:
        """(function, phase, number of attempts) of all actions of the run, as rows tell."""
        query = "SELECT function, phase, attempt FROM actions WHERE run = ?"
        return Counter((function, phase, attempt) for function, phase, attempt in self.manager.rows(query, self.name))


def once(*what: str, count: int) -> list[str]:
    return [f"{each} {number}" for each in what for number in range(count)]


def check_family(run: Running) -> None:
    """Everything happened once, and came out as it does when nobody is killed."""
    assert run.outputs() == str([*(number * 10 for number in range(CHILDREN)), 1])
    expected = [
        "run created",
        "begin parent",
        "end parent",
        "flaky 0",
        "flaky 1",
        *once("begin", "end", count=CHILDREN),
    ]
    assert run.marks == Counter(expected)
    assert run.actions() == {
        ("parent", "SUCCEEDED", 1): 1,
        ("flaky", "SUCCEEDED", 2): 1,
        ("sleeper", "SUCCEEDED", 1): 6,
    }


def restart(manager: Manager) -> float:
    """Seconds from the start of the process to its first answer."""
    began = time.monotonic()
    manager.spawn()
    manager.until_serving()
    took = time.monotonic() - began
    manager.until_ready()
    return took


@pytest.mark.parametrize("victims", ["manager", "zygote", "both"])
def test_a_kill_in_the_middle_of_a_run_changes_nothing_of_it(manager: Manager, tmp_path: Path, victims: str) -> None:
    run = Running(manager, tmp_path, "parent", name="killed", children=CHILDREN, seconds=4)
    run.until("run created", "flaky 0", "begin 0", "begin 3")
    zygote = manager.zygote()
    assert zygote
    if victims in ("zygote", "both"):
        os.kill(zygote, signal.SIGKILL)
    if victims in ("manager", "both"):
        manager.kill9()
        assert not any(mark.startswith("end") for mark in run.marks), "killed too late"
        assert restart(manager) < SERVING_SECONDS
        assert run.client.poll() is None
    check_family(run)


def kill(manager: Manager, victims: str) -> None:
    """Kills these processes and starts the manager again if it was among them."""
    zygote = manager.zygote()
    if victims != "manager" and zygote:
        os.kill(zygote, signal.SIGKILL)
    if victims != "zygote":
        manager.kill9()
        manager.spawn()
        manager.until_serving()


def test_kills_at_any_moment_of_a_fan_out_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    chance = random.Random(20_261_123)
    kills, runs = 0, 0
    # Two tasks at a time, so that the kills fall between them.
    with Manager(tmp_path / "manager", {"embedded.cpu": "1"}, steady_ports()) as manager:
        while kills < KILLS:
            runs += 1
            run = Running(manager, tmp_path, "fan", name=f"fan{runs}", children=FAN, seconds=0.2)
            run.until("run created")
            while kills < KILLS and run.client.poll() is None:
                kill(manager, chance.choice(("manager", "manager", "zygote", "both")))
                kills += 1
                time.sleep(chance.uniform(0, 1.5))
            assert run.outputs() == str([number * 10 for number in range(FAN)])
            assert run.marks == Counter(["run created", "begin parent", "end parent", *once("begin", "end", count=FAN)])
            assert run.actions() == {("fan", "SUCCEEDED", 1): 1, ("sleeper", "SUCCEEDED", 1): FAN}


def test_after_sigterm_tasks_go_on_and_the_next_manager_adopts_them(manager: Manager, tmp_path: Path) -> None:
    run = Running(manager, tmp_path, "parent", name="stopped", children=CHILDREN, seconds=3)
    run.until("run created", "flaky 0", *once("begin", count=CHILDREN))
    began = time.monotonic()
    assert manager.stop() == 0
    assert time.monotonic() - began < 3
    run.until(*once("end", count=CHILDREN))
    assert manager.process is None
    assert restart(manager) < SERVING_SECONDS
    check_family(run)


def start_command(manager: Manager, name: str, *args: str) -> None:
    answer = manager.call("workflow.RunService/CreateRun", run_of(name, *args))
    assert answer.status_code == 200, answer.text
    eventually(lambda: phase_of(manager, name) == "RUNNING", what=f"{name} running")


def phase_of(manager: Manager, name: str) -> str:
    ((phase,),) = manager.rows("SELECT phase FROM actions WHERE run = ? AND name = 'a0'", name)
    return str(phase)


def test_ctrl_c_without_tasks_ends_it_at_once(manager: Manager) -> None:
    began = time.monotonic()
    manager.signal(signal.SIGINT)
    assert manager.until_ended() == 0
    assert time.monotonic() - began < 3
    assert "go on" not in manager.last_log


def test_ctrl_c_with_tasks_says_that_they_go_on_and_ends_after_five_seconds(manager: Manager, tmp_path: Path) -> None:
    done = tmp_path / "done"
    start_command(manager, "one", "sh", "-c", f"sleep 8; echo done >> {done}")
    start_command(manager, "two", "sh", "-c", f"sleep 8; echo done >> {done}")
    began = time.monotonic()
    manager.signal(signal.SIGINT)
    eventually(lambda: "2 tasks go on; start again to adopt them; Ctrl-C again within 5 s aborts them" in manager.log)
    assert manager.serves()
    assert manager.until_ended() == 0
    assert 4.5 < time.monotonic() - began < 8
    manager.start()
    eventually(lambda: phase_of(manager, "one") == phase_of(manager, "two") == "SUCCEEDED")
    assert done.read_text() == "done\n" * 2


def test_a_second_ctrl_c_aborts_the_runs(manager: Manager, tmp_path: Path) -> None:
    done = tmp_path / "done"
    start_command(manager, "one", "sh", "-c", f"sleep 60; echo done >> {done}")
    manager.signal(signal.SIGINT)
    eventually(lambda: "1 task goes on" in manager.log)
    began = time.monotonic()
    manager.signal(signal.SIGINT)
    assert manager.until_ended() == 0
    assert time.monotonic() - began < 10
    assert phase_of(manager, "one") == "ABORTED"
    eventually(lambda: not manager.processes(), what="the end of the tasks")
    assert not done.exists()


async def watch_until_refused(address: str, number: int, seen: asyncio.Semaphore) -> Code | None:
    """Follows a run by one of the three roads; the code that ended the stream, None for a clean end."""
    run = identifier_pb2.RunIdentifier(project="flytesnacks", domain="development", name="long")
    action = identifier_pb2.ActionIdentifier(run=run, name="a0")
    runs = run_service_connect.RunServiceClient(address)
    actions = actions_service_connect.ActionsServiceClient(address)
    streams = (
        lambda: runs.watch_action_details(run_service_pb2.WatchActionDetailsRequest(action_id=action)),
        lambda: runs.watch_run_details(run_service_pb2.WatchRunDetailsRequest(run_id=run)),
        lambda: actions.watch_for_updates(actions_service_pb2.WatchForUpdatesRequest(parent_action_id=action)),
    )
    try:
        async for _ in streams[number % len(streams)]():
            seen.release()
    except ConnectError as error:
        return error.code
    return None


async def test_sigterm_ends_open_streams_as_unavailable_within_three_seconds(manager: Manager) -> None:
    await asyncio.to_thread(start_command, manager, "long", "sleep", "60")
    seen = asyncio.Semaphore(0)
    watchers = [asyncio.create_task(watch_until_refused(manager.url, number, seen)) for number in range(STREAMS)]
    async with asyncio.timeout(30):
        for _ in range(STREAMS):
            await seen.acquire()
    began = time.monotonic()
    assert await asyncio.to_thread(manager.stop) == 0
    assert time.monotonic() - began < 3
    async with asyncio.timeout(10):
        assert set(await asyncio.gather(*watchers)) == {Code.UNAVAILABLE}
