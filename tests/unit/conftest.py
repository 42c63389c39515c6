from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.middle import middle as open_middle


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def middle(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Middle]:
    async with open_middle(tmp_path, clock) as opened:
        yield opened
