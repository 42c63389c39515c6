"""A program: writes tasks as the SDK does, as JSON of name -> TaskTemplate in base64."""

import base64
import json
from pathlib import Path
from typing import Any

import flyte
from flyte._internal.runtime.task_serde import translate_task_to_wire
from flyte.extras import ContainerTask
from flyte.io import File
from flyte.models import SerializationContext
from kubernetes.client import V1Container, V1EnvVar, V1PodSpec, V1ResourceRequirements, V1Toleration

CONTEXT = SerializationContext(project="flytesnacks", domain="development", version="v1", org="o", root_dir=Path("/"))
IMAGE = flyte.Image.from_base("registry.example/task:1")


async def work(x: int) -> int:
    return x


def written(task: Any) -> str:
    return base64.b64encode(translate_task_to_wire(task, CONTEXT).task_template.SerializeToString()).decode()


def in_environment(**settings: Any) -> str:
    return written(flyte.TaskEnvironment(name="env", image=IMAGE, **settings).task(work))


def own_pod() -> flyte.PodTemplate:
    spec = V1PodSpec(
        containers=[
            V1Container(
                name="main",
                env=[V1EnvVar(name="B", value="2")],
                resources=V1ResourceRequirements(limits={"smarter-devices/fuse": "1"}),
            ),
            V1Container(name="side", image="side:1", args=["{{.outputPrefix}}"]),
        ],
        tolerations=[V1Toleration(key="gpu", operator="Exists", effect="NoExecute", toleration_seconds=30)],
        termination_grace_period_seconds=60,
    )
    return flyte.PodTemplate(pod_spec=spec, primary_container_name="main", labels={"team": "red"})


def shell() -> str:
    task = ContainerTask(
        name="shell",
        image="busybox",
        command=["sh", "-c", "echo {{.inputs.n}} > /var/outputs/o"],
        inputs={"n": int, "f": File},
        outputs={"o": str, "g": File},
        file_input_layout="NAMED_DIR",
    )
    flyte.TaskEnvironment.from_task("env-of-shell", task)
    return written(task)


def every() -> dict[str, str]:
    asked = flyte.Resources(cpu=(1, 2), memory=("1Gi", "2Gi"), gpu="A100:2", disk="10Gi", shm="auto")
    return {
        "plain": in_environment(env_vars={"A": "1"}, interruptible=True),
        "resources": in_environment(resources=asked),
        "partition": in_environment(resources=flyte.Resources(gpu=flyte.GPU("A100", 1, "1g.5gb"))),
        "tpu": in_environment(resources=flyte.Resources(gpu=flyte.TPU("V5E", "2x2"))),
        "pod": in_environment(
            pod_template=own_pod(), resources=flyte.Resources(cpu="500m", gpu=1), env_vars={"A": "1"}
        ),
        "sandbox": in_environment(pod_template=flyte.PodTemplate(annotations={"a": "b"}).allow_nested_sandboxing()),
        "named": in_environment(pod_template="of-the-team"),
        "shell": shell(),
        "secrets": in_environment(
            secrets=[
                flyte.Secret(key="k", as_env_var="K"),
                flyte.Secret(key="f", group="g", mount=Path("/etc/flyte/secrets")),
            ]
        ),
    }


if __name__ == "__main__":
    print(json.dumps(every()))
