"""Which finished runs go, and what goes with them: on a real database and real folders, under a fake clock."""

import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flyte_manager.blobs.folders import Folders
from flyte_manager.config import load
from flyte_manager.domain.actions import Budget, TaskName
from flyte_manager.domain.caching import CacheEntry, CacheKey
from flyte_manager.domain.catalog import DeployedTask
from flyte_manager.domain.errors import Unavailable, UnknownAction, UnknownRun
from flyte_manager.domain.ids import AttemptId, RunId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Stored
from flyte_manager.domain.retention import Bounds, FinishedRun, targets
from flyte_manager.executor.retention import Pruned, Retention
from flyte_manager.executor.sweeper import Sweeper
from flyte_manager.keeping import retention_of
from flyte_manager.ledger.ledger import BeingDeleted
from flyte_manager.ledger.retention import Retained
from flyte_manager.store import cache, tasks
from flyte_manager.store.runs import mirror
from flyte_manager.wire.orders import spec_digest
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle, middle, told
from tests.fakes.orders import action_id, new_run, new_task, run_id, task_spec

DAY = 86_400.0
BOUND = Bounds(age=10 * DAY)


@dataclass
class Keeping:
    """A manager's middle with its stores, where runs are made, end, and go."""

    folder: Path
    clock: FakeClock
    middle: Middle
    lines: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.middle.blobs.join("flytesnacks", "development")

    @property
    def retention(self) -> Retention:
        return Retention(
            retained=Retained(self.middle.database),
            stores=[Folders(self.middle.blobs.root)],
            attempts=Folders(str(self.folder / "attempts")),
            domains=["development"],
            clock=self.clock,
        )

    async def begin(self, name: str, inputs: bytes = b"", *, code: str = "") -> None:
        spec = task_spec()
        if code:
            spec.task_template.container.args.extend(["--tgz", code])
        order = new_run(name, base=self.base, spec=spec)
        await self.middle.blobs.write(order.input_uri, inputs)
        await self.middle.ledger.create_run(order)
        log = self.folder / "attempts/flytesnacks/development" / name / "a0/1/log"
        log.parent.mkdir(parents=True)
        log.write_bytes(b"log" * 10)

    async def end(self, name: str, outputs: bytes = b"") -> None:
        """And a day passes."""
        await self.middle.blobs.write(f"{self.base}/{name}/a0/1/outputs.pb", outputs)
        action = await self.middle.action(action_id("a0", name))
        await self.middle.ledger.report(told(action, Phase.SUCCEEDED, self.clock), Budget())
        self.clock.advance(DAY)

    async def run(self, name: str, outputs: bytes = b"x" * 1000, inputs: bytes = b"") -> None:
        await self.begin(name, inputs)
        await self.end(name, outputs)

    async def upload(self, name: str, *, age: float) -> str:
        uri = self.middle.blobs.join("uploads", "flytesnacks", "development", name, "code.tgz")
        await self.middle.blobs.write(uri, b"code")
        used = self.clock().timestamp() - age
        os.utime(uri, (used, used))
        return uri

    def uploads(self) -> set[str]:
        folder = Path(self.middle.blobs.join("uploads", "flytesnacks", "development"))
        return {each.name for each in folder.iterdir()}

    async def prune(self, bounds: Bounds = BOUND, *, dry: bool = False) -> Pruned:
        return await self.retention.prune(bounds, dry=dry, tell=self.lines.append)

    async def left(self) -> set[str]:
        """Runs that are there, in rows and folders alike."""
        found: set[str] = set()
        for folder in (Path(self.base), self.folder / "attempts/flytesnacks/development"):
            names = {each.name for each in folder.iterdir()}
            assert not found or names == found
            found = names
        for name in found:
            assert (await self.middle.reader.run(run_id(name))).id.name == name
        return found

    def rows(self, table: str) -> int:
        with closing(sqlite3.connect(self.folder / "flyte.db")) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Keeping]:
    clock = FakeClock()
    async with middle(tmp_path, clock) as opened:
        yield Keeping(tmp_path, clock, opened)


