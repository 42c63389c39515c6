"""A TaskSpec, read for running it; what this manager can't run yet is refused here, with the cure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flyteidl2.core import literals_pb2, security_pb2, tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from google.protobuf.message import DecodeError

from flyte_manager.domain.actions import Budget, TaskName, TaskSummary
from flyte_manager.domain.errors import Invalid, NotGiven
from flyte_manager.domain.tasks import SecretRequest, TaskPlan, World, quantity
from flyte_manager.wire.bounds import asked_bounds, check_bounds
from flyte_manager.wire.sleep import SLEEP, sleep_input
from flyte_manager.wire.times import moment, seconds

_Name = tasks_pb2.Resources.ResourceName

PYTHON_TYPES = ("python", "python-task", "")
CONTAINER_TYPES = ("raw-container", "container", "sidecar")


class BadQuantity(Invalid):
    """resource {name} of task {task!r}: {problem}"""


class BadVariable(Invalid):
    """environment variable {name!r}: a name is not empty and has no =, and neither name nor value has a NUL."""


class InvalidSpec(Invalid):
    """{problem}"""


def parse_spec(spec: bytes) -> task_definition_pb2.TaskSpec:
    """Raises InvalidSpec: a spec may have come by other hands than a client's."""
    try:
        return task_definition_pb2.TaskSpec.FromString(spec)
    except DecodeError:
        raise InvalidSpec(problem="the task's spec can't be read: it is no flyteidl2 TaskSpec") from None


def check_spec(spec: task_definition_pb2.TaskSpec) -> None:
    """Raises NotGiven for a spec that names no task, BadVariable, InvalidSpec, NegativeTime."""
    if not spec.HasField("task_template"):
        raise NotGiven(field="task_spec.task_template")
    if not spec.task_template.id.name:
        raise NotGiven(field="task_spec.task_template.id.name")
    container = spec.task_template.container
    check_variables(container.env)
    if any("\0" in argument for argument in (*container.command, *container.args)):
        raise InvalidSpec(
            problem=f"an argument of task {spec.task_template.id.name!r} has a NUL, which no process takes"
        )
    check_bounds(spec.task_template)


def check_variables(variables: Iterable[literals_pb2.KeyValuePair]) -> None:
    """Raises BadVariable for what no process can be started with."""
    for each in variables:
        if not each.key or "=" in each.key or "\0" in each.key + each.value:
            raise BadVariable(name=each.key)


def name_of(spec: task_definition_pb2.TaskSpec) -> TaskName:
    each = spec.task_template.id
    return TaskName(each.project, each.domain, each.name, each.version, each.org)


def summary(spec: task_definition_pb2.TaskSpec) -> TaskSummary:
    """What lists show of the task."""
    template = spec.task_template
    return TaskSummary(
        name=name_of(spec),
        type=template.type,
        short_name=spec.short_name,
        environment=spec.environment.name,
        function=template.id.name.rpartition(".")[2],
    )


def retry_budget(spec: task_definition_pb2.TaskSpec) -> Budget:
    """How often the task may be tried again."""
    retries = spec.task_template.metadata.retries
    backoff = retries.backoff
    return Budget(
        retries=retries.retries,
        backoff_base=seconds(backoff.base),
        backoff_factor=backoff.factor or 2.0,
        backoff_cap=seconds(backoff.cap),
    )


