"""Which finished runs go, and what goes with them: on a real database and real folders, under a fake clock."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from flyte_manager.blobs.folders import Folders
from flyte_manager.config import load
from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.caching import CacheEntry, CacheKey
from flyte_manager.domain.catalog import DeployedTask
from flyte_manager.domain.errors import Unavailable, UnknownAction, UnknownRun
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Stored
from flyte_manager.domain.retention import Bounds
from flyte_manager.executor import sweeper
from flyte_manager.executor.sweeper import Sweeper
from flyte_manager.keeping import retention_of
from flyte_manager.ledger.ledger import BeingDeleted
from flyte_manager.ledger.retention import Retained
from flyte_manager.store import cache, tasks
from flyte_manager.store.retention import delete_specs, unused_specs
from flyte_manager.store.runs import mirror
from flyte_manager.wire.orders import spec_digest
from tests.fakes.orders import action_id, new_run, new_task, run_id, task_spec
from tests.unit.executor.keeping import DAY, Keeping
from tests.unit.executor.keeping import keeping as keeping


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


async def test_a_dry_run_counts_uploads_that_go_with_the_last_run_that_refers_to_them(keeping: Keeping) -> None:
    both, old, kept = [await keeping.upload(name, age=30 * DAY) for name in ("both", "old", "kept")]
    data = await keeping.upload("data", age=30 * DAY)
    await keeping.begin("r1", data.encode(), code=old)
    await keeping.end("r1")
    await keeping.begin("r2", code=both)
    await keeping.end("r2")
    keeping.clock.advance(20 * DAY)
    await keeping.begin("r3", both.encode(), code=kept)
    await keeping.end("r3")
    dry = await keeping.prune(dry=True)
    assert keeping.uploads() == {"both", "old", "kept", "data"}
    assert await keeping.prune() == dry
    assert (dry.runs, dry.uploads) == (2, 2)
    assert keeping.uploads() == {"both", "kept"}


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


async def test_a_manager_that_may_not_work_sweeps_nothing(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "FIRST_SECONDS", 0)
    asked = asyncio.Semaphore(0)

    def may_work() -> bool:
        asked.release()
        return False

    await keeping.run("r1")
    sweeping = asyncio.create_task(Sweeper(keeping.retention, Bounds(age=0), every=0.001, may_work=may_work).run())
    for _ in range(3):
        await asyncio.wait_for(asked.acquire(), 10)
    sweeping.cancel()
    await asyncio.wait([sweeping])
    assert await keeping.left() == {"r1"}


async def test_a_folder_that_a_run_shares_with_others_stays(keeping: Keeping) -> None:
    """run_base_dir may name any folder in the store."""
    shared = f"{keeping.base}/shared"
    order = replace(new_run("r1"), base_uri=shared, input_uri="")
    await keeping.middle.ledger.create_run(order)
    await keeping.middle.blobs.write(f"{shared}/of_another", b"x")
    await keeping.end("r1")
    keeping.clock.advance(20 * DAY)
    assert (await keeping.prune()).runs == 1
    assert await keeping.middle.blobs.read(f"{shared}/of_another") == b"x"


async def test_a_spec_that_somebody_names_meanwhile_stays(keeping: Keeping) -> None:
    await keeping.run("r1")
    digest = (await keeping.middle.action(action_id("a0", "r1"))).spec_digest
    keeping.clock.advance(20 * DAY)
    retained = Retained(keeping.middle.database)
    await retained.begin(run_id("r1"), cached=False)
    await retained.forget(run_id("r1"))
    await keeping.prune(dry=True)
    since, digests = await keeping.middle.database.read(unused_specs)
    assert digests == [digest]
    await keeping.begin("r2")
    assert await keeping.middle.database.write(lambda tx: delete_specs(tx, digests, since)) == 0
    assert keeping.rows("task_specs") == 1


async def test_a_run_of_which_something_lives_is_not_deleted(keeping: Keeping) -> None:
    """However that came to be: the executor still works for it."""
    await keeping.run("r1")
    with closing(sqlite3.connect(keeping.folder / "flyte.db")) as connection, connection:
        connection.execute("UPDATE actions SET ended_at = NULL")
    assert not await Retained(keeping.middle.database).begin(run_id("r1"), cached=False)


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
