"""Runs counted by their task."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flyte_manager.domain.attempts import ErrorKind
from flyte_manager.domain.filters import Filter
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.phases import Phase


@dataclass(frozen=True, slots=True)
class Span:
    """Which runs are counted: those of a project that were made in a time and meet the filters."""

    project: ProjectId
    since: datetime
    until: datetime | None = None
    filters: Sequence[Filter] = ()
    recent: int = 10
    """how many of each group's newest runs are told one by one"""


@dataclass(slots=True)
class Average:
    total: int = 0
    count: int = 0

    def add(self, total: int | None, count: int) -> None:
        self.total += total or 0
        self.count += count

    @property
    def milliseconds(self) -> int | None:
        return self.total // self.count if self.count else None


@dataclass(slots=True)
class Group:
    """The runs of one task."""

    task_name: str
    latest: datetime
    latest_ended: datetime | None = None
    phases: Counter[Phase] = field(default_factory=Counter)
    errors: dict[ErrorKind, int] = field(default_factory=dict)
    duration: Average = field(default_factory=Average)
    """from its making to its end"""
    waiting: Average = field(default_factory=Average)
    """from its making to RUNNING"""
    created_by: set[bytes] = field(default_factory=set)
    recent: Sequence[tuple[str, Phase]] = ()
    """names and phases, newest first"""
    environment: str = ""
    short_name: str = ""