def plan(spec: task_definition_pb2.TaskSpec, world: World) -> TaskPlan:
    """How to run the task there. Raises BadQuantity, BadSleep."""
    template = spec.task_template
    container, metadata = template.container, template.metadata
    requests = {entry.name: entry.value for entry in container.resources.requests}
    limits = {entry.name: entry.value for entry in container.resources.limits}
    name = template.id.name
    return TaskPlan(
        args=tuple(container.command) + tuple(container.args),
        env={pair.key: pair.value for pair in container.env},
        budget=retry_budget(spec),
        outputs=tuple(entry.key for entry in template.interface.outputs.variables),
        has_report=metadata.generates_deck.value,
        secrets=tuple(_secret(secret) for secret in template.security_context.secrets),
        cpu=_amount(requests.get(_Name.CPU) or limits.get(_Name.CPU), "cpu", name),
        memory=int(_amount(requests.get(_Name.MEMORY) or limits.get(_Name.MEMORY), "memory", name)),
        memory_limit=int(_amount(limits.get(_Name.MEMORY), "memory", name)),
        image=container.image,
        template=template.SerializeToString() if world is World.PODS else b"",
        interruptible=metadata.interruptible if metadata.WhichOneof("interruptible_value") else None,
        unsupported=_unsupported(template) or (_not_as_process(template) if world is World.PROCESSES else ""),
        cache_serialize=metadata.cache_serializable,
        cache_max_age=seconds(metadata.cache_max_age),
        bounds=tuple(asked_bounds(metadata)),
        sleep=sleep_input(template),
    )


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run gives to all its actions."""

    envs: Mapping[str, str]
    raw_data_prefix: str
    run_start_time: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    interruptible: bool | None
    service_account: str
    overwrite_cache: bool


def run_settings(run_spec: bytes) -> RunSettings:
    spec = run_pb2.RunSpec.FromString(run_spec)
    return RunSettings(
        envs={pair.key: pair.value for pair in spec.envs.values},
        raw_data_prefix=spec.raw_data_storage.raw_data_prefix.rstrip("/"),
        run_start_time=moment(spec.run_start_time) if spec.HasField("run_start_time") else None,
        labels=dict(spec.labels.values),
        annotations=dict(spec.annotations.values),
        interruptible=spec.interruptible.value if spec.HasField("interruptible") else None,
        service_account=spec.security_context.run_as.k8s_service_account,
        overwrite_cache=spec.overwrite_cache or spec.cache_config.overwrite_cache,
    )


def _amount(text: str | None, name: str, task: str) -> float:
    if not text:
        return 0.0
    try:
        return quantity(text)
    except ValueError as error:
        raise BadQuantity(name=name, task=task, problem=str(error)) from None


def _secret(secret: security_pb2.Secret) -> SecretRequest:
    as_file = secret.mount_requirement == security_pb2.Secret.FILE
    return SecretRequest(key=secret.key, group=secret.group, env_var="" if as_file else _env_var(secret))


def _env_var(secret: security_pb2.Secret) -> str:
    return secret.env_var or secret.key.upper().replace("-", "_")


def _unsupported(template: tasks_pb2.TaskTemplate) -> str:
    """Why no world runs it yet."""
    if template.HasField("reuse_policy"):
        return "reusable containers are not supported yet: remove `reusable=` from the task's environment"
    if template.type == SLEEP:
        return ""
    match template.WhichOneof("target"):
        case "sql":
            return "SQL tasks are not supported: run the query from a Python task"
        case None:
            return f"task type {template.type!r} has no container to run: write it as a Python task"
    if template.type not in (*PYTHON_TYPES, *CONTAINER_TYPES):
        return f"plugin tasks (type {template.type!r}) are not supported here: write it as a plain Python task"
    return ""


def _not_as_process(template: tasks_pb2.TaskTemplate) -> str:
    if template.WhichOneof("target") == "k8s_pod" or template.metadata.pod_template_name:
        return "pod templates need Kubernetes: remove `pod_template=`, or run it on a cluster"
    if template.container.HasField("data_config") or template.type in CONTAINER_TYPES:
        return "ContainerTask needs Kubernetes, there are no containers here: write it as a Python task"
    resources = template.container.resources
    gpus = next((each.value for each in (*resources.requests, *resources.limits) if each.name == _Name.GPU), "0")
    if gpus != "0":
        return (
            f"the task asks for {gpus} GPU, this machine gives none to tasks: remove gpu= from its resources, or run "
            "it on a cluster"
        )
    return ""
