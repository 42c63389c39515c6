"""Phases as clients send them."""

from typing import cast

from flyteidl2.common import phase_pb2

from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.phases import Phase


class UnknownPhase(Invalid):
    """phase {phase!r} is not known: use one of {known}."""


def phase_of(number: int) -> Phase:
    """Raises UnknownPhase."""
    try:
        return Phase(number)
    except ValueError:
        raise UnknownPhase(phase=number, known=", ".join(f"{each.value} {each.name}" for each in Phase)) from None


def phase_named(name: str) -> Phase:
    """The phase in a state document: `PHASE_RUNNING` as upstream, `ACTION_PHASE_RUNNING` or `RUNNING`. Raises
    UnknownPhase."""
    short = name.removeprefix("ACTION_").removeprefix("PHASE_")
    if short not in Phase.__members__:
        raise UnknownPhase(phase=name[:60], known=", ".join(f"PHASE_{each.name}" for each in Phase))
    return Phase[short]


def phase_proto(phase: Phase) -> phase_pb2.ActionPhase:
    """The same number; the stubs take enums for classes of their own."""
    return cast(phase_pb2.ActionPhase, phase)
