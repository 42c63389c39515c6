"""What the verdict says of a pod, in short."""

from flyte_manager.domain.attempts import Exit, Failure, Observation
from flyte_manager.kubernetes.verdict import VerdictSettings, read
from tests.unit.kubernetes.statuses import Document, pod, time, with_states

SETTINGS = VerdictSettings()


def seen(document: Document, now: float = 10, settings: VerdictSettings = SETTINGS) -> Observation:
    return read(document, now=time(now), settings=settings)


def failure_of(document: Document, now: float = 10, settings: VerdictSettings = SETTINGS) -> Failure:
    failure = seen(document, now, settings).failure
    assert failure is not None
    return failure


def exit_of(document: Document, now: float = 10) -> Exit:
    found = seen(document, now).exit
    assert found is not None
    return found


def finished(state: Document, *, phase: str = "Failed", reason: str = "", message: str = "") -> Document:
    return with_states(pod(), state, phase=phase, reason=reason, message=message)
