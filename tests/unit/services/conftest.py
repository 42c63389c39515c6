from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.services.running import Manager, running


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    async with running(tmp_path) as started:
        yield started
