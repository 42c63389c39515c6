"""What every implementation of ports.Trees does. A new one is added to `TREES`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest

from flyte_manager.blobs.directory import Directory
from flyte_manager.blobs.folders import Folders
from flyte_manager.blobs.object_store import ObjectStore
from flyte_manager.domain.ports import Blobs, Trees
from tests.conformance.test_blobs import object_store

Pair = tuple[Blobs, Trees]


def folders(request: pytest.FixtureRequest, folder: Path) -> Pair:  # noqa: ARG001
    blobs = Directory(folder / "store")
    return blobs, Folders(blobs.root)


def objects(request: pytest.FixtureRequest, folder: Path) -> Pair:
    store = object_store(request, folder)
    return store, store  # type: ignore[return-value]


TREES: dict[str, Callable[[pytest.FixtureRequest, Path], Pair]] = {"folders": folders, "object store": objects}


@pytest.fixture(params=TREES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return TREES[request.param](request, tmp_path)


async def found(trees: Trees, folder: str) -> dict[str, int]:
    return {each.uri: each.size async for page in trees.stored(folder) for each in page}


async def test_what_lies_in_a_folder_is_listed_and_taken_away_and_nothing_beside_it(pair: Pair) -> None:
    blobs, trees = pair
    inside = {blobs.join("p/d/r1", f"a{number}/1/outputs.pb"): number for number in range(1, 1203)}
    beside = blobs.join("p/d/r12/outputs.pb")
    for uri, size in (*inside.items(), (beside, 7)):
        await blobs.write(uri, b"x" * size)
    assert await found(trees, f"{trees.root}/p/d/r1") == inside
    assert await trees.beginning(beside, limit=100) == b"x" * 7
    for _ in range(2):
        await trees.remove(f"{trees.root}/p/d/r1")
    assert await found(trees, f"{trees.root}/p/d/r1") == {}
    assert await found(trees, f"{trees.root}/p") == {beside: 7}
    assert await trees.beginning(f"{trees.root}/p/d/r1/a1/1/outputs.pb", limit=100) is None


async def test_of_a_large_object_only_the_beginning_is_read(pair: Pair) -> None:
    blobs, trees = pair
    uri, empty = blobs.join("p/d/r1/outputs.pb"), blobs.join("p/d/r1/inputs.pb")
    await blobs.write(uri, b"x" * 50 + b"y" * 50)
    await blobs.write(empty, b"")
    assert await trees.beginning(uri, limit=51) == b"x" * 50 + b"y"
    assert await trees.beginning(uri, limit=100) == b"x" * 50 + b"y" * 50
    assert await trees.beginning(empty, limit=51) == b""
    assert await trees.beginning(f"{trees.root}/p/d/../r1\0/?", limit=51) is None


def write_as_tasks_do(trees: Trees, path: str) -> None:
    """A name that the manager would not give."""
    if isinstance(trees, ObjectStore):
        obstore.put(trees._provider.store, f"{trees._provider.prefix}{path}", b"1234", use_multipart=False)
    else:
        file = Path(trees.root, path)
        file.parent.mkdir(parents=True)
        file.write_bytes(b"1234")


@pytest.mark.parametrize("name", ["a#b", "a?b", "a b%41+", "ä\u2603", "x" * 200])
async def test_what_tasks_have_given_odd_names_is_taken_away_too(pair: Pair, name: str) -> None:
    _, trees = pair
    write_as_tasks_do(trees, f"p/d/r1/raw/{name}")
    assert list((await found(trees, f"{trees.root}/p/d/r1")).values()) == [4]
    await trees.remove(f"{trees.root}/p/d/r1")
    assert await found(trees, f"{trees.root}/p/d/r1") == {}


async def test_the_time_of_the_last_write_is_told(pair: Pair) -> None:
    blobs, trees = pair
    await blobs.write(blobs.join("uploads/x"), b"x")
    ((only,),) = [page async for page in trees.stored(f"{trees.root}/uploads")]
    assert abs(only.modified_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    run = tmp_path / "store/r1"
    run.mkdir(parents=True)
    (run / "link").symlink_to(outside)
    (run / "inputs.pb").symlink_to(outside / "kept")
    trees = Folders(str(tmp_path / "store"))
    assert await trees.beginning(str(run / "inputs.pb"), limit=100) is None
    await trees.remove(str(run))
    assert (outside / "kept").exists()
    assert not run.exists()
