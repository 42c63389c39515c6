"""WatchActions: actions with whether they meet the watcher's filter, and the phases of their children."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flyteidl2.common import list_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_manager.domain.actions import Run
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.wire import runs
from flyte_manager.wire.phases import phase_named, phase_of

LONGEST_NUMBER = 9
"""Digits."""


class BadWatchFilter(Invalid):
    """WatchActions filters by PHASE (VALUE_IN, numbers or names) and NAME (CONTAINS_CASE_INSENSITIVE), not by
    {given}."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a watcher was told of an action, in a few hundred bytes: many watchers may follow a run of many actions."""

    parent: str
    phase: Phase
    created_at: datetime
    meets_filter: bool
    shown: bytes
    """flyteidl2.workflow.Action"""


class Enriched:
    """One watcher's view of a run: remembers the phases it was told, to count those of all that lies below each action.

    A page may bring an action before its parent. What was counted for a parent that is not known yet goes on to the
    parent's own ancestors as soon as it comes.
    """

    def __init__(self, filters: Sequence[list_pb2.Filter], run: Run | None = None) -> None:
        """`run` is told with its root action. Raises BadWatchFilter, UnknownPhase."""
        self._run = run
        self._phases: set[int] = set()
        self._names: list[str] = []
        for each in filters:
            self._read(each)
        self._told: dict[str, _Told] = {}
        self._counts: dict[str, dict[Phase, int]] = {}

    def take(self, page: Sequence[ShownAction]) -> run_service_pb2.WatchActionsResponse:
        """The changed actions and all above them, whose counts changed with them, oldest first."""
        changed: set[str] = set()
        for action in page:
            changed.add(action.name)
            self._count(action, changed)
        response = run_service_pb2.WatchActionsResponse()
        for name in sorted(changed, key=lambda name: (self._told[name].created_at, name)):
            told = self._told[name]
            enriched = response.enriched_actions.add(meets_filter=told.meets_filter)
            enriched.action.MergeFromString(told.shown)
            for phase, count in self._counts.get(name, {}).items():
                if count:
                    enriched.children_phase_counts[phase] = count
        return response

    def _count(self, action: ShownAction, changed: set[str]) -> None:
        """Remembers the action, and counts it for all that are known above it: they are changed, too."""
        before = self._told.get(action.name)
        self._told[action.name] = self._telling(action)
        if before is None:
            change = dict(self._counts.get(action.name, {}))
            change[action.phase] = change.get(action.phase, 0) + 1
        elif before.phase is action.phase:
            return
        else:
            change = {action.phase: 1, before.phase: -1}
        above = action.parent
        while above:
            counts = self._counts.setdefault(above, {})
            for phase, count in change.items():
                counts[phase] = counts.get(phase, 0) + count
            parent = self._told.get(above)
            if parent is None:
                return
            changed.add(above)
            above = parent.parent

    def _read(self, each: list_pb2.Filter) -> None:
        field = each.field.lower()
        if field == "phase" and each.function == list_pb2.Filter.VALUE_IN:
            self._phases |= {_phase(value) for value in each.values}
        elif field == "name" and each.function == list_pb2.Filter.CONTAINS_CASE_INSENSITIVE:
            self._names += [value.lower() for value in each.values]
        else:
            raise BadWatchFilter(given=f"{each.field[:60]!r} with function {each.function}")

    def _telling(self, action: ShownAction) -> _Told:
        shown = run_definition_pb2.Action()
        runs.show_action(action, shown, run=self._run if action.is_root else None)
        name = (action.short_name or action.name).lower()
        meets = (not self._phases or action.phase in self._phases) and all(each in name for each in self._names)
        return _Told(action.parent, action.phase, action.created_at, meets, shown.SerializeToString())


def _phase(text: str) -> Phase:
    """Raises UnknownPhase."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER
    return phase_of(int(text)) if is_number else phase_named(text)
