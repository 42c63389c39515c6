"""The log of an attempt: framed while it runs, limited, readable at any time."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flyte_manager.processes import folder as disk
from flyte_manager.processes import frames, logs
from tests.unit.processes.world import World, eventually, world


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "attempts", limit=20_000) as made:
        yield made


async def test_lines_have_their_time_and_notes_come_first(cold: World) -> None:
    before = datetime.now(UTC)
    attempt = await cold.shell("a0", "echo one; echo two >&2; printf three", notes=["asked for 9 CPU", "got\n2"])
    await cold.end(attempt)
    lines = await cold.lines(attempt)
    assert [line.message for line in lines if line.system] == ["asked for 9 CPU", "got", "2"]
    assert [line.message for line in lines[:3]] == ["asked for 9 CPU", "got", "2"]
    assert sorted(line.message for line in lines if not line.system) == ["one", "three", "two"]
    assert all(before.timestamp() - 1 <= line.at.timestamp() <= datetime.now(UTC).timestamp() for line in lines)


async def test_stdout_and_stderr_are_told_apart_on_disk(cold: World) -> None:
    attempt = await cold.shell("a0", "echo one; echo two >&2")
    await cold.end(attempt)
    content = (cold.folder(attempt) / disk.LOG).read_bytes()
    streams = {found[2]: found[1] for line in content.splitlines() if (found := frames.parse(line))}
    assert streams == {"one": frames.OUT, "two": frames.ERR}


async def test_a_log_at_its_limit_says_so_and_the_task_goes_on(cold: World) -> None:
    attempt = await cold.shell("a0", "yes 0123456789 | head -c 5000000; echo err >&2; exit 4")
    seen = await cold.end(attempt)
    assert seen.exit
    assert seen.exit.code == 4
    remarks = await cold.remarks(attempt)
    assert remarks.count("has reached its limit") == 1
    assert "bytes of output above the log's limit were dropped" in remarks
    assert 19_000 <= (cold.folder(attempt) / disk.LOG).stat().st_size < 21_000


async def test_empty_lines_long_lines_and_odd_bytes_survive(tmp_path: Path) -> None:
    write = "import sys; w = sys.stdout.buffer.write; w(b'\\n\\xff\\n' + b'x' * 200000 + b'\\nend 1 o x\\n')"
    async with world(tmp_path / "attempts") as made:
        attempt = await made.start("a0", "python", "-c", write)
        await made.end(attempt)
        first, odd, *long, last = await made.output(attempt)
    assert (first, odd, last) == ("", "�", "end 1 o x")
    assert "".join(long) == "x" * 200_000


@pytest.mark.parametrize("chunk", [frames.LINE_BYTES // 2, frames.LINE_BYTES, 1 << 20, 4 << 20])
def test_lines_are_cut_to_their_largest_size_however_they_come(chunk: int) -> None:
    written = b"a\n" + b"x" * (3 << 20) + b"\n\n" + b"y" * (1 << 20)
    cutter = frames.LineCutter()
    lines = [line for at in range(0, len(written), chunk) for line in cutter.feed(written[at : at + chunk])]
    lines += cutter.rest()
    assert max(map(len, lines)) == frames.LINE_BYTES
    assert b"".join(lines) == written.replace(b"\n", b"")
    assert lines.count(b"") == 1


async def test_a_line_that_is_larger_than_a_page_hides_nothing_behind_it(tmp_path: Path) -> None:
    log = tmp_path / "log"  # as the shepherd wrote them once
    log.write_bytes(frames.frame(frames.OUT, [b"one", b"x" * (1 << 20), b"three", b"y" * logs.PAGE_BYTES]))

    async def ended() -> bool:
        return True

    lines = [line async for page in logs.follow(str(log), ended) for line in page]
    assert [len(line.message) for line in lines] == [3, 1 << 20, 5, logs.PAGE_BYTES]


async def test_a_reader_follows_until_the_end(cold: World) -> None:
    attempt = await cold.shell("a0", "for n in 1 2 3; do echo $n; sleep 0.3; done; echo last")
    over = asyncio.Event()
    pages: list[list[str]] = []

    async def ended() -> bool:
        return over.is_set()

    async def read() -> None:
        async for page in cold.processes.tail(attempt, ended=ended):
            pages.append([line.message for line in page])

    reader = asyncio.create_task(read())
    await eventually(lambda: pages)
    assert pages[0][0] == "1"
    assert "last" not in pages[0]
    await cold.end(attempt)
    over.set()
    await reader
    assert [line for page in pages for line in page] == ["1", "2", "3", "last"]
    assert len(pages) > 1


async def test_a_reader_of_a_log_that_never_was_ends_when_told(cold: World) -> None:
    asked = 0

    async def ended() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    (cold.root / "none").parent.mkdir(parents=True, exist_ok=True)
    assert [page async for page in logs.follow(str(cold.root / "none"), ended)] == []
    assert asked == 3


async def test_a_long_log_comes_in_pages(tmp_path: Path) -> None:
    async with world(tmp_path / "attempts") as made:
        attempt = await made.shell("a0", "seq 60000")
        await made.end(attempt)

        async def ended() -> bool:
            return True

        pages = [page async for page in made.processes.tail(attempt, ended=ended)]
    assert [line.message for page in pages for line in page] == [str(n) for n in range(1, 60001)]
    assert len(pages) > 3


def test_a_full_disk_costs_lines_but_never_raises() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        writer = frames.LogWriter(fd, 1000)
        writer.write(frames.OUT, [b"lost"])
        writer.system("lost too")
        assert writer.lost > 20
    finally:
        os.close(fd)


def test_a_line_after_one_that_was_cut_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1700000000000 o cut he\n1700000000001 o whole\nnonsense\n1700000000002 e incompl")
    offset, page, _ = logs._read(str(path), 0)
    assert [line.message for line in page] == ["cut he", "whole"]
    assert offset == path.read_bytes().rfind(b"\n") + 1


async def test_a_chatty_task_does_not_keep_its_shepherd_busy(tmp_path: Path) -> None:
    chat = "import os\nfor n in range(200000): os.write(1, b'a line of some length, written alone\\n')"
    async with world(tmp_path / "attempts") as made:
        attempt = await made.start("a0", "python", "-c", chat)
        shepherd = made.shepherd(attempt)
        spent: list[float] = []

        def sample() -> bool:
            try:
                with open(f"/proc/{shepherd}/schedstat", encoding="ascii") as file:
                    spent.append(int(file.read().split()[0]) / 1e9)
            except (FileNotFoundError, ProcessLookupError):
                return True
            return False

        await eventually(sample)
        assert len(await made.output(attempt)) == 200_000
    assert max(spent) < 1.0


def test_a_line_that_the_disk_cut_off_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, whole = tmp_path / disk.LOG, os.write
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = frames.LogWriter(fd, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: whole(fd, data[:-4]))
        writer.write(frames.OUT, [b"cut off"])
    writer.write(frames.OUT, [b"after"])
    os.close(fd)
    cut, after = log.read_bytes().splitlines()
    assert cut.endswith(b" o cut ")
    assert after.endswith(b" o after")
    assert writer.lost == 4
