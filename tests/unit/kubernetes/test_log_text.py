"""How a kubelet's log becomes lines, how lines are kept, and how a reader who comes again skips what it has."""

from datetime import UTC, datetime

import pytest

from flyte_manager.domain.ports import LogLine
from flyte_manager.kubernetes import log_text
from flyte_manager.kubernetes.log_text import LINE_BYTES, Collector, Cutter, Entry, Position, pages, remark
from tests.fakes.clock import NOW, FakeClock

STAMP = b"2026-11-23T09:00:05.123456789Z"


def cut(*pieces: bytes) -> list[Entry]:
    cutter = Cutter(FakeClock())
    found = [entry for piece in pieces for entry in cutter.feed(piece)]
    return found + cutter.rest()


def texts(entries: list[Entry]) -> list[bytes]:
    return [entry.text for entry in entries]


def stamped(number: int, text: str = "x") -> Entry:
    return Entry(b"2026-11-23T09:00:00.%09dZ" % number, text.encode())


def test_lines_are_cut_wherever_the_pieces_end() -> None:
    data = STAMP + b" one\n" + STAMP + b" \n" + STAMP + b"  indented\r\n" + STAMP + b" without end"
    expected = [b"one", b"", b" indented\r", b"without end"]
    for size in (1, 7, 10_000):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert texts(cut(*pieces)) == expected


def test_a_line_tells_its_time_and_survives_any_bytes() -> None:
    (entry,) = cut(STAMP + b" \x1b[31mred\x1b[0m \xff\x00\n")
    assert entry.line == LogLine(datetime(2026, 11, 23, 9, 0, 5, 123456, UTC), "\x1b[31mred\x1b[0m \ufffd\x00")


def test_what_the_kubelet_says_itself_is_the_systems() -> None:
    words = b"failed to try resolving symlinks in path /var/log/pods/x: no such file"
    (entry,) = cut(words + b"\n")
    assert entry.line == LogLine(NOW, words.decode(), system=True)


@pytest.mark.parametrize("size", [100, 3_000, LINE_BYTES, 1 << 20])
def test_a_long_line_is_split_at_the_same_places_however_it_comes(size: int) -> None:
    text = bytes(number % 251 + 3 for number in range(LINE_BYTES * 2 + 5)).replace(b"\n", b".")
    data = STAMP + b" " + text + b"\n" + STAMP + b" next\n"
    found = cut(*(data[start : start + size] for start in range(0, len(data), size)))
    assert [len(entry.text) for entry in found] == [LINE_BYTES, LINE_BYTES, 5, 4]
    assert b"".join(texts(found)[:3]) == text
    assert {entry.stamp for entry in found} == {STAMP}


def test_a_kept_log_is_read_back_page_by_page() -> None:
    entries = [stamped(number, f"line {number}") for number in range(1000)]
    collector = Collector(1 << 20)
    collector.add(entries)
    collector.add([remark(NOW, "container 'main' was killed\nfor want of memory")])
    content = collector.content(NOW)
    assert content.startswith(b"2026-11-23T09:00:00.000000000Z o line 0\n")
    found = [list(page) for page in pages(content, page_bytes=1000)]
    assert len(found) == 1
    small = Collector(1 << 22)
    small.add([stamped(number, "y" * 60_000) for number in range(20)])
    read = list(pages(small.content(NOW), page_bytes=100))
    assert len(read) > 10
    assert [entry for page in read for entry in page] == [stamped(number, "y" * 60_000) for number in range(20)]
    assert found[0][:1000] == entries
    assert found[0][-1].line == LogLine(NOW, "container 'main' was killed for want of memory", system=True)


def test_of_a_log_above_the_limit_the_end_is_kept_and_the_rest_is_told() -> None:
    collector = Collector(100_000)
    collector.add(stamped(number, "z" * 900) for number in range(1000))
    content = collector.content(NOW)
    assert len(content) < 100_200
    lines = [entry for page in pages(content) for entry in page]
    assert lines[-1] == stamped(999, "z" * 900)
    assert lines[0].system
    kept = len(lines) - 1
    assert kept > 70
    assert str((1000 - kept) * len(stamped(0, "z" * 900).kept)) in lines[0].line.message


def test_bytes_that_are_no_kept_log_are_left_out() -> None:
    assert [entry for page in pages(b"garbage\n\xff\xff\n" + STAMP + b" o fine\nx o y\n") for entry in page] == [
        Entry(STAMP, b"fine")
    ]


def test_a_reader_that_comes_again_skips_what_it_has_even_within_one_moment() -> None:
    position = Position()
    same = [stamped(5, "a"), stamped(5, "b"), stamped(5, "b")]
    assert position.new([stamped(1, "x"), *same[:2]]) == [stamped(1, "x"), *same[:2]]
    position.again()
    later = [stamped(6, "c")]
    assert position.new([stamped(1, "x"), *same, *later]) == [same[2], *later]
    assert position.stamp == later[0].stamp
    position.again()
    assert position.new([*same, *later]) == []


def test_times_are_compared_however_many_digits_they_have() -> None:
    position = Position()
    position.new([Entry(b"2026-11-23T09:00:05.1Z", b"a")])
    position.again()
    assert position.new([Entry(b"2026-11-23T09:00:05Z", b"b")]) == []
    assert position.new([Entry(b"2026-11-23T10:00:05.100000000+01:00", b"a")]) == []
    assert texts(position.new([Entry(b"2026-11-23T09:00:05.100000001Z", b"c")])) == [b"c"]


def test_a_remark_is_always_new() -> None:
    position = Position()
    said = remark(NOW, "something")
    assert position.new([stamped(5), said]) == [stamped(5), said]
    position.again()
    assert position.new([stamped(5), said]) == [said]
    assert log_text.SYSTEM in said.kept
