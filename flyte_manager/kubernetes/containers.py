"""The parts that Flyte puts into a pod's containers: variables, secrets by reference, files, shared memory."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from flyteidl2.core import tasks_pb2

from flyte_manager.domain.ports import Launch, LaunchRefused, SecretReference, SecretValue
from flyte_manager.kubernetes import sizes
from flyte_manager.kubernetes.merging import Json, merge_containers

SECRETS_FOLDER = "/etc/flyte/secrets"
"""where the SDK looks for them"""
SECRETS_VOLUME = "flyte-secrets"
SHARED_MEMORY, SHARED_MEMORY_VOLUME = "/dev/shm", "flyte-shm"


class NameTaken(LaunchRefused):
    """the pod template has a {kind} named {name!r}: Flyte gives the pod one of that name, so rename yours."""


class SecretByValue(ValueError):  # noqa: N818 - a bug, not a refusal
    """A secret came as a value: pods get references only."""


def task_container(template: tasks_pb2.TaskTemplate, args: list[str], name: str) -> Json:
    """Of a task that says its container; `args` are its command and arguments, filled in."""
    container = template.container
    split = len(container.command)
    made: Json = {"name": name, "image": container.image}
    if args[:split]:
        made["command"] = args[:split]
    if args[split:]:
        made["args"] = args[split:]
    if container.ports:
        made["ports"] = [
            {"containerPort": port.container_port, **({"name": port.name} if port.name else {})}
            for port in container.ports
        ]
    resources = sizes.asked(container.resources)
    if any(resources.values()):
        made["resources"] = resources
    if container.env:
        made["env"] = [{"name": pair.key, "value": pair.value} for pair in container.env]
    return made


def storage_env(plain: Mapping[str, str], secret: Mapping[str, SecretReference]) -> list[Json]:
    return _variables(plain, secret)


def with_env(container: Json, launch: Launch, storage: list[Json]) -> Json:
    """The container's own variables over those of the storage, the attempt's over both."""
    env = {**launch.env, **({"FLYTE_SECRETS_DEFAULT_DIR": SECRETS_FOLDER} if launch.secret_files else {})}
    own = _variables(env, launch.secret_env)
    return merge_containers(merge_containers({"env": storage}, container), {"env": own})


def with_secret_files(spec: Json, launch: Launch) -> Json:
    """One volume with all the secrets' files, in all containers."""
    if not launch.secret_files:
        return spec
    files = sorted((_reference(value), path) for path, value in launch.secret_files.items())
    sources = [
        {"secret": {"name": name, "items": [{"key": key, "path": path} for (_, key), path in group]}}
        for name, group in groupby(files, key=lambda each: each[0][0])
    ]
    spec = with_volume(spec, {"name": SECRETS_VOLUME, "projected": {"sources": sources}})
    mount = {"name": SECRETS_VOLUME, "mountPath": SECRETS_FOLDER, "readOnly": True}
    kinds = [kind for kind in ("containers", "initContainers") if kind in spec]
    return {**spec, **{kind: [with_mount(each, mount) for each in spec[kind]] for kind in kinds}}


def with_shared_memory(spec: Json, asked: tasks_pb2.SharedMemory, primary: str) -> Json:
    """Raises BadAmount."""
    name = asked.mount_name or SHARED_MEMORY_VOLUME
    size: Json = {}
    if asked.size_limit:
        sizes.check_amount(asked.size_limit, "shared memory", primary)
        size = {"sizeLimit": asked.size_limit}
    spec = with_volume(spec, {"name": name, "emptyDir": {"medium": "Memory", **size}})
    mount = {"name": name, "mountPath": asked.mount_path or SHARED_MEMORY}
    return {
        **spec,
        "containers": [with_mount(each, mount) if each["name"] == primary else each for each in spec["containers"]],
    }


def with_volume(spec: Json, volume: Json) -> Json:
    """Raises NameTaken."""
    volumes = spec.get("volumes") or []
    if any(each["name"] == volume["name"] for each in volumes):
        raise NameTaken(kind="volume", name=volume["name"])
    return {**spec, "volumes": [*volumes, volume]}


def with_mount(container: Json, mount: Json) -> Json:
    return merge_containers(container, {"volumeMounts": [mount]})


def _variables(plain: Mapping[str, str], secret: Mapping[str, SecretValue]) -> list[Json]:
    made: list[Json] = [{"name": name, "value": value} for name, value in sorted(plain.items()) if name not in secret]
    for name, value in sorted(secret.items()):
        secret_name, key = _reference(value)
        made.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": key}}})
    return made


def _reference(value: Any) -> tuple[str, str]:
    if not isinstance(value, SecretReference):
        raise SecretByValue(SecretByValue.__doc__)
    return value.name, value.key
