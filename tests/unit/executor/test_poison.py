"""An action that can't be started, whatever the reason, does not take the place of others."""

from dataclasses import replace

import pytest
from flyteidl2.task import run_pb2

from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Launch
from flyte_manager.executor.controller import Done
from flyte_manager.ledger.watch import Reader
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_run

ROOT = action_id()


async def start(middle: Middle, run_spec: run_pb2.RunSpec) -> None:
    order = new_run(base=middle.blobs.join("flytesnacks", "development"))
    await middle.ledger.create_run(replace(order, run_spec=run_spec.SerializeToString()))


async def test_a_run_spec_that_can_not_be_read_fails_the_action_with_its_words(middle: Middle) -> None:
    spec = run_pb2.RunSpec()
    spec.run_start_time.seconds = 1 << 60
    await start(middle, spec)
    assert await middle.reconciler.reconcile(ROOT) == Done()
    root = await middle.action(ROOT)
    assert root.phase is Phase.FAILED
    assert root.failure
    assert "out of range" in root.failure.message
    assert not middle.admission._held


async def test_a_launch_that_breaks_frees_its_place_while_it_backs_off(middle: Middle) -> None:
    await start(middle, run_pb2.RunSpec())
    middle.runtime.failing = 1
    with pytest.raises(OSError, match="not ready"):
        await middle.reconciler.reconcile(ROOT)
    assert not middle.admission._held
    await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.RUNNING
    assert list(middle.admission._held) == [ROOT]


async def test_a_launch_that_the_world_puts_off_keeps_its_place(
    middle: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put_off(_runtime: object, _launch: Launch) -> None:
        raise Unavailable(problem="the zygote is being restarted")

    await start(middle, run_pb2.RunSpec())
    monkeypatch.setattr(type(middle.runtime), "launch", put_off)
    with pytest.raises(Unavailable):
        await middle.reconciler.reconcile(ROOT)
    assert list(middle.admission._held) == [ROOT]


async def test_a_database_that_can_not_be_read_for_a_moment_fails_nobody(
    middle: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_reader: object, _digest: str) -> bytes:
        raise Unavailable(problem="no file descriptors are left")

    await start(middle, run_pb2.RunSpec())
    with monkeypatch.context() as broken:
        broken.setattr(Reader, "spec", fails)
        with pytest.raises(Unavailable):
            await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.QUEUED
    await middle.reconciler.reconcile(ROOT)
    assert await middle.phase(ROOT) is Phase.RUNNING
