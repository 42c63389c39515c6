"""Tasks that ask for more of their pods than an image."""

import os
from pathlib import Path

import flyte
import images
from flyte.extras import ContainerTask
from kubernetes.client import (
    V1Container,
    V1EmptyDirVolumeSource,
    V1EnvVar,
    V1PodSpec,
    V1Toleration,
    V1Volume,
    V1VolumeMount,
)

DESK = [V1VolumeMount(name="desk", mount_path="/desk")]
SHELL = ["sh", "-c"]

furnished = flyte.PodTemplate(
    primary_container_name="main",
    labels={"team": "templates"},
    annotations={"example.org/note": "of the template"},
    pod_spec=V1PodSpec(
        init_containers=[
            V1Container(
                name="before",
                image=images.SDK,
                command=SHELL,
                args=["echo ready > /desk/before"],
                volume_mounts=DESK,
            )
        ],
        containers=[
            V1Container(name="main", env=[V1EnvVar(name="GREETING", value="hello")], volume_mounts=DESK),
            V1Container(
                name="beside",
                image=images.SDK,
                command=SHELL,
                args=["echo here > /desk/beside; exec sleep 600"],
                volume_mounts=DESK,
            ),
        ],
        volumes=[V1Volume(name="desk", empty_dir=V1EmptyDirVolumeSource())],
        tolerations=[V1Toleration(key="example.org/template", operator="Exists")],
    ),
)
with_others = flyte.TaskEnvironment(name="with_others", pod_template=furnished)
interruptible = flyte.TaskEnvironment(name="interruptible", interruptible=True)

doubled = ContainerTask(
    name="doubled",
    image=images.SDK,
    command=[*SHELL, "echo $((2 * {{.inputs.n}})) > /var/outputs/twice; cat /var/inputs/name > /var/outputs/greeted"],
    inputs={"n": int, "name": str},
    outputs={"twice": int, "greeted": str},
)
containers = flyte.TaskEnvironment.from_task("containers", doubled)


@with_others.task
def looks_around() -> list[str]:
    return [os.environ["GREETING"], *(Path("/desk", name).read_text().strip() for name in ("before", "beside"))]


@interruptible.task
def cheap() -> int:
    return 1
