"""Orders that came as resources by other hands (`kubectl apply`): made into the same orders that the API makes."""

import hashlib
from dataclasses import dataclass

from flyteidl2.core import literals_pb2, tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.wrappers_pb2 import BoolValue

from flyte_manager.domain.actions import TaskSummary
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.ids import ROOT, ProjectId, check_action, check_action_name
from flyte_manager.domain.orders import NewAction, NewRun
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.ports import Blobs, FoundAction
from flyte_manager.ledger.projects import Projects
from flyte_manager.wire.orders import spec_digest
from flyte_manager.wire.plan import summary


class NotARoot(Invalid):
    """action {name!r} names no parent, so it is the root of its run, and that is called a0: set actionName to a0, or
    parentActionName to its parent's name."""


@dataclass(frozen=True, slots=True)
class ForeignOrders:
    """Reads what a resource orders."""

    projects: Projects
    blobs: Blobs

    async def order(self, found: FoundAction) -> NewRun | NewAction:
        """The run, or the child of a run. One whose `problem` is set is recorded as far as can be read. Raises an
        Invalid or Missing refusal when it can't have a row."""
        check_action(found.id)
        if found.parent:
            check_action_name(found.parent)
        elif found.id.name != ROOT:
            raise NotARoot(name=found.id.name)
        run = found.id.run
        await self.projects.admit_write(ProjectId(run.project, run.domain, run.org))
        if found.condition:
            return _condition(found)
        spec = _spec(found)
        digest, content = spec_digest(spec)
        if not found.parent:
            base = found.base_uri.rstrip("/") or self.blobs.join(run.project, run.domain, run.name)
            self.blobs.checked(f"{base}/inputs.pb")
            return NewRun(
                id=run,
                task=summary(spec),
                spec=content,
                spec_digest=digest,
                digest=hashlib.sha256(f"{digest}\n{found.input_uri}".encode()).hexdigest(),
                input_uri=found.input_uri,
                base_uri=base,
                run_spec=_run_spec(found).SerializeToString(deterministic=True),
                cache_key=found.cache_key,
            )
        return NewAction(
            id=found.id,
            parent=found.parent,
            kind=Kind.TASK,
            group=found.group,
            input_uri=found.input_uri,
            base_uri="",
            task=summary(spec),
            spec=content,
            spec_digest=digest,
            cache_key=found.cache_key,
        )


def _condition(found: FoundAction) -> NewAction:
    name = run_definition_pb2.ConditionAction.FromString(found.condition).name
    return NewAction(
        id=found.id,
        parent=found.parent,
        kind=Kind.CONDITION,
        group=found.group,
        input_uri=found.input_uri,
        base_uri="",
        task=TaskSummary(short_name=name),
        spec=found.condition,
    )


def _spec(found: FoundAction) -> task_definition_pb2.TaskSpec:
    """A resource holds the task's template only; that of one with a problem is not read."""
    template = tasks_pb2.TaskTemplate.FromString(b"" if found.problem else found.template)
    return task_definition_pb2.TaskSpec(task_template=template, short_name=found.short_name)


def _run_spec(found: FoundAction) -> run_pb2.RunSpec:
    spec = run_pb2.RunSpec(labels=run_pb2.Labels(values=found.labels))
    spec.annotations.values.update(found.annotations)
    spec.envs.values.extend(literals_pb2.KeyValuePair(key=key, value=value) for key, value in found.envs.items())
    if found.interruptible is not None:
        spec.interruptible.CopyFrom(BoolValue(value=found.interruptible))
    return spec
