"""Builds the pod of an attempt from its Launch. Pure: the same Launch and settings make the same pod.

From below to above, the upper one counts (merging.py, layers.py):

    podDefaults, interruptibleDefaults    of the settings
    PodTemplate                           of the namespace, named by the task, else by the settings
    the task                              its container, or its own pod (k8s_pod)
    Flyte                                 variables, secrets, data, labels, owner, restartPolicy, service account

Variables, secrets and argument templates reach every container and init container, as in Flyte, not the helpers
(data_files.py), which get those of the storage only. Resources, shared memory and data folders are for the primary
container. Whatever else the task's own pod says, host network and volumes of the host too, stays: whether that is
allowed is for the cluster's admission to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flyteidl2.core import tasks_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from flyte_manager.domain.errors import Unready
from flyte_manager.domain.ports import Launch, LaunchRefused, SecretReference
from flyte_manager.kubernetes import containers, data_files, labels, sizes
from flyte_manager.kubernetes.accelerators import Device, choose_nodes, device
from flyte_manager.kubernetes.layers import PRIMARY, BadTemplate, Layer, filled, laid_over, layer
from flyte_manager.kubernetes.merging import Json, Misshapen, plain
from flyte_manager.kubernetes.pod_labels import check_given, pod_annotations, pod_labels

LONGEST_NAME = 253


class BadPodDefaults(Unready):
    """{problem} Correct it in the configuration."""


class NoImage(LaunchRefused):
    """task {task!r} names no image: give its environment one."""


class NoPrimary(LaunchRefused):
    """task {task!r} brings its own pod, but {problem}: one of its containers, the primary one, must be Flyte's; name it
    by `primary_container_name=` of the pod template."""


class NoPodTemplate(LaunchRefused):
    """PodTemplate {name!r} is not in namespace {namespace!r}: make it there, or name another one."""


class NameTooLong(LaunchRefused):
    """the pod's name {name!r} would have {length} characters, Kubernetes allows {most}: give run and action shorter
    names."""


GRACE_SECONDS = 5
"""between SIGTERM and SIGKILL, where nobody says otherwise. Python as a container's first process does not heed SIGTERM
unless it handles it, so that Kubernetes' own 30 s would be spent in vain at every abort."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the platform gives to all pods. Empty means none, or as Kubernetes has it."""

    namespace: str
    default_cpu: str = ""
    """requests of tasks that ask for none"""
    default_memory: str = ""
    default_ephemeral_storage: str = ""
    gpu_resource: str = "nvidia.com/gpu"
    accelerator_label: str = ""
    """label of nodes with the model of their GPU"""
    partition_label: str = "cloud.google.com/gke-gpu-partition-size"
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = ""
    pod_template: str = ""
    """name of a PodTemplate beneath the pods of tasks that name none"""
    pod_defaults: Mapping[str, Any] = field(default_factory=dict)
    """a PodTemplateSpec, or a part of one"""
    interruptible_defaults: Mapping[str, Any] = field(default_factory=dict)
    helper_image: str = ""
    """this manager's own image"""
    storage_env: Mapping[str, str] = field(default_factory=dict)
    storage_secret_env: Mapping[str, SecretReference] = field(default_factory=dict)


def check(settings: PodSettings) -> None:
    """For the manager's start. Raises BadPodDefaults."""
    try:
        base = _platform(replace(settings, pod_template=""), interruptible=True)
        check_given(base.labels, base.annotations)
        for each in laid_over(base.spec, {"containers": [{"name": PRIMARY}]}, PRIMARY)["containers"]:
            sizes.check(sizes.with_defaults(each.get("resources") or {}, _defaults(settings)), each["name"])
    except LaunchRefused as error:
        raise BadPodDefaults(problem=f"{str(error)[:1].upper()}{str(error)[1:]}") from None


def needs_template(launch: Launch, settings: PodSettings) -> str | None:
    """Name of the PodTemplate that `build` is to be given. Raises BadTemplate."""
    return _parse(launch).metadata.pod_template_name or settings.pod_template or None


