"""Pods as they are built here, on a real API server and a real kubelet."""

import base64
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.core import execution_pb2, interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl2.task import common_pb2

from flyte_manager.blobs.files import Files, ObjectMissing, options_of
from flyte_manager.domain.ports import SecretReference
from flyte_manager.kubernetes.pods import PodSettings
from tests.kubernetes.clusters import Kubectl
from tests.s3 import S3Server
from tests.unit.kubernetes.launches import (
    VALUES,
    Document,
    Simple,
    attempt,
    built,
    resources,
    sdk_templates,
    task,
    variables,
)

SECONDS = 60.0
FILE = types_pb2.LiteralType(blob=types_pb2.BlobType(dimensionality=types_pb2.BlobType.SINGLE))
INTEGER = types_pb2.LiteralType(simple=Simple.INTEGER)


@pytest.fixture(scope="module")
def storage(kubectl: Kubectl, s3: S3Server) -> PodSettings:
    """Settings with the storage's key in a Secret."""
    names = ("FLYTE_AWS_ACCESS_KEY_ID", "FLYTE_AWS_SECRET_ACCESS_KEY")
    data = {name: base64.b64encode(s3.task_env[name].encode()).decode() for name in names}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage"}, "data": data})
    return PodSettings(
        namespace=kubectl.namespace,
        storage_env={"FLYTE_AWS_ENDPOINT": s3.endpoint},
        storage_secret_env={name: SecretReference("storage", name) for name in names},
    )


def run(kubectl: Kubectl, pod: Document) -> Document:
    """The pod at its end. Nobody made a TaskAction that could own it."""
    del pod["metadata"]["ownerReferences"]
    kubectl.apply(pod)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        found: Document = kubectl.json("get", "pod", pod["metadata"]["name"])
        if found["status"]["phase"] in ("Succeeded", "Failed"):
            return found
        time.sleep(0.2)
    raise AssertionError(f"the pod has not ended: {json.dumps(found['status'], indent=1)}")


def test_the_api_server_takes_the_pods_of_the_sdks_tasks_as_they_are(kubectl: Kubectl) -> None:
    settings = PodSettings(
        namespace=kubectl.namespace,
        default_cpu="250m",
        default_memory="256Mi",
        default_ephemeral_storage="1Gi",
        accelerator_label="gpu",
        helper_image="manager:1",
        image_pull_secrets=("registry",),
        image_pull_policy="IfNotPresent",
        pod_defaults={"spec": {"tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"a": "b"}}},
    )
    named = {"spec": {"containers": [{"name": "default", "securityContext": {"runAsNonRoot": True}}]}}
    for number, (name, template) in enumerate(sdk_templates().items(), start=1):
        pod = built(
            template,
            settings=settings,
            resource=named if name == "named" else None,
            attempt=attempt(number),
            interruptible=True,
            secret_env={"KEY": SecretReference("one", "key")},
            secret_files={"g/a": SecretReference("one", "a"), "b": SecretReference("other", "b")},
            labels={"team": "red"},
        )
        told = kubectl(
            *("create", "--dry-run=server", "--validate=strict", "--output=json", "--filename=-"), input=json.dumps(pod)
        )
        assert missing(pod, json.loads(told)) == [], name


def missing(asked: Any, got: Any, path: str = "") -> list[str]:
    """What the API server did not take over."""
    if isinstance(asked, dict):
        return [
            line
            for name, value in asked.items()
            if value != []
            for line in (missing(value, got[name], f"{path}.{name}") if name in got else [f"{path}.{name}"])
        ]
    if isinstance(asked, list):
        if len(asked) > len(got):
            return [path]
        return [line for one, other in zip(asked, got, strict=False) for line in missing(one, other, f"{path}[]")]
    return [] if asked == got else [f"{path}: {asked} became {got}"]


def test_a_task_gets_its_variables_secrets_and_shared_memory(kubectl: Kubectl, manager_image: str) -> None:
    data = {"key": base64.b64encode(b"canary").decode(), "file": base64.b64encode(b"bird").decode()}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "of-project"}, "data": data})
    script = "echo $RUN_NAME $KEY $(cat $FLYTE_SECRETS_DEFAULT_DIR/g/file) $(df --output=size -m /dev/shm | tail -1)"
    shared = tasks_pb2.ExtendedResources(shared_memory=tasks_pb2.SharedMemory(size_limit="32Mi"))
    template = task(
        container={"image": manager_image, "command": ["sh", "-c"], "resources": resources({"MEMORY": "64Mi"})},
        extended_resources=shared,
    )
    pod = built(
        template,
        settings=PodSettings(namespace=kubectl.namespace),
        args=["sh", "-c", script],
        env={"RUN_NAME": "r1"},
        secret_env={"KEY": SecretReference("of-project", "key")},
        secret_files={"g/file": SecretReference("of-project", "file")},
    )
    assert "canary" not in json.dumps(pod)
    ended = run(kubectl, pod)
    assert kubectl("logs", pod["metadata"]["name"]).split() == ["r1", "canary", "bird", "32"]
    assert ended["status"]["phase"] == "Succeeded"
    assert not any(each["name"].startswith("kube-api-access") for each in ended["spec"].get("volumes", ()))


