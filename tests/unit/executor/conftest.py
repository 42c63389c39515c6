from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.cluster import Cluster, cluster, fresh_database


@pytest.fixture
async def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """What waits elsewhere for seconds waits here for an instant."""
    monkeypatch.setattr("flyte_manager.executor.reconcile.ROOM_CHECK_SECONDS", 0.02)
    monkeypatch.setattr("flyte_manager.executor.controller.BACKOFF_FIRST_SECONDS", 0.01)
    monkeypatch.setattr("flyte_manager.executor.controller.BACKOFF_MOST_SECONDS", 0.05)
    monkeypatch.setattr("flyte_manager.kubernetes.client.TRIES", 1)
    monkeypatch.setattr("flyte_manager.kubernetes.informer.BACKOFF_SECONDS", (0.01, 0.05))
    fresh_database(tmp_path / "files")
    async with cluster(tmp_path / "files") as opened:
        yield opened
