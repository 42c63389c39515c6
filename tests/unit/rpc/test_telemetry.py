import io
import logging
import re
from collections.abc import Iterator

import pytest

from flyte_manager.telemetry import set_up_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("flyte_manager")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level = before[:2]
    ours.setLevel(before[2])


def lines(level: int, *, show_source: bool = False) -> list[str]:
    stream = io.StringIO()
    set_up_logging(level, show_source=show_source, stream=stream)
    log = logging.getLogger("flyte_manager.executor.reconcile")
    library = logging.getLogger("uvicorn.error")
    for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(severity, "at %d", severity)
        library.log(severity, "at %d", severity)
    return stream.getvalue().splitlines()


def test_a_line_has_time_level_part_and_message() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO  executor  at 20", lines(4)[0])


@pytest.mark.parametrize(
    ("level", "ours", "libraries"), [(0, 1, 1), (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 3), (5, 5, 5)]
)
def test_the_levels_are_those_of_the_go_manager(level: int, ours: int, libraries: int) -> None:
    written = lines(level)
    assert len([line for line in written if " executor " in line]) == ours
    assert len([line for line in written if " uvicorn " in line]) == libraries


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="6 is not a log level"):
        set_up_logging(6)


def test_the_source_is_shown_on_request() -> None:
    assert "test_telemetry.py:" in lines(4, show_source=True)[0]


def test_a_message_cannot_write_lines_of_its_own() -> None:
    stream = io.StringIO()
    set_up_logging(4, stream=stream)
    logging.getLogger("flyte_manager.rpc").info("name %s", "a\n2026-01-01 ERROR b\x1b[31m\u2028c\r")
    assert stream.getvalue().count("\n") == 1
    assert "a\\n2026-01-01 ERROR b\\x1b[31m\\u2028c\\r" in stream.getvalue()


def test_a_fault_is_followed_by_its_traceback() -> None:
    stream = io.StringIO()
    set_up_logging(4, stream=stream)
    logging.getLogger("flyte_manager").error("it failed", exc_info=ValueError("why"))
    assert stream.getvalue().endswith("ValueError: why\n")
    assert " flyte_manager  it failed" in stream.getvalue()
