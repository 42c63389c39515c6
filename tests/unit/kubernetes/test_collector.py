"""Which finished TaskActions go, and that they do."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from flyte_manager.kubernetes import collector
from flyte_manager.kubernetes.collector import Collector, Limits, collectable
from flyte_manager.kubernetes.objects import Kept
from tests.fakes.clock import NOW, FakeClock
from tests.fakes.orders import action_id

HOUR = Limits(age=3600, count=1000)


def kept(uid: str, *, owner: str = "", ended: float | None = 7200, succeeded: bool = True) -> Kept:
    """`ended`: seconds ago; None for one that runs."""
    return Kept(
        name=f"name-{uid}",
        uid=uid,
        version="1",
        id=action_id(uid),
        parent="",
        created_at=NOW - timedelta(seconds=10_000),
        owner=owner,
        final=ended is not None,
        succeeded=ended is not None and succeeded,
        ended_at=None if ended is None else NOW - timedelta(seconds=ended),
    )


def gone(*objects: Kept, limits: Limits = HOUR) -> Sequence[str]:
    return [each.uid for each in collectable(objects, limits=limits, now=NOW)]


def test_what_ended_longer_ago_goes_oldest_first() -> None:
    assert gone(kept("a", ended=4000), kept("b", ended=100), kept("c", ended=9000), kept("d", ended=None)) == ["c", "a"]


def test_beyond_the_count_the_oldest_go() -> None:
    objects = [kept(str(age), ended=age) for age in (10, 20, 30, 40)]
    assert gone(*objects, limits=Limits(age=3600, count=2)) == ["40", "30"]


def test_one_without_a_time_of_its_end_counts_from_its_creation() -> None:
    assert gone(replace(kept("a"), ended_at=None)) == ["a"]


def test_who_owns_an_unfinished_one_stays_at_any_depth() -> None:
    tree = [kept("root"), kept("child", owner="root"), kept("leaf", owner="child", ended=None)]
    assert gone(*tree) == []


def test_a_finished_tree_goes_by_its_root() -> None:
    tree = [kept("root"), kept("child", owner="root"), kept("leaf", owner="child", ended=5)]
    assert gone(*tree) == ["root"]


def test_below_a_parent_that_runs_only_what_succeeded_goes() -> None:
    tree = [
        kept("root", ended=None),
        kept("good", owner="root"),
        kept("bad", owner="root", succeeded=False),
        kept("below bad", owner="bad", succeeded=False),
    ]
    assert gone(*tree) == ["good"]


def test_one_that_is_being_deleted_is_left_alone() -> None:
    assert gone(replace(kept("a"), leaving=True)) == []


def test_owners_in_a_circle_end_the_walk() -> None:
    assert gone(kept("a", owner="b", ended=None), kept("b", owner="a"), kept("c", owner="c")) == ["c"]


class Deletions:
    """Implements Deleting."""

    def __init__(self, *, fails_at: str = "") -> None:
        self.names: list[str] = []
        self._fails_at = fails_at

    async def __call__(self, found: Kept) -> None:
        if found.uid == self._fails_at:
            raise ConnectionError("no route")
        self.names.append(found.name)


async def test_a_sweep_deletes_them(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PER_SECOND", 10_000.0)
    deletions = Deletions()
    objects = [kept("a"), kept("b"), kept("c", ended=1)]
    assert await Collector(lambda: objects, deletions, limits=HOUR, clock=clock).sweep() == 2
    assert sorted(deletions.names) == ["name-a", "name-b"]


async def test_nothing_goes_before_all_is_known(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PER_SECOND", 10_000.0)
    all_known, deletions, objects = asyncio.Event(), Deletions(), [kept("bad", owner="root", succeeded=False)]

    async def until_known() -> None:
        await all_known.wait()

    work = asyncio.create_task(Collector(lambda: objects, deletions, limits=HOUR, clock=clock).run(until_known))
    await asyncio.sleep(0.02)
    objects += [kept("root", ended=None), kept("good", owner="root")]
    all_known.set()
    await asyncio.sleep(0.02)
    work.cancel()
    assert deletions.names == ["name-good"]


async def test_an_error_ends_the_sweep_and_is_told(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PER_SECOND", 10_000.0)
    objects = [kept("a", ended=9000), kept("b", ended=8000), kept("c", ended=7000)]
    deletions = Deletions(fails_at="b")
    with caplog.at_level(logging.WARNING):
        assert await Collector(lambda: objects, deletions, limits=HOUR, clock=clock).sweep() == 1
    assert deletions.names == ["name-a"]
    assert "name-b could not be deleted: no route" in caplog.text
