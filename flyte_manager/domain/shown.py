"""What lists and watches show of actions and runs: a part of their rows, as flat tuples.

A list makes hundreds of them for one answer, and a tuple is made of a row many times as fast as an Action with all that
hangs on it.
"""

from datetime import datetime
from typing import NamedTuple

from flyte_manager.domain.actions import Action, Run, milliseconds
from flyte_manager.domain.ids import ROOT, ActionId, RunId
from flyte_manager.domain.phases import Kind, Phase


class ShownAction(NamedTuple):
    """The fields are named as in `Action`, those of its ids and its task as their columns."""

    project: str
    domain: str
    run: str
    name: str
    org: str
    kind: Kind
    phase: Phase
    parent: str
    group: str
    attempt: int
    cache_status: int
    """a CacheStatus"""
    task_project: str
    task_domain: str
    task_name: str
    task_version: str
    task_type: str
    short_name: str
    environment: str
    function: str
    condition: bytes | None
    """flyteidl2.workflow.ConditionAction, of a condition"""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    revision: int

    @classmethod
    def of(cls, action: Action) -> "ShownAction":
        run, task = action.id.run, action.task
        return cls(
            project=run.project,
            domain=run.domain,
            run=run.name,
            name=action.id.name,
            org=run.org,
            kind=action.kind,
            phase=action.phase,
            parent=action.parent,
            group=action.group,
            attempt=action.attempt,
            cache_status=action.cache_status,
            task_project=task.name.project,
            task_domain=task.name.domain,
            task_name=task.name.name,
            task_version=task.name.version,
            task_type=task.type,
            short_name=task.short_name,
            environment=task.environment,
            function=task.function,
            condition=action.spec if action.kind is Kind.CONDITION else None,
            created_at=action.created_at,
            started_at=action.started_at,
            ended_at=action.ended_at,
            revision=action.revision,
        )

    @property
    def id(self) -> ActionId:
        return ActionId(RunId(self.project, self.domain, self.run, self.org), self.name)

    @property
    def is_root(self) -> bool:
        return self.name == ROOT

    @property
    def duration_ms(self) -> int | None:
        """As `Action` counts it."""
        if self.ended_at is None:
            return None
        began = self.started_at if self.kind is Kind.TRACE else None
        return milliseconds(began or self.created_at, self.ended_at)


class ShownRun(NamedTuple):
    """A run, of which its root action tells the most."""

    root: ShownAction
    run_spec: bytes | None
    """flyteidl2.task.RunSpec"""
    source: int
    """a RunSource, or what a newer client sent"""
    created_by: bytes | None
    """flyteidl2.common.EnrichedIdentity; empty = not known"""

    @classmethod
    def of(cls, run: Run, root: Action) -> "ShownRun":
        return cls(ShownAction.of(root), run.run_spec, run.source, run.created_by)

    @property
    def id(self) -> RunId:
        return self.root.id.run
