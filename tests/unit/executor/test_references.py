"""Runs that refer to the files of others: those stay, until nobody does any more."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from flyte_manager.domain.ids import RunId
from flyte_manager.domain.retention import Bounds, FinishedRun, circles, targets
from flyte_manager.ledger.retention import Retained
from tests.fakes.orders import new_task
from tests.unit.executor.keeping import DAY, Keeping
from tests.unit.executor.keeping import keeping as keeping


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


async def test_runs_that_refer_to_each_other_alone_go_together(keeping: Keeping) -> None:
    await keeping.run("r0")
    await keeping.run("r1", f"{keeping.base}/r2/a0/1/raw/file {keeping.base}/r0/a0/1/raw/file".encode())
    await keeping.run("r2", f"{keeping.base}/r1/a0/1/raw/file".encode())
    await keeping.run("r3", f"{keeping.base}/r4/a0/1/raw/file".encode())
    await keeping.run("r4", f"{keeping.base}/r3/a0/1/raw/file".encode())
    await keeping.begin("live", f"{keeping.base}/r4/a0/1/raw/file".encode())
    done = await keeping.prune(Bounds(age=0))
    assert (done.runs, done.held) == (3, 2)
    assert await keeping.left() == {"r3", "r4", "live"}


@pytest.mark.parametrize(
    ("referrers", "found"),
    [
        ({}, []),
        ({"a": {"b"}, "b": {"a"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"a", "outside"}}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"outside"}, "d": {"c"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}, "x": {"y"}, "y": {"x"}}, [{"a", "b", "c"}, {"x", "y"}]),
        ({"a": {"b"}, "b": {"a"}, "c": {"a", "outside"}}, [{"a", "b"}]),
    ],
)
def test_circles_are_found(referrers: dict[str, set[str]], found: list[set[str]]) -> None:
    assert sorted(circles(referrers), key=min) == found


async def test_who_is_freed_goes_before_the_younger_where_size_counts(keeping: Keeping) -> None:
    await keeping.run("r0", b"x" * 10_000)
    await keeping.run("r1", f"{keeping.base}/r0/a0/1/raw/file".encode() + b"x" * 10_000)
    await keeping.run("r2", b"x" * 10_000)
    await keeping.prune(Bounds(size=15_000))
    assert await keeping.left() == {"r2"}


def test_references_are_read_from_bytes_of_any_kind() -> None:
    content = b'\x0a\x20/s/p/d/r1/a0/1/outputs.pb*\x05other "s3://b/x/uploads/p/d/k/code.tgz" /s /sother/p /s/p\x00/s//'
    assert targets(content, ["/s", "s3://b/x"]) == {
        "/s/p/d/r1/a0/1/outputs.pb*",
        "s3://b/x/uploads/p/d/k/code.tgz",
        "/s/p",
    }
    assert targets(b"/s/a/b/c/d/e/f/g", ["/s"]) == {"/s/a/b/c/d/e/f"}
