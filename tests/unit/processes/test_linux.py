"""Calls of Linux that need no other process."""

import ctypes
import mmap
import os
from unittest import mock

from flyte_manager.processes import linux


def test_memory_keeps_its_content_in_huge_pages() -> None:
    content = os.urandom(3 * linux._HUGE_BYTES)
    with mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE) as area:
        area.write(content)
        linux.use_huge_pages()
        assert area[:] == content


def test_huge_pages_are_asked_for_where_whole_ones_fit_into_memory_without_a_file() -> None:
    libc = mock.Mock()
    with mmap.mmap(-1, 4 * linux._HUGE_BYTES, flags=mmap.MAP_PRIVATE) as area:
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        with mock.patch.object(linux, "_libc", return_value=libc):
            linux.use_huge_pages()
        with open("/proc/self/maps", encoding="utf-8") as file:
            spans = [line.split()[0].split("-") for line in file if "rw-p" in line and ("/" not in line)]
    asked = [(call.args[0].value, call.args[1].value) for call in libc.madvise.call_args_list]
    assert len([place for place, _ in asked if start <= place < start + 4 * linux._HUGE_BYTES]) >= 3
    for place, size in asked:
        assert place % linux._HUGE_BYTES == 0
        assert any(int(first, 16) <= place and place + size <= int(end, 16) for first, end in spans)
