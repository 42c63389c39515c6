"""A manager's middle with its stores, where runs are made, end, and go."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flyte_manager.blobs.folders import Folders
from flyte_manager.domain.actions import Budget
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.retention import Bounds
from flyte_manager.executor.retention import Pruned, Retention
from flyte_manager.ledger.retention import Retained
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle, middle, told
from tests.fakes.orders import action_id, new_run, run_id, task_spec

DAY = 86_400.0
BOUND = Bounds(age=10 * DAY)


@dataclass
class Keeping:
    """A manager's middle with its stores, where runs are made, end, and go."""

    folder: Path
    clock: FakeClock
    middle: Middle
    lines: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.middle.blobs.join("flytesnacks", "development")

    @property
    def retention(self) -> Retention:
        return Retention(
            retained=Retained(self.middle.database),
            stores=[Folders(self.middle.blobs.root)],
            attempts=Folders(str(self.folder / "attempts")),
            domains=["development"],
            clock=self.clock,
        )

    async def begin(self, name: str, inputs: bytes = b"", *, code: str = "") -> None:
        spec = task_spec()
        if code:
            spec.task_template.container.args.extend(["--tgz", code])
        order = new_run(name, base=self.base, spec=spec)
        await self.middle.blobs.write(order.input_uri, inputs)
        await self.middle.ledger.create_run(order)
        log = self.folder / "attempts/flytesnacks/development" / name / "a0/1/log"
        log.parent.mkdir(parents=True)
        log.write_bytes(b"log" * 10)

    async def end(self, name: str, outputs: bytes = b"") -> None:
        """And a day passes."""
        await self.middle.blobs.write(f"{self.base}/{name}/a0/1/outputs.pb", outputs)
        action = await self.middle.action(action_id("a0", name))
        await self.middle.ledger.report(told(action, Phase.SUCCEEDED, self.clock), Budget())
        self.clock.advance(DAY)

    async def run(self, name: str, outputs: bytes = b"x" * 1000, inputs: bytes = b"") -> None:
        await self.begin(name, inputs)
        await self.end(name, outputs)

    async def upload(self, name: str, *, age: float) -> str:
        uri = self.middle.blobs.join("uploads", "flytesnacks", "development", name, "code.tgz")
        await self.middle.blobs.write(uri, b"code")
        used = self.clock().timestamp() - age
        os.utime(uri, (used, used))
        return uri

    def uploads(self) -> set[str]:
        folder = Path(self.middle.blobs.join("uploads", "flytesnacks", "development"))
        return {each.name for each in folder.iterdir()}

    async def prune(self, bounds: Bounds = BOUND, *, dry: bool = False) -> Pruned:
        return await self.retention.prune(bounds, dry=dry, tell=self.lines.append)

    async def left(self) -> set[str]:
        """Runs that are there, in rows and folders alike."""
        found: set[str] = set()
        for folder in (Path(self.base), self.folder / "attempts/flytesnacks/development"):
            names = {each.name for each in folder.iterdir()}
            assert not found or names == found
            found = names
        for name in found:
            assert (await self.middle.reader.run(run_id(name))).id.name == name
        return found

    def rows(self, table: str) -> int:
        with closing(sqlite3.connect(self.folder / "flyte.db")) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Keeping]:
    clock = FakeClock()
    async with middle(tmp_path, clock) as opened:
        yield Keeping(tmp_path, clock, opened)
