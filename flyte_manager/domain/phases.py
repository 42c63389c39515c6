"""Phases of attempts and actions (numbers as in flyteidl2.common.ActionPhase).

QUEUED -> WAITING_FOR_RESOURCES -> INITIALIZING -> RUNNING -> SUCCEEDED
   |               |                    |             |----> FAILED, TIMED_OUT
   '---------------'--------------------'-------------'----> ABORTED
conditions: QUEUED -> PAUSED -> SUCCEEDED | TIMED_OUT | ABORTED
"""

from enum import IntEnum


class Phase(IntEnum):
    QUEUED = 1
    WAITING_FOR_RESOURCES = 2
    INITIALIZING = 3
    RUNNING = 4
    SUCCEEDED = 5
    FAILED = 6
    ABORTED = 7
    TIMED_OUT = 8
    PAUSED = 9
    RECOVERED = 10

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT, Phase.RECOVERED})
ROAD = (Phase.QUEUED, Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING, Phase.RUNNING)
"""The phases that an attempt goes through before its end, in order."""


class Kind(IntEnum):
    """What an action is (numbers as in flyteidl2.workflow.ActionType)."""

    TASK = 1
    TRACE = 2
    CONDITION = 3