def container_pod(name: str, script: str, settings: PodSettings, root: str, **kinds: Any) -> Document:
    """Of a ContainerTask with the inputs `kinds["inputs"]` and the outputs `kinds["outputs"]`."""
    config = tasks_pb2.DataLoadingConfig(enabled=True, input_path="/var/inputs", output_path="/var/outputs")
    interface = interface_pb2.TypedInterface(
        inputs=variables(**kinds.get("inputs", {})), outputs=variables(**kinds["outputs"])
    )
    container = {"image": settings.helper_image, "command": ["sh", "-c"], "args": [script], "data_config": config}
    template = task(container=container, interface=interface)
    template.type = "raw-container"
    return built(
        template,
        settings=settings,
        args=["sh", "-c", script],
        values={**VALUES, "rawOutputDataPrefix": f"{root}/raw"},
        input_uri=f"{root}/inputs.pb",
        output_prefix=f"{root}/1",
        attempt=replace(attempt(), action=replace(attempt().action, name=name)),
    )


def test_a_container_task_reads_and_writes_files(
    kubectl: Kubectl, manager_image: str, s3: S3Server, storage: PodSettings
) -> None:
    files, root = Files(options_of(s3.task_env)), f"s3://{s3.bucket}/container-task"
    files.write(f"{root}/data.csv", b"a,b")
    blob = literals_pb2.Blob(uri=f"{root}/data.csv", metadata=literals_pb2.BlobMetadata(type=FILE.blob))
    value = literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=blob))
    inputs = common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="f", value=value)])
    files.write(f"{root}/inputs.pb", inputs.SerializeToString())
    script = "cp /var/inputs/f /var/outputs/g; wc -c < /var/inputs/f > /var/outputs/n"
    settings = replace(storage, helper_image=manager_image)
    pod = container_pod("b1", script, settings, root, inputs={"f": FILE}, outputs={"n": INTEGER, "g": FILE})
    assert run(kubectl, named(pod, "container"))["status"]["phase"] == "Succeeded"
    made = {each.name: each.value.scalar for each in results(files, root).literals}
    assert made["n"].primitive.integer == 3
    assert files.read(made["g"].blob.uri) == b"a,b"


@pytest.mark.parametrize("number", range(3))
def test_outputs_of_a_container_that_ends_at_once_are_not_lost(
    kubectl: Kubectl, manager_image: str, s3: S3Server, storage: PodSettings, number: int
) -> None:
    files, root = Files(options_of(s3.task_env)), f"s3://{s3.bucket}/quick-{number}"
    settings = replace(storage, helper_image=manager_image)
    pod = container_pod("b2", "echo 7 > /var/outputs/n", settings, root, outputs={"n": INTEGER})
    assert run(kubectl, named(pod, f"quick-{number}"))["status"]["phase"] == "Succeeded"
    assert results(files, root).literals[0].value.scalar.primitive.integer == 7


def test_an_output_that_a_container_did_not_write_is_named(
    kubectl: Kubectl, manager_image: str, s3: S3Server, storage: PodSettings
) -> None:
    files, root = Files(options_of(s3.task_env)), f"s3://{s3.bucket}/missing"
    pod = container_pod("b3", "true", replace(storage, helper_image=manager_image), root, outputs={"n": INTEGER})
    run(kubectl, named(pod, "missing"))
    error = execution_pb2.ErrorDocument.FromString(files.read(f"{root}/1/error.pb")).error
    assert error.code == "OutputMissing"
    assert "without writing /var/outputs/n" in error.message
    with pytest.raises(ObjectMissing):
        results(files, root)


def named(pod: Document, name: str) -> Document:
    pod["metadata"]["name"] = name
    return pod


def results(files: Files, root: str) -> common_pb2.Outputs:
    return common_pb2.Outputs.FromString(files.read(f"{root}/1/outputs.pb"))