def pod_name(launch: Launch) -> str:
    """Raises NameTooLong."""
    if launch.resource is None:
        raise ValueError(f"{launch.attempt} has no TaskAction to own its pod")
    name = f"{launch.resource.name}-{launch.attempt.number - 1}"
    if len(name) > LONGEST_NAME:
        raise NameTooLong(name=name[:60], length=len(name), most=LONGEST_NAME)
    return name


def build(launch: Launch, *, settings: PodSettings, template: Mapping[str, Any] | None) -> Json:
    """A v1 Pod. `template`: the PodTemplate that `needs_template` names, None when it isn't there.

    Raises LaunchRefused when the pod can never be.
    """
    task = _parse(launch)
    try:
        return _build(task, launch, settings, template)
    except Misshapen as error:
        raise BadTemplate(where=f"the pod template of task {task.id.name!r}", problem=str(error)) from None


def _build(
    task: tasks_pb2.TaskTemplate, launch: Launch, settings: PodSettings, template: Mapping[str, Any] | None
) -> Json:
    base = _base(task, launch, settings, template)
    own, primary = _own_pod(task, launch) if task.HasField("k8s_pod") else _own_container(task, launch)
    own = replace(own, spec=_evened(own.spec, primary, _device(task, settings).resource))
    whole = replace(base.under(replace(own, spec={})), spec=laid_over(base.spec, own.spec, primary))
    spec = _completed(whole.spec, task, launch=launch, settings=settings, primary=primary)
    owner = launch.resource
    metadata = {
        "name": pod_name(launch),
        "namespace": settings.namespace,
        "labels": pod_labels(launch.attempt, task.id.name, {**whole.labels, **launch.labels}),
        "annotations": pod_annotations(primary, {**whole.annotations, **launch.annotations}),
        "ownerReferences": [
            {
                "apiVersion": "flyte.org/v1",
                "kind": "TaskAction",
                "name": owner.name if owner else "",
                "uid": owner.uid if owner else "",
                "controller": True,
            }
        ],
    }
    pod: Json = plain({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return pod


def _parse(launch: Launch) -> tasks_pb2.TaskTemplate:
    try:
        return tasks_pb2.TaskTemplate.FromString(launch.template)
    except DecodeError:
        raise BadTemplate(where="the task", problem="it can't be read as a flyteidl2 TaskTemplate") from None


def _platform(settings: PodSettings, *, interruptible: bool) -> Layer:
    pull = {"imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets]}
    base = layer({"spec": pull}, "manager.kubernetes.imagePullSecrets")
    base = base.under(layer(settings.pod_defaults, "manager.kubernetes.podDefaults"))
    if interruptible:
        base = base.under(layer(settings.interruptible_defaults, "manager.kubernetes.interruptibleDefaults"))
    return base


def _base(
    task: tasks_pb2.TaskTemplate, launch: Launch, settings: PodSettings, template: Mapping[str, Any] | None
) -> Layer:
    base = _platform(settings, interruptible=launch.interruptible)
    name = task.metadata.pod_template_name or settings.pod_template
    if name and template is None:
        raise NoPodTemplate(name=name, namespace=settings.namespace)
    if template is not None:
        given = {part: (template.get("template") or {}).get(part) for part in ("metadata", "spec")}
        found = layer(given, f"PodTemplate {name!r}")
        base = base.under(found)
    return replace(base, spec=filled(base.spec, launch.values))


def _own_container(task: tasks_pb2.TaskTemplate, launch: Launch) -> tuple[Layer, str]:
    if not task.container.image:
        raise NoImage(task=task.id.name)
    container = containers.task_container(task, list(launch.args), PRIMARY)
    return _with_metadata({"containers": [container]}, task.metadata.metadata, task), PRIMARY


def _own_pod(task: tasks_pb2.TaskTemplate, launch: Launch) -> tuple[Layer, str]:
    pod, where = task.k8s_pod, f"the pod template of task {task.id.name!r}"
    primary = task.config.get(labels.PRIMARY_CONTAINER) or pod.primary_container_name
    if not primary:
        raise NoPrimary(task=task.id.name, problem="does not say which container is the primary one")
    try:
        spec = MessageToDict(pod.pod_spec)
    except ValueError:
        raise BadTemplate(where=where, problem="it holds a number that is none") from None
    own = _with_metadata(spec, pod.metadata, task)
    found = next((each for each in own.spec.get("containers", ()) if each["name"] == primary), None)
    if found is None:
        raise NoPrimary(task=task.id.name, problem=f"it has no container {primary!r}")
    if not found.get("image"):
        raise NoImage(task=task.id.name)
    return replace(own, spec=filled(own.spec, launch.values)), primary


def _with_metadata(spec: Json, metadata: tasks_pb2.K8sObjectMetadata, task: tasks_pb2.TaskTemplate) -> Layer:
    texts = {"labels": dict(metadata.labels), "annotations": dict(metadata.annotations)}
    return layer({"spec": spec, "metadata": texts}, f"the pod template of task {task.id.name!r}")


def _device(task: tasks_pb2.TaskTemplate, settings: PodSettings) -> Device:
    nvidia = Device(settings.gpu_resource, settings.accelerator_label, settings.partition_label)
    return device(task.extended_resources.gpu_accelerator, nvidia)


def _evened(spec: Json, primary: str, device: str) -> Json:
    """Before anything lies beneath it: the task's limit is its own request, not that of a template."""

    def evened(container: Json) -> Json:
        given = container.get("resources") or {}
        if container["name"] != primary or not isinstance(given, dict):
            return container
        return {**container, "resources": sizes.evened(given, device=device)}

    return {**spec, "containers": [evened(each) for each in spec["containers"]]}


def _defaults(settings: PodSettings) -> Mapping[str, str]:
    return {
        "cpu": settings.default_cpu,
        "memory": settings.default_memory,
        "ephemeral-storage": settings.default_ephemeral_storage,
    }


def _completed(
    spec: Json, task: tasks_pb2.TaskTemplate, *, launch: Launch, settings: PodSettings, primary: str
) -> Json:
    """What Flyte must set."""
    extended, wanted = task.extended_resources, _device(task, settings)
    storage = containers.storage_env(settings.storage_env, settings.storage_secret_env)
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind, ()):
            container.update(containers.with_env(container, launch, storage))
            _size(
                container, settings, device=wanted.resource, main=kind == "containers" and container["name"] == primary
            )
            if settings.image_pull_policy:
                container.setdefault("imagePullPolicy", settings.image_pull_policy)
    spec = containers.with_secret_files(spec, launch)
    if extended.HasField("shared_memory"):
        spec = containers.with_shared_memory(spec, extended.shared_memory, primary)
    if extended.HasField("gpu_accelerator"):
        choose_nodes(spec, extended.gpu_accelerator, wanted)
    config = data_files.data_config(task)
    if config is not None:
        helper: Json = {"image": settings.helper_image, "env": storage}
        if settings.image_pull_policy:
            helper["imagePullPolicy"] = settings.image_pull_policy
        spec = data_files.with_helpers(spec, launch, template=task, config=config, primary=primary, helper=helper)
    _identify(spec, task, launch, settings)
    return {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        **spec,
        "restartPolicy": "Never",
    }


def _size(container: Json, settings: PodSettings, *, device: str, main: bool) -> None:
    resources = container.pop("resources", None) or {}
    resources = sizes.named(resources, device=device)
    if main:
        resources = sizes.with_defaults(resources, _defaults(settings))
    sizes.check(resources, container["name"])
    if resources:
        container["resources"] = resources


def _identify(spec: Json, task: tasks_pb2.TaskTemplate, launch: Launch, settings: PodSettings) -> None:
    """Run before task, task before platform. A pod that asks for no account gets no token of the default one."""
    given = spec.pop("serviceAccount", None)
    account = (
        launch.service_account
        or task.security_context.run_as.k8s_service_account
        or spec.get("serviceAccountName")
        or given
        or settings.service_account
    )
    if account:
        spec["serviceAccountName"] = account
    else:
        spec.setdefault("automountServiceAccountToken", False)
