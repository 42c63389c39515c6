"""What is asked of the ledger: a new run, a new action."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flyte_manager.domain.actions import TaskSummary
from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.domain.phases import Kind, Phase


@dataclass(frozen=True, slots=True)
class NewRun:
    id: RunId
    task: TaskSummary
    spec: bytes
    """flyteidl2.task.TaskSpec"""
    spec_digest: str
    digest: str
    """of task and inputs"""
    input_uri: str
    base_uri: str
    run_spec: bytes
    cache_key: str = ""
    source: int = 0
    relation: str = ""
    related_to: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_by: bytes = b""
    """flyteidl2.common.EnrichedIdentity; empty = not known"""
    created_by_subject: str = ""
    elsewhere: bool = False
    """another executor runs its root action"""


@dataclass(frozen=True, slots=True)
class NewAction:
    """A child of a running action. `phase`, times and `output_uri` are given for a trace, which is over already."""

    id: ActionId
    parent: str
    kind: Kind
    group: str
    input_uri: str
    base_uri: str
    task: TaskSummary = field(default_factory=TaskSummary)
    spec: bytes = b""
    spec_digest: str = ""
    cache_key: str = ""
    phase: Phase = Phase.QUEUED
    started_at: datetime | None = None
    ended_at: datetime | None = None
    output_uri: str = ""
    elsewhere: bool = False
    """another executor runs it"""
