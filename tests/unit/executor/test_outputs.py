"""What an attempt's outputs must hold for a success, over the fake world."""

from pathlib import Path

import pytest

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.executor.outcome import install_into
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_run, task_spec

ROOT = action_id()
FIRST = AttemptId(ROOT, 1)
WHOLE = b"\n\x06\n\x02o0\x12\x00"


async def ended(middle: Middle, code: int, content: bytes | None) -> None:
    """The first attempt of a task with one output has ended so, and was looked at."""
    order = new_run(spec=task_spec(outputs=True), base=middle.blobs.join("flytesnacks", "development"))
    await middle.ledger.create_run(order)
    await middle.reconciler.reconcile(ROOT)
    if content is not None:
        await middle.blobs.write(f"{order.base_uri}/a0/1/outputs.pb", content)
    middle.runtime.finish(FIRST, code)
    await middle.reconciler.reconcile(ROOT)


def leads_out(place: Path, elsewhere: Path) -> None:
    """A task's link to a file that is not in the store."""
    elsewhere.write_bytes(WHOLE)
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)


async def test_a_success_without_the_outputs_it_declares_is_a_system_failure(middle: Middle) -> None:
    await ended(middle, 0, None)
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt, root.system_failures) == (Phase.QUEUED, 2, 1)


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\n\x04\n\x02o1", b"\n\x04\n\x02o0"])
async def test_outputs_that_are_not_whole_are_a_system_failure(middle: Middle, content: bytes) -> None:
    await ended(middle, 0, content)
    (first, _) = await middle.attempts(ROOT)
    assert first.failure is not None
    assert first.failure.code == "OutputsDamaged"
    assert "outputs.pb" in first.failure.message


@pytest.mark.parametrize("code", [-6, 134])
async def test_a_task_that_is_aborted_at_its_exit_had_done_its_work(middle: Middle, code: int) -> None:
    await ended(middle, code, WHOLE)
    (attempt,) = await middle.attempts(ROOT)
    assert attempt.phase is Phase.SUCCEEDED
    assert [(event.reason, event.warning) for event in attempt.events] == [("AbortedAtExit", True)]


@pytest.mark.parametrize(("code", "content"), [(-11, WHOLE), (1, WHOLE), (-6, WHOLE[:-2]), (-6, None)])
async def test_any_other_death_is_a_failure(middle: Middle, code: int, content: bytes | None) -> None:
    await ended(middle, code, content)
    (attempt,) = await middle.attempts(ROOT)
    assert attempt.failure is not None
    assert (attempt.phase, attempt.failure.code) == (Phase.FAILED, "ProcessDied")


@pytest.mark.parametrize("name", ["outputs.pb", "error.pb"])
async def test_a_link_that_leads_out_of_the_store_ends_the_attempt(middle: Middle, tmp_path: Path, name: str) -> None:
    order = new_run(spec=task_spec(outputs=True), base=middle.blobs.join("flytesnacks", "development"))
    await middle.ledger.create_run(order)
    await middle.reconciler.reconcile(ROOT)
    leads_out(Path(order.base_uri, "a0", "1", name), tmp_path / "elsewhere")
    middle.runtime.finish(FIRST, 0)
    await middle.reconciler.reconcile(ROOT)
    (attempt,) = await middle.attempts(ROOT)
    assert attempt.failure is not None
    assert attempt.failure.code == "OutputsUnreadable"
    assert "lies outside this manager's store" in attempt.failure.message


async def test_outputs_that_may_not_be_read_end_the_attempt(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(*_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied", "outputs.pb")

    monkeypatch.setattr(Directory, "read", forbidden)
    await ended(middle, 0, WHOLE)
    (attempt,) = await middle.attempts(ROOT)
    assert attempt.failure is not None
    assert attempt.failure.message.endswith("can't be read: [Errno 13] Permission denied: 'outputs.pb'")


async def test_a_report_that_leads_out_of_the_store_is_none(middle: Middle, tmp_path: Path) -> None:
    spec = task_spec()
    spec.task_template.metadata.generates_deck.value = True
    order = new_run(spec=spec, base=middle.blobs.join("flytesnacks", "development"))
    await middle.ledger.create_run(order)
    await middle.reconciler.reconcile(ROOT)
    leads_out(Path(order.base_uri, "a0", "1", "report.html"), tmp_path / "elsewhere")
    middle.runtime.finish(FIRST, 0)
    await middle.reconciler.reconcile(ROOT)
    (attempt,) = await middle.attempts(ROOT)
    assert (attempt.phase, attempt.report_uri) == (Phase.SUCCEEDED, "")


def test_the_advice_for_a_missing_module_can_be_pasted_into_a_shell() -> None:
    advice = install_into("/my files/bin/python")("numpy")
    assert "`'/my files/bin/python' -m pip install numpy`" in advice
    assert "`flyte run --copy-style all`" in advice
