"""The manager dies between any two steps: over the fake world at each of them, over real processes at a sample."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from flyte_manager.domain.phases import Kind
from flyte_manager.ledger.ledger import Ledger
from tests.chaos.failpoints import POINTS, arm
from tests.chaos.simulated.disk import Crashed, MemoryDatabase
from tests.chaos.simulated.scenario import Abort, Call, Ending, Fate, Scenario
from tests.chaos.simulated.simulation import Simulation, play
from tests.chaos.simulated.world import SimulatedRuntime
from tests.fakes.memory_blobs import MemoryBlobs
from tests.managers import ABORTED_AT_EXIT, COMMAND, SOURCE, Manager, eventually, steady_ports

CHILDREN = 199
DOWN_SECONDS = 0.2
RECOVERY_SECONDS = 3.0
"""of CPU, from the start to the first answer: machines that run tests are busy"""
SAMPLE = (
    ("a change is asked for", 3),
    ("a write is committed, nobody was told", 9),
    ("an attempt is to be launched", 4),
    ("an attempt was launched, its row does not say so", 5),
    ("an attempt was observed, nothing was done about it", 12),
    ("a write has been decided", 30),
    ("a change is told to all, its caller was not answered", 25),
    ("an ended attempt's folder is to be freed", 6),
    ("an ended attempt's folder is freed", 8),
    ("an attempt is to be observed", 40),
)

PROGRAM = """
import asyncio
import os
import sys

import flyte

env = flyte.TaskEnvironment(name="failing")

def mark(folder: str, text: str) -> None:
    with open(folder, "a") as file:
        file.write(text + "\\n")

@env.task
async def child(marks: str, number: int) -> int:
    mark(marks, f"child {number}")
    return number

@env.task
async def parent(marks: str, children: int) -> int:
    return sum(await asyncio.gather(*(child(marks, number) for number in range(children))))

if __name__ == "__main__":
    endpoint = os.environ["FLYTE_ENDPOINT_OF_TEST"]
    flyte.init(endpoint=endpoint, insecure=True, project="flytesnacks", domain="development")
    run = flyte.with_runcontext(name="failing").run(parent, sys.argv[1], int(sys.argv[2]))
    run.wait()
    print("outputs:", run.outputs().o0)
"""


def family() -> Scenario:
    """A bit of everything: calls, a trace, a condition, failures of each kind, an abort while attempts live."""
    fails = Call("a0x0", Kind.TASK, retries=1, fates=[Fate(0.1, Ending.RECOVERABLE), Fate(0.2, Ending.GOOD)])
    lost = Call("a0x1", Kind.TASK, fates=[Fate(0.1, Ending.VANISHED), Fate(0.1, Ending.GOOD)])
    asks = Call("a0x2", Kind.CONDITION, timeout=20)
    traced = Call("a0x3", Kind.TRACE)
    kept = Call("a0x4", Kind.TASK, fates=[Fate(0.1, Ending.GOOD)], cache_key="k1", serialized=True)
    takes = Call("a0x5", Kind.TASK, cache_key="k1", serialized=True)
    root = Call("a0", Kind.TASK, fates=[Fate(0.1, Ending.GOOD)], calls=[fails, lost, asks, traced, kept, takes])
    endless = Call("a0", Kind.TASK, calls=[Call("a0x0", Kind.TASK, fates=[Fate(1e6, Ending.GOOD)])])
    return Scenario(
        runs={"r1": root, "r2": endless},
        cpu=2,
        aborts=(Abort(8, "r2", ""),),
        signals=(Abort(6, "r1", "a0x2"),),
        outages=(),
        meddlings=(),
    )


class Killer:
    """Kills the simulated manager when it comes to a point for the `hit`-th time, of all points; 0 = never."""

    def __init__(self, hit: int = 0) -> None:
        self.hit = hit
        self.reached: list[str] = []
        self.simulation: Simulation | None = None

    def __call__(self, point: str) -> None:
        if self.simulation is None or not self.simulation.lives:
            return
        self.reached.append(point)
        if len(self.reached) == self.hit:
            self.simulation.die(DOWN_SECONDS)
            raise Crashed

    def play(self) -> Simulation:
        with arm(self, database=MemoryDatabase, ledger=Ledger, runtime=SimulatedRuntime, blobs=MemoryBlobs):
            return play(family(), Random(1), begun=self._begun)

    def _begun(self, simulation: Simulation) -> None:
        self.simulation = simulation


def test_over_the_fake_world_it_may_die_at_each_point_each_time() -> None:
    unharmed = Killer()
    unharmed.play()
    hits = len(unharmed.reached)
    assert set(unharmed.reached) == set(POINTS)

    failures = []
    for hit in range(1, hits + 1):
        killer = Killer(hit)
        try:
            killer.play()
        except AssertionError as error:
            failures.append(f"killed at {hit}: {killer.reached[hit - 1]}: {error}")

    assert not failures, "\n".join(failures)
    assert hits > 200


def test_a_run_of_two_hundred_actions_outlives_kills_at_the_points(tmp_path: Path) -> None:
    script, marks = tmp_path / "program.py", tmp_path / "marks"
    script.write_text(PROGRAM)
    with Manager(tmp_path / "manager", {"embedded.cpu": "8"}, steady_ports()) as manager:
        client = manager.client(script, str(marks), str(CHILDREN))
        manager.stop()
        for point, hit in SAMPLE:
            manager.command = (sys.executable, "-m", "tests.chaos.failpoints", point, str(hit))
            manager.spawn()
            eventually(lambda: manager.serves() or _dead(manager), what="serving, or dying before that")
            assert manager.cpu_seconds() < RECOVERY_SECONDS
            assert manager.until_ended() == -9, point
            assert client.poll() is None, client.communicate()[0]
        manager.command = COMMAND
        manager.start()
        output, _ = client.communicate(timeout=180)

        assert client.returncode in (0, ABORTED_AT_EXIT), output
        assert output.rpartition("outputs: ")[2].strip() == str(sum(range(CHILDREN)))
        assert Counter(marks.read_text().splitlines()) == Counter(f"child {number}" for number in range(CHILDREN))
        phases = Counter(manager.rows("SELECT phase, attempt FROM actions"))
        assert phases == {("SUCCEEDED", 1): CHILDREN + 1}
        ends = manager.rows("SELECT action, count(*) FROM attempts WHERE phase = 'SUCCEEDED' GROUP BY action")
        assert len(ends) == CHILDREN + 1
        eventually(lambda: _tasks(manager) == [], what="the end of all processes of tasks")


def _dead(manager: Manager) -> bool:
    """Whether it came to the point before anybody saw it serve: live tasks go on at once."""
    return Path(f"/proc/{manager.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _tasks(manager: Manager) -> Sequence[int]:
    """Processes that are neither the manager nor its zygote."""
    return [pid for pid in manager.processes() if pid not in (manager.pid, manager.zygote())]


def test_docs_list_the_points() -> None:
    page = (SOURCE / "docs" / "testing.md").read_text()

    rows = [line for line in page.splitlines() if line.endswith(("`, before |", "`, after |"))]
    assert [row.split("|")[1].strip() for row in rows] == [*POINTS]
