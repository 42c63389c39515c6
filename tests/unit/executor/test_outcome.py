"""When and how an attempt ended."""

from datetime import datetime, timedelta

import pytest
from flyteidl2.core import execution_pb2

from flyte_manager.domain.attempts import StopReason
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Unsettled
from flyte_manager.executor.outcome import CHILD_ABORTED, sharpened
from tests.fakes.clock import NOW
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_run, task_spec
from tests.fakes.runtime import FakeRuntime

ROOT = action_id()
FIRST = AttemptId(ROOT, 1)


async def failed_with(middle: Middle, code: str, *, exit_code: int = 1, reason: StopReason | None = None) -> None:
    """The first attempt of a task with retries wrote this error, which may be tried again, and ended."""
    order = new_run(spec=task_spec(retries=3), base=middle.blobs.join("flytesnacks", "development"))
    await middle.ledger.create_run(order)
    await middle.reconciler.reconcile(ROOT)
    error = execution_pb2.ContainerError(code=code, message="its words", kind=execution_pb2.ContainerError.RECOVERABLE)
    document = execution_pb2.ErrorDocument(error=error).SerializeToString()
    await middle.blobs.write(f"{order.base_uri}/a0/1/error.pb", document)
    middle.runtime.finish(FIRST, exit_code, reason=reason)
    await middle.reconciler.reconcile(ROOT)


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


async def test_an_error_that_may_be_tried_again_is(middle: Middle) -> None:
    await failed_with(middle, "ValueError")
    assert (await middle.action(ROOT)).attempt == 2


async def test_who_fails_of_a_child_that_was_aborted_is_not_tried_again(middle: Middle) -> None:
    await failed_with(middle, CHILD_ABORTED)
    root = await middle.action(ROOT)
    assert (root.phase, root.attempt) == (Phase.FAILED, 1)


@pytest.mark.parametrize(
    ("reason", "phase", "code"),
    [
        (StopReason.TIMEOUT, Phase.TIMED_OUT, "MAX_RUNTIME_EXCEEDED"),
        (StopReason.OUT_OF_MEMORY, Phase.FAILED, "OOM"),
        (StopReason.ABORTED, Phase.FAILED, "Interrupted"),
    ],
)
async def test_why_an_attempt_was_stopped_is_told_whatever_it_wrote_about_it(
    middle: Middle, reason: StopReason, phase: Phase, code: str
) -> None:
    await failed_with(middle, "CancelledError", exit_code=-15, reason=reason)
    first, *_ = await middle.attempts(ROOT)
    assert first.failure is not None
    assert (first.phase, first.failure.code) == (phase, code)


async def test_the_next_attempt_waits_until_the_log_of_the_one_before_is_kept(
    middle: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unsettled(problem="the store is away for a moment")

    await failed_with(middle, "ValueError")
    with monkeypatch.context() as patched:
        patched.setattr(FakeRuntime, "settle", away)
        with pytest.raises(Unsettled):
            await middle.reconciler.reconcile(ROOT)
    waits = await middle.action(ROOT)
    assert (waits.phase, waits.reason) == (Phase.WAITING_FOR_RESOURCES, "the store is away for a moment")
    assert [launch.attempt.number for launch in middle.runtime.launched] == [1]
    await middle.reconciler.reconcile(ROOT)
    assert middle.runtime.settled == [FIRST]
    assert [launch.attempt.number for launch in middle.runtime.launched] == [1, 2]
