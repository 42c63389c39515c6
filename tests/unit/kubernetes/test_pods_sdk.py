"""Tasks as the SDK itself writes them become pods. The SDK runs in a process of its own (sdk_tasks.py)."""

from collections.abc import Mapping

import pytest
from flyteidl2.core import tasks_pb2

from flyte_manager.kubernetes.pods import PodSettings, needs_template
from tests.unit.kubernetes.launches import Document, built, env_of, launch, main_of, sdk_templates

SETTINGS = PodSettings("flyte", default_cpu="250m", default_memory="256Mi", accelerator_label="gpu", helper_image="m:1")

Tasks = Mapping[str, tasks_pb2.TaskTemplate]


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return sdk_templates()


def pod_of(tasks: Tasks, name: str) -> Document:
    return built(tasks[name], settings=SETTINGS)


def test_a_plain_task(tasks: Tasks) -> None:
    main = main_of(pod_of(tasks, "plain"))
    assert main["image"] == "registry.example/task:1"
    assert main["args"][:3] == ["a0", "--inputs", "s3://b/run/a0/inputs.pb"]
    assert env_of(main)["A"] == "1"
    assert main["resources"] == {"requests": {"cpu": "250m", "memory": "256Mi"}}


def test_resources_of_all_kinds(tasks: Tasks) -> None:
    pod = pod_of(tasks, "resources")
    assert main_of(pod)["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2", "ephemeral-storage": "10Gi"},
        "limits": {"cpu": "2", "memory": "2Gi", "nvidia.com/gpu": "2", "ephemeral-storage": "10Gi"},
    }
    assert pod["spec"]["tolerations"][0]["value"] == "nvidia-tesla-a100"
    assert pod["spec"]["volumes"] == [{"name": "flyte-shm", "emptyDir": {"medium": "Memory"}}]


def test_partitions_and_other_devices(tasks: Tasks) -> None:
    pod = pod_of(tasks, "partition")
    assert [each["value"] for each in pod["spec"]["tolerations"]] == ["nvidia-tesla-a100", "1g.5gb"]
    pod = pod_of(tasks, "tpu")
    assert main_of(pod)["resources"]["limits"] == {"google.com/tpu": "1"}
    assert [each["key"] for each in pod["spec"]["tolerations"]] == [
        "cloud.google.com/gke-tpu-accelerator",
        "cloud.google.com/gke-tpu-topology",
    ]


def test_a_pod_template_written_in_python(tasks: Tasks) -> None:
    pod = pod_of(tasks, "pod")
    main, side = pod["spec"]["containers"]
    assert main["image"] == "registry.example/task:1"
    assert main["args"][:3] == ["a0", "--inputs", "s3://b/run/a0/inputs.pb"]
    assert {"A": "1", "B": "2"}.items() <= env_of(main).items()
    assert main["resources"]["limits"] == {"cpu": "500m", "nvidia.com/gpu": "1", "smarter-devices/fuse": "1"}
    assert side["args"] == ["s3://b/run/a0/1"]
    assert pod["spec"]["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    ]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60
    assert pod["metadata"]["labels"]["team"] == "red"
    assert pod["metadata"]["annotations"]["primary_container_name"] == "main"


def test_a_pod_template_with_capabilities_of_the_sdk(tasks: Tasks) -> None:
    pod = pod_of(tasks, "sandbox")
    assert main_of(pod)["securityContext"]["capabilities"] == {"add": ["SYS_ADMIN"]}
    assert pod["metadata"]["annotations"]["flyte.org/capability-nested-sandboxing"] == "true"


def test_a_pod_template_by_name(tasks: Tasks) -> None:
    assert needs_template(launch(tasks["named"]), SETTINGS) == "of-the-team"
    pod = built(tasks["named"], settings=SETTINGS, resource={"spec": {"nodeSelector": {"team": "red"}}})
    assert pod["spec"]["nodeSelector"] == {"team": "red"}


def test_a_container_task(tasks: Tasks) -> None:
    pod = pod_of(tasks, "shell")
    assert main_of(pod)["args"] == ["sh", "-c", "echo 7 > /var/outputs/o"]
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["flyte-upload", "flyte-download"]
    assert pod["spec"]["initContainers"][1]["args"][-1] == "NAMED_DIR"


def test_the_tasks_say_their_secrets_and_whether_they_may_be_interrupted(tasks: Tasks) -> None:
    assert tasks["plain"].metadata.interruptible is True
    assert [each.env_var for each in tasks["secrets"].security_context.secrets] == ["K", ""]
    assert main_of(pod_of(tasks, "secrets"))["args"][0] == "a0"