async def test_a_run_that_ended_too_long_ago_goes_with_rows_logs_and_blobs(keeping: Keeping) -> None:
    await keeping.begin("old")
    for name in ("c1", "c2"):
        await keeping.middle.ledger.enqueue(new_task(name, run="old", base=keeping.base))
    await keeping.end("old")
    keeping.clock.advance(8 * DAY)
    await keeping.run("young")
    await keeping.begin("live")
    keeping.clock.advance(2 * DAY)
    done = await keeping.prune()
    assert (done.runs, done.held, done.failures) == (1, 0, [])
    assert done.rows == 7
    assert done.size == 30
    assert await keeping.left() == {"young", "live"}
    with pytest.raises(UnknownRun):
        await keeping.middle.reader.run(run_id("old"))
    with pytest.raises(UnknownAction):
        await keeping.middle.action(action_id("c1", "old"))
    assert (keeping.rows("actions"), keeping.rows("attempts"), keeping.rows("prunings")) == (2, 2, 0)
    assert (await keeping.prune()).runs == 0


async def test_a_dry_run_counts_the_same_and_deletes_nothing(keeping: Keeping) -> None:
    for number in range(3):
        await keeping.run(f"r{number}")
    await keeping.upload("old", age=3 * DAY)
    bounds = Bounds(age=1.5 * DAY)
    dry = await keeping.prune(bounds, dry=True)
    assert [line.split()[0] for line in keeping.lines] == ["flytesnacks/development/r0", "flytesnacks/development/r1"]
    assert await keeping.left() == {"r0", "r1", "r2"}
    assert await keeping.prune(bounds) == dry
    assert (dry.runs, dry.rows, dry.uploads) == (2, 6, 1)


async def test_the_oldest_go_until_the_rest_is_small_enough(keeping: Keeping) -> None:
    for number in range(5):
        await keeping.run(f"r{number}", b"x" * 10_000)
    done = await keeping.prune(Bounds(size=25_000))
    assert await keeping.left() == {"r3", "r4"}
    assert 30_000 < done.size < 31_000
    assert (await keeping.prune(Bounds(size=25_000))).runs == 0


async def test_what_was_run_by_processes_goes_where_tasks_are_pods_now(keeping: Keeping) -> None:
    await keeping.run("r1")
    (keeping.folder / "blobs").symlink_to(keeping.middle.blobs.root)
    elsewhere = Folders(str(keeping.folder / "objects"))
    retention = retention_of(
        load({}, {}, None),
        keeping.middle.database,
        folder=keeping.folder,
        objects=elsewhere,
        clock=keeping.clock,
    )
    assert (await retention.prune(Bounds(age=0))).size == 1030
    assert await keeping.left() == set()


async def test_what_ended_a_moment_ago_stays(keeping: Keeping) -> None:
    await keeping.run("r1")
    keeping.clock.advance(30 - DAY)
    assert (await keeping.prune(Bounds(age=0))).runs == 0
    keeping.clock.advance(60)
    assert (await keeping.prune(Bounds(age=0))).runs == 1


async def test_outputs_that_another_run_refers_to_stay_as_long_as_that_run(keeping: Keeping) -> None:
    await keeping.run("r1")
    keeping.clock.advance(8 * DAY)
    await keeping.run("r12", f"\x0a{keeping.base}/r1/a0/1/raw/file\x12".encode())
    keeping.clock.advance(3 * DAY)
    done = await keeping.prune()
    assert (done.runs, done.held) == (0, 1)
    keeping.clock.advance(8 * DAY)
    assert (await keeping.prune(dry=True)).runs == 2
    assert (await keeping.prune()).runs == 2
    assert await keeping.left() == set()


