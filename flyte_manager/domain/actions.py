"""Runs and actions as the ledger keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from flyte_manager.domain.attempts import Attempt, Event, Failure
from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.ids import ROOT, ActionId, AttemptId, RunId
from flyte_manager.domain.phases import Kind, Phase


@dataclass(frozen=True, slots=True)
class TaskName:
    """One version of a task; the key under which it is deployed."""

    project: str = ""
    domain: str = ""
    name: str = ""
    version: str = ""
    org: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What lists and filters show of a task beside its name."""

    name: TaskName = TaskName()
    type: str = ""
    short_name: str = ""
    environment: str = ""
    function: str = ""


class RunSource(IntEnum):
    """What made a run (numbers as in flyteidl2.workflow.RunSource)."""

    UNSPECIFIED = 0
    WEB = 1
    CLI = 2
    SCHEDULE_TRIGGER = 3
    TRACKED = 4
    ARTIFACT_TRIGGER = 5


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a task: what is the same for all its actions."""

    id: RunId
    phase: Phase
    task: TaskName
    input_uri: str
    base_uri: str
    """everything that the run writes lies below it; no slash at the end"""
    created_at: datetime
    run_spec: bytes = b""
    """flyteidl2.task.RunSpec"""
    digest: str = ""
    """of the request's task and inputs: tells a repeated CreateRun from another one with the same name"""
    source: int = 0
    """a RunSource, or what a newer client sent"""
    relation: str = ""
    related_to: str = ""
    created_by: bytes = b""
    """flyteidl2.common.EnrichedIdentity; empty = not known"""
    created_by_subject: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """The object by which an action is seen outside: a TaskAction in Kubernetes."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Action:
    """One task call, trace or condition inside a run. Its row is the order to run it."""

    id: ActionId
    kind: Kind
    phase: Phase
    created_at: datetime
    parent: str = ""
    group: str = ""
    state: str = ""
    """the JSON that StateService.Get answers"""
    attempt: int = 1
    user_failures: int = 0
    system_failures: int = 0
    task: TaskSummary = TaskSummary()
    spec_digest: str = ""
    """of the TaskSpec in table task_specs"""
    spec: bytes = b""
    """flyteidl2.workflow.TraceAction or ConditionAction"""
    input_uri: str = ""
    base_uri: str = ""
    cache_key: str = ""
    """equal for equal calls, within project and domain; empty: it is not cached"""
    cache_status: CacheStatus = CacheStatus.DISABLED
    """of its latest attempt"""
    output_uri: str = ""
    reason: str = ""
    """why it waits, or why it was aborted"""
    failure: Failure | None = None
    value: bytes = b""
    """flyteidl2.core.Literal: a condition's answer"""
    signalled_by: bytes = b""
    """flyteidl2.common.EnrichedIdentity: who answered it, or aborted it"""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    not_before: datetime | None = None
    """the next attempt waits until then"""
    updated_at: datetime | None = None
    """when its row was last written for watchers; None only before the first time"""
    attempt_revision: int = 0
    """the revision at which the present attempt began"""
    revision: int = 0
    resource: Resource | None = None
    """its TaskAction, once one was made"""
    elsewhere: bool = False
    """another executor runs it and reports: it is never launched here (docs/decisions/0008)"""

    @property
    def attempt_id(self) -> AttemptId:
        return AttemptId(self.id, self.attempt)

    @property
    def is_root(self) -> bool:
        return self.id.name == ROOT

    @property
    def final(self) -> bool:
        return self.phase.final

    @property
    def operated(self) -> bool:
        """This manager's executor has to do with it."""
        return self.kind is not Kind.TRACE and not self.elsewhere

    @property
    def duration_ms(self) -> int | None:
        """From its making to its end; of a trace, which is told when it is over, from its start."""
        if self.ended_at is None:
            return None
        began = self.started_at if self.kind is Kind.TRACE else None
        return milliseconds(began or self.created_at, self.ended_at)

    def output_prefix(self, attempt: int) -> str:
        """The folder of an attempt's outputs (DESIGN.md §6)."""
        return f"{self.base_uri}/{self.id.name}/{attempt}"


def milliseconds(begin: datetime, end: datetime) -> int:
    """Between the two, rounded; 0 where the clock went back."""
    spent = end - begin
    return max(0, spent.days * 86_400_000 + spent.seconds * 1000 + (spent.microseconds + 500) // 1000)


@dataclass(frozen=True, slots=True)
class ActionHistory:
    """An action with all its attempts, in order."""

    action: Action
    attempts: tuple[Attempt, ...]
    spec: bytes
    """flyteidl2.task.TaskSpec for a task, else the action's own spec"""


def events_of(action: Action, attempt: Attempt) -> Sequence[Event]:
    """The attempt's events, and why it is no further: a live action's reason, which has no other place."""
    known = any(event.message == action.reason for event in attempt.events)
    if action.final or known or not action.reason or attempt.id.number != action.attempt:
        return attempt.events
    name = "".join(word.capitalize() for word in action.phase.name.split("_"))
    at = attempt.transitions[-1].at if attempt.transitions else attempt.created_at
    warning = action.phase is Phase.WAITING_FOR_RESOURCES
    return (*attempt.events, Event(at, action.reason, reason=name, warning=warning))


LONGEST_BACKOFF = 30 * 86_400.0
"""seconds; also where the task sets no cap"""


@dataclass(frozen=True, slots=True)
class Budget:
    """How often an action may be tried again (flyteidl2.core.RetryStrategy)."""

    retries: int = 0
    """extra attempts after USER failures and process death"""
    backoff_base: float = 0.0
    """seconds before the second attempt; 0 = at once"""
    backoff_factor: float = 2.0
    backoff_cap: float = 0.0
    """seconds; 0 = no cap"""
    system_retries: int = 3

    def delay(self, failures: int) -> float:
        """Seconds to wait before the next attempt, after so many of the user's failures (1 = the first)."""
        if self.backoff_base <= 0:
            return 0.0
        factor = self.backoff_factor if self.backoff_factor > 1 else 1.0  # also of what is no number
        try:
            wait = self.backoff_base * float(factor ** max(failures - 1, 0))
        except OverflowError:
            wait = LONGEST_BACKOFF
        cap = self.backoff_cap if self.backoff_cap > 0 else LONGEST_BACKOFF
        return min(wait, cap, LONGEST_BACKOFF)
