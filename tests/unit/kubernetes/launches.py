"""Launches of attempts, as the executor makes them."""

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flyteidl2.core import interface_pb2, literals_pb2, tasks_pb2, types_pb2
from google.protobuf import struct_pb2

from flyte_manager.domain.actions import Resource
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.ports import Launch, SecretReference
from flyte_manager.domain.tasks import fill_in
from flyte_manager.kubernetes.pods import PodSettings, build

Document = dict[str, Any]

SETTINGS = PodSettings(namespace="flyte")
VALUES = {
    "input": "s3://b/run/a0/inputs.pb",
    "outputPrefix": "s3://b/run/a0/1",
    "rawOutputDataPrefix": "s3://b/run/a0/1/raw",
    "runName": "r1",
    "inputs.n": "7",
}
Names = tasks_pb2.Resources.ResourceName
Simple = types_pb2.SimpleType


def attempt(number: int = 1) -> AttemptId:
    return AttemptId(ActionId(RunId("flytesnacks", "development", "r1"), "a0"), number)


def resources(requests: Mapping[str, str], limits: Mapping[str, str] | None = None) -> tasks_pb2.Resources:
    entry = tasks_pb2.Resources.ResourceEntry
    return tasks_pb2.Resources(
        requests=[entry(name=name, value=value) for name, value in requests.items()],
        limits=[entry(name=name, value=value) for name, value in (limits or {}).items()],
    )


def task(**more: Any) -> tasks_pb2.TaskTemplate:
    """A Python task with its own container."""
    container = {
        "image": "registry.example/task:1",
        "args": ["a0", "--inputs", "{{.input}}"],
        "env": [literals_pb2.KeyValuePair(key="MODE", value="fast")],
        **more.pop("container", {}),
    }
    made = tasks_pb2.TaskTemplate(type="python", container=tasks_pb2.Container(**container), **more)
    made.id.name = "env.main"
    return made


def own_pod(spec: Document, *, primary: str = "main", **more: Any) -> tasks_pb2.TaskTemplate:
    """A task that brings its own pod."""
    struct = struct_pb2.Struct()
    struct.update(spec)
    metadata = tasks_pb2.K8sObjectMetadata(labels=more.pop("labels", {}), annotations=more.pop("annotations", {}))
    config = {"primary_container_name": primary} if primary else {}
    made = tasks_pb2.TaskTemplate(
        type="python", config=config, k8s_pod=tasks_pb2.K8sPod(pod_spec=struct, metadata=metadata), **more
    )
    made.id.name = "env.main"
    return made


def variables(**kinds: types_pb2.LiteralType) -> interface_pb2.VariableMap:
    entry, variable = interface_pb2.VariableEntry, interface_pb2.Variable
    return interface_pb2.VariableMap(
        variables=[entry(key=name, value=variable(type=kind)) for name, kind in kinds.items()]
    )


def launch(template: tasks_pb2.TaskTemplate | None = None, **more: Any) -> Launch:
    template = task() if template is None else template
    made = Launch(
        attempt=attempt(),
        args=fill_in([*template.container.command, *template.container.args], VALUES),
        env={"ACTION_NAME": "a0", "RUN_NAME": "r1", "MODE": "fast"},
        template=template.SerializeToString(),
        values=VALUES,
        resource=Resource("r1-a0", "uid-1"),
        input_uri=VALUES["input"],
        output_prefix=VALUES["outputPrefix"],
    )
    return replace(made, **more)


def built(
    template: tasks_pb2.TaskTemplate | None = None,
    *,
    settings: PodSettings = SETTINGS,
    resource: Document | None = None,
    **more: Any,
) -> Document:
    """The pod; `resource`: the PodTemplate's `template`."""
    found = None if resource is None else {"kind": "PodTemplate", "template": resource}
    return build(launch(template, **more), settings=settings, template=found)


def main_of(pod: Document) -> Document:
    name = pod["metadata"]["annotations"]["primary_container_name"]
    found: Document = next(each for each in pod["spec"]["containers"] if each["name"] == name)
    return found


def env_of(container: Document) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def reference(key: str) -> SecretReference:
    return SecretReference("secret-of-project", key)


def sdk_templates() -> dict[str, tasks_pb2.TaskTemplate]:
    """What sdk_tasks.py wrote: a process of its own, because the SDK's imports warn."""
    program = Path(__file__).with_name("sdk_tasks.py")
    told = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout.splitlines()[-1])
    return {name: tasks_pb2.TaskTemplate.FromString(base64.b64decode(text)) for name, text in found.items()}
