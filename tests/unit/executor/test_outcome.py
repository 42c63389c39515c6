"""When an attempt ended."""

from datetime import datetime, timedelta

import pytest

from flyte_manager.executor.outcome import sharpened
from tests.fakes.clock import NOW


@pytest.mark.parametrize(
    ("told", "seconds_ago", "sharp"),
    [
        (NOW, 0.7, True),
        (NOW, 1.9, True),
        (NOW, 2.1, False),
        (NOW, -0.5, False),
        (NOW + timedelta(microseconds=250), 0.7, False),
    ],
)
def test_a_whole_second_that_was_told_for_just_now_is_now(told: datetime, seconds_ago: float, sharp: bool) -> None:
    now = told + timedelta(seconds=seconds_ago)
    assert sharpened(told, now) == (now if sharp else told)
