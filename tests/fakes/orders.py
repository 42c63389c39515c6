"""Small tasks, runs and actions to ask for."""

from collections.abc import Mapping

from flyteidl2.core import interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_manager.domain.actions import TaskSummary
from flyte_manager.domain.ids import ROOT, ActionId, RunId
from flyte_manager.domain.orders import NewAction, NewRun
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.wire.orders import spec_digest
from flyte_manager.wire.plan import summary

BASE = "/store/flytesnacks/development"


def run_id(name: str = "r1") -> RunId:
    return RunId("flytesnacks", "development", name)


def action_id(name: str = ROOT, run: str = "r1") -> ActionId:
    return ActionId(run_id(run), name)


def task_spec(
    name: str = "hello.main",
    *,
    version: str = "v1",
    retries: int = 0,
    backoff: float = 0.0,
    cpu: str = "",
    memory: str = "",
    outputs: bool = False,
) -> task_definition_pb2.TaskSpec:
    spec = task_definition_pb2.TaskSpec(short_name=name.rpartition(".")[2])
    spec.environment.name = name.partition(".")[0]
    template = spec.task_template
    template.id.project, template.id.domain = "flytesnacks", "development"
    template.id.name, template.id.version = name, version
    template.type = "python"
    template.container.image = "local"
    template.container.args.extend(["a0", "--inputs", "{{.input}}", "--outputs-path", "{{.outputPrefix}}"])
    template.metadata.retries.retries = retries
    if backoff:
        template.metadata.retries.backoff.base.CopyFrom(Duration(seconds=int(backoff)))
    resource = tasks_pb2.Resources
    if cpu:
        template.container.resources.requests.append(resource.ResourceEntry(name=resource.CPU, value=cpu))
    if memory:
        template.container.resources.requests.append(resource.ResourceEntry(name=resource.MEMORY, value=memory))
    if outputs:
        variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.INTEGER))
        template.interface.outputs.variables.append(interface_pb2.VariableEntry(key="o0", value=variable))
    return spec


def bounded(
    *, runtime: float = 0, queued: float = 0, deadline: float = 0, retries: int = 0, backoff: float = 0, cpu: str = "1"
) -> task_definition_pb2.TaskSpec:
    """A task with these bounds, in seconds."""
    spec = task_spec(retries=retries, backoff=backoff, cpu=cpu)
    metadata = spec.task_template.metadata
    for duration, seconds in (
        (metadata.timeout, runtime),
        (metadata.timeouts.queued_timeout, queued),
        (metadata.timeouts.deadline, deadline),
    ):
        if seconds:
            duration.CopyFrom(Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))
    return spec


def new_run(
    name: str = "r1",
    *,
    spec: task_definition_pb2.TaskSpec | None = None,
    digest: str = "same",
    base: str = BASE,
    envs: Mapping[str, str] | None = None,
) -> NewRun:
    asked = spec or task_spec()
    spec_name, content = spec_digest(asked)
    run_spec = run_pb2.RunSpec()
    for key, value in (envs or {}).items():
        run_spec.envs.values.append(literals_pb2.KeyValuePair(key=key, value=value))
    return NewRun(
        id=run_id(name),
        task=summary(asked),
        spec=content,
        spec_digest=spec_name,
        digest=digest,
        input_uri=f"{base}/{name}/inputs.pb",
        base_uri=f"{base}/{name}",
        run_spec=run_spec.SerializeToString(),
    )


def new_task(
    name: str,
    *,
    parent: str = ROOT,
    run: str = "r1",
    spec: task_definition_pb2.TaskSpec | None = None,
    base: str = BASE,
) -> NewAction:
    asked = spec or task_spec("hello.child")
    spec_name, content = spec_digest(asked)
    return NewAction(
        id=action_id(name, run),
        parent=parent,
        kind=Kind.TASK,
        group="",
        input_uri=f"{base}/{run}/{name}/inputs.pb",
        base_uri=f"{base}/{run}",
        task=summary(asked),
        spec=content,
        spec_digest=spec_name,
    )


def new_trace(name: str, *, parent: str = ROOT, run: str = "r1", phase: Phase = Phase.SUCCEEDED) -> NewAction:
    trace = run_definition_pb2.TraceAction(name=f"traced {phase.name}")
    return NewAction(
        id=action_id(name, run),
        parent=parent,
        kind=Kind.TRACE,
        group="",
        input_uri=f"{BASE}/{run}/{name}/inputs.pb",
        base_uri=f"{BASE}/{run}",
        task=TaskSummary(short_name="traced"),
        spec=trace.SerializeToString(),
        phase=phase,
        output_uri=f"{BASE}/{run}/{name}/outputs.pb" if phase is Phase.SUCCEEDED else "",
    )


def condition_spec(timeout: int = 0, simple: "types_pb2.SimpleType" = types_pb2.INTEGER) -> bytes:
    condition = run_definition_pb2.ConditionAction(name="ok?", type=types_pb2.LiteralType(simple=simple))
    if timeout:
        condition.timeout.CopyFrom(Duration(seconds=timeout))
    return condition.SerializeToString()


def new_condition(name: str, *, parent: str = ROOT, run: str = "r1", timeout: int = 0) -> NewAction:
    return NewAction(
        id=action_id(name, run),
        parent=parent,
        kind=Kind.CONDITION,
        group="",
        input_uri="",
        base_uri=f"{BASE}/{run}",
        task=TaskSummary(short_name="ok?"),
        spec=condition_spec(timeout),
    )