async def test_what_a_run_refers_to_that_can_not_go_after_all_stays(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keeping.run("r1")
    await keeping.run("r2", f"{keeping.base}/r1/a0/1/outputs.pb".encode())
    begin = Retained.begin

    async def lives_again(self: Retained, run: RunId, *, cached: bool) -> bool:
        return run.name != "r2" and await begin(self, run, cached=cached)

    monkeypatch.setattr(Retained, "begin", lives_again)
    assert (await keeping.prune(Bounds(age=0))).runs == 0
    assert await keeping.left() == {"r1", "r2"}


async def test_what_a_live_run_takes_as_input_stays(keeping: Keeping) -> None:
    await keeping.run("r1")
    await keeping.run("r2")
    await keeping.begin("live", f"{keeping.base}/r1/a0/1/outputs.pb".encode())
    keeping.clock.advance(20 * DAY)
    assert (await keeping.prune()).runs == 1
    assert await keeping.left() == {"r1", "live"}


async def test_a_run_whose_outputs_the_cache_keeps_stays_unless_the_cache_may_forget_them(keeping: Keeping) -> None:
    await keeping.run("r1")
    entry = CacheEntry(
        key=CacheKey("key", "flytesnacks", "development"),
        updated_at=keeping.clock(),
        created_at=keeping.clock(),
        output_uri=f"{keeping.base}/r1/a0/1/outputs.pb",
        source=AttemptId(action_id("a0", "r1"), 1),
    )
    await keeping.middle.database.write(lambda tx: cache.put(tx, entry))
    keeping.clock.advance(20 * DAY)
    assert ((await keeping.prune()).held, await keeping.left()) == (1, {"r1"})
    await keeping.prune(Bounds(age=DAY, cached=True))
    assert (await keeping.left(), keeping.rows("cache_entries")) == (set(), 0)


async def test_uploads_that_nobody_refers_to_go_two_days_after_their_last_use(keeping: Keeping) -> None:
    used, deployed = await keeping.upload("used", age=30 * DAY), await keeping.upload("deployed", age=30 * DAY)
    await keeping.upload("young", age=1.9 * DAY)
    await keeping.upload("old", age=2.1 * DAY)
    await keeping.begin("r1", code=used)
    spec = task_spec("deployed")
    spec.task_template.container.args.extend(["--pkl", deployed])
    await deploy(keeping, spec)
    done = await keeping.prune()
    assert (done.uploads, done.upload_size) == (1, 4)
    assert keeping.uploads() == {"used", "deployed", "young"}
    await keeping.end("r1")
    keeping.clock.advance(20 * DAY)
    assert (await keeping.prune()).uploads == 2
    assert keeping.uploads() == {"deployed"}


async def deploy(keeping: Keeping, spec: Any) -> None:
    digest, content = spec_digest(spec)
    name = TaskName("flytesnacks", "development", "deployed", "1")
    found = DeployedTask(name, digest, keeping.clock())
    await keeping.middle.database.write(lambda tx: tasks.keep_spec(tx, digest, content))
    await keeping.middle.database.write(lambda tx: tasks.insert(tx, found))


async def test_specs_of_tasks_go_with_the_last_row_that_names_them(keeping: Keeping) -> None:
    await keeping.begin("r1", code="/somewhere/1")
    await keeping.end("r1")
    await keeping.begin("r2", code="/somewhere/2")
    keeping.clock.advance(20 * DAY)
    assert keeping.rows("task_specs") == 2
    await keeping.prune()
    assert keeping.rows("task_specs") == 1


async def test_a_deletion_that_was_cut_off_is_finished_by_the_next_sweep(keeping: Keeping) -> None:
    for name in ("r1", "r2"):
        await keeping.run(name)
    retained = Retained(keeping.middle.database)
    assert await retained.begin(run_id("r1"), cached=False)
    with pytest.raises(UnknownRun):
        await keeping.middle.reader.run(run_id("r1"))
    with pytest.raises(BeingDeleted):
        await keeping.begin("r1")
    assert await retained.begin(run_id("r2"), cached=False)
    await retained.forget(run_id("r2"))
    assert not await retained.begin(run_id("r2"), cached=False)
    (keeping.folder / "attempts/flytesnacks/development/r1/a0/1/log").unlink()
    await keeping.prune(Bounds(age=100 * DAY))
    assert await keeping.left() == set()
    assert [keeping.rows(table) for table in ("actions", "attempts", "prunings")] == [0, 0, 0]


async def test_a_run_that_lives_again_is_not_deleted(keeping: Keeping) -> None:
    await keeping.begin("r1")
    assert not await Retained(keeping.middle.database).begin(run_id("r1"), cached=False)
    assert not await Retained(keeping.middle.database).begin(run_id("nobody"), cached=False)


async def test_a_run_that_ended_once_more_is_looked_at_once_more(keeping: Keeping) -> None:
    await keeping.run("r1")
    await keeping.run("r2")
    assert (await keeping.prune(dry=True)).runs == 0
    root = await keeping.middle.action(action_id("a0", "r2"))
    await keeping.middle.blobs.write(f"{keeping.base}/r2/a0/2/outputs.pb", f"{keeping.base}/r1/x".encode())
    for phase, ended in ((Phase.RUNNING, None), (Phase.SUCCEEDED, keeping.clock())):
        await keeping.middle.database.write(partial(mirror, root=replace(root, phase=phase, ended_at=ended)))
    keeping.clock.advance(9.5 * DAY)
    assert ((await keeping.prune()).held, await keeping.left()) == (1, {"r1", "r2"})


async def test_the_sweeper_prunes_and_survives_what_goes_wrong(
    keeping: Keeping, caplog: pytest.LogCaptureFixture
) -> None:
    await keeping.run("r1")
    caplog.set_level("INFO")
    await Sweeper(keeping.retention, Bounds(age=0), every=60, may_work=lambda: True).sweep()
    assert "1 runs" in caplog.text
    await keeping.run("r2")
    broken = replace(keeping.retention, stores=[Broken(keeping.middle.blobs.root)])
    await Sweeper(broken, Bounds(age=0), every=60, may_work=lambda: True).sweep()
    assert "finished runs stay for now: [Errno 5] it broke" in caplog.text
    assert await keeping.left() == {"r2"}


def meanwhile(monkeypatch: pytest.MonkeyPatch, run: str, act: Callable[[], Awaitable[None]]) -> None:
    """While that run is being deleted, something happens."""
    begin = Retained.begin

    async def after(self: Retained, each: RunId, *, cached: bool) -> bool:
        if each.name == run:
            await act()
        return await begin(self, each, cached=cached)

    monkeypatch.setattr(Retained, "begin", after)


async def test_what_a_run_that_begins_during_a_sweep_refers_to_stays(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("r0", "r1", "r2", "r3"):
        await keeping.run(name)

    async def begin() -> None:
        await keeping.begin("new", f"{keeping.base}/r1/a0/1/outputs.pb".encode())
        await keeping.begin("newer", code=f"{keeping.base}/r2/a0/1/raw/code.tgz")

    meanwhile(monkeypatch, "r0", begin)
    done = await keeping.prune(Bounds(age=0))
    assert (done.runs, done.held) == (2, 2)
    assert await keeping.left() == {"r1", "r2", "new", "newer"}


async def test_what_a_live_run_takes_up_during_a_sweep_stays(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("r0", "r1", "r2"):
        await keeping.run(name)
    await keeping.begin("live")

    async def enqueue() -> None:
        child = new_task("c1", run="live", base=keeping.base)
        await keeping.middle.blobs.write(child.input_uri, f"{keeping.base}/r1/a0/1/outputs.pb".encode())
        await keeping.middle.ledger.enqueue(child)

    meanwhile(monkeypatch, "r0", enqueue)
    assert (await keeping.prune(Bounds(age=0))).runs == 2
    assert await keeping.left() == {"r1", "live"}


async def test_what_a_run_that_ends_during_a_sweep_refers_to_stays(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("r0", "r1", "r2"):
        await keeping.run(name)
    used = await keeping.upload("used", age=3 * DAY)
    await keeping.begin("live", used.encode())

    async def end() -> None:
        await keeping.end("live", f"{keeping.base}/r1/a0/1/raw/file".encode())

    meanwhile(monkeypatch, "r0", end)
    done = await keeping.prune(Bounds(age=0))
    assert (done.runs, done.uploads) == (2, 0)
    assert await keeping.left() == {"r1", "live"}
    assert keeping.uploads() == {"used"}


async def test_what_a_run_refers_to_that_ends_after_all_were_looked_at_stays(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keeping.run("r1")
    await keeping.begin("live", f"{keeping.base}/r1/a0/1/raw/file".encode())
    unscanned = Retained.unscanned

    async def then_end(self: Retained) -> Sequence[FinishedRun]:
        found = await unscanned(self)
        if not found:
            await keeping.end("live")
        return found

    monkeypatch.setattr(Retained, "unscanned", then_end)
    assert (await keeping.prune(Bounds(age=DAY / 2))).runs == 0
    assert await keeping.left() == {"r1", "live"}


@pytest.mark.parametrize("length", [3, 60])
async def test_a_long_chain_of_runs_that_refer_to_each_other_goes_in_one_sweep(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    for number in range(length):
        await keeping.run(f"r{number}", f"{keeping.base}/r{number - 1}/a0/1/raw/file".encode() if number else b"")
    asked, referring = 0, Retained.referring

    async def counted(self: Retained, folder: str) -> Sequence[tuple[RunId, str]]:
        nonlocal asked
        asked += 1
        return await referring(self, folder)

    monkeypatch.setattr(Retained, "referring", counted)
    done = await keeping.prune(Bounds(age=0))
    assert (done.runs, done.held) == (length, 0)
    assert await keeping.left() == set()
    assert asked < 2 * length


async def test_of_a_chain_only_what_nobody_needs_goes(keeping: Keeping) -> None:
    await keeping.run("r0")
    await keeping.run("r1", f"{keeping.base}/r0/a0/1/raw/file".encode())
    await keeping.run("r2", f"{keeping.base}/r1/a0/1/raw/file {keeping.base}/r0/a0/1/raw/file".encode())
    await keeping.run("r3", f"{keeping.base}/r0/a0/1/raw/file".encode())
    await keeping.begin("live", f"{keeping.base}/r3/a0/1/raw/file".encode())
    done = await keeping.prune(Bounds(age=0))
    assert (done.runs, done.held) == (2, 2)
    assert await keeping.left() == {"r0", "r3", "live"}


async def test_who_is_freed_goes_before_the_younger_where_size_counts(keeping: Keeping) -> None:
    await keeping.run("r0", b"x" * 10_000)
    await keeping.run("r1", f"{keeping.base}/r0/a0/1/raw/file".encode() + b"x" * 10_000)
    await keeping.run("r2", b"x" * 10_000)
    await keeping.prune(Bounds(size=15_000))
    assert await keeping.left() == {"r2"}


class Stuck(Unavailable):
    """it is stuck."""


class Refusing(Folders):
    """A store that lets some folders be."""

    async def remove(self, folder: str) -> None:
        if folder.endswith(("/r1", "/old")):
            raise Stuck
        await super().remove(folder)


async def test_what_can_not_be_deleted_keeps_nothing_else(keeping: Keeping) -> None:
    for name in ("r1", "r2"):
        await keeping.run(name)
    for name in ("old", "older"):
        await keeping.upload(name, age=3 * DAY)
    refusing = replace(keeping.retention, stores=[Refusing(keeping.middle.blobs.root)])
    done = await refusing.prune(Bounds(age=0), tell=keeping.lines.append)
    assert [failure.rpartition("/")[2] for failure in done.failures] == ["r1: it is stuck.", "old: it is stuck."]
    assert (keeping.rows("runs"), keeping.rows("prunings"), keeping.uploads()) == (0, 1, {"old"})
    again = await refusing.prune(Bounds(age=0), tell=keeping.lines.append)
    assert again.failures == done.failures
    assert (await keeping.prune(Bounds(age=0))).failures == []
    assert (keeping.rows("prunings"), keeping.uploads()) == (0, set())


class Broken(Folders):
    """A store that can't be read."""

    async def stored(self, folder: str) -> AsyncIterator[Sequence[Stored]]:
        if folder:
            raise OSError(5, "it broke")
        yield []


def test_references_are_read_from_bytes_of_any_kind() -> None:
    content = b'\x0a\x20/s/p/d/r1/a0/1/outputs.pb*\x05other "s3://b/x/uploads/p/d/k/code.tgz" /s /sother/p /s/p\x00/s//'
    assert targets(content, ["/s", "s3://b/x"]) == {
        "/s/p/d/r1/a0/1/outputs.pb*",
        "s3://b/x/uploads/p/d/k/code.tgz",
        "/s/p",
    }
    assert targets(b"/s/a/b/c/d/e/f/g", ["/s"]) == {"/s/a/b/c/d/e/f"}
