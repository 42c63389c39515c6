"""Pods of ContainerTasks: the helpers that move inputs and outputs."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.core import interface_pb2, tasks_pb2, types_pb2

from flyte_manager.copilot.program import parser
from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes.data_files import DOWNLOADER, UPLOADER
from flyte_manager.kubernetes.pods import PodSettings
from tests.unit.kubernetes.launches import Document, Simple, built, env_of, main_of, own_pod, reference, task, variables

INTEGER = types_pb2.LiteralType(simple=Simple.INTEGER)
SETTINGS = PodSettings(
    "flyte",
    helper_image="manager:1",
    image_pull_policy="Always",
    storage_env={"FLYTE_AWS_ENDPOINT": "http://s3"},
    storage_secret_env={"FLYTE_AWS_SECRET_ACCESS_KEY": reference("s3")},
)


def container_task(
    *, inputs: bool = True, outputs: bool = True, config: dict[str, Any] | None = None, **more: Any
) -> tasks_pb2.TaskTemplate:
    interface = interface_pb2.TypedInterface(
        inputs=variables(n=INTEGER) if inputs else None, outputs=variables(o=INTEGER) if outputs else None
    )
    given = {"enabled": True, "input_path": "/var/inputs", "output_path": "/var/outputs", **(config or {})}
    made = task(
        interface=interface,
        container={"args": ["sh"], "data_config": tasks_pb2.DataLoadingConfig(**given), **more.pop("container", {})},
        **more,
    )
    made.type = "raw-container"
    return made


def helper(pod: Document, name: str) -> Document:
    found: Document = next(each for each in pod["spec"]["initContainers"] if each["name"] == name)
    return found


def test_the_sidecar_comes_first_then_the_download_then_the_users_init_containers() -> None:
    settings = replace(SETTINGS, pod_defaults={"spec": {"initContainers": [{"name": "theirs", "image": "x"}]}})
    pod = built(container_task(), settings=settings)
    assert [each["name"] for each in pod["spec"]["initContainers"]] == [UPLOADER, DOWNLOADER, "theirs"]
    assert [each["name"] for each in pod["spec"]["containers"]] == ["primary"]


def test_the_folders_are_shared_with_the_primary_container() -> None:
    pod = built(container_task(), settings=SETTINGS)
    inputs = {"name": "flyte-inputs", "mountPath": "/var/inputs"}
    outputs = {"name": "flyte-outputs", "mountPath": "/var/outputs"}
    assert main_of(pod)["volumeMounts"] == [outputs, inputs]
    assert helper(pod, DOWNLOADER)["volumeMounts"] == [inputs]
    assert outputs in helper(pod, UPLOADER)["volumeMounts"]
    assert {each["name"] for each in pod["spec"]["volumes"]} == {"flyte-inputs", "flyte-outputs", "flyte-helper"}


def test_the_helpers_get_what_opens_the_storage_and_nothing_of_the_tasks() -> None:
    pod = built(container_task(), settings=SETTINGS, secret_env={"KEY": reference("key")})
    for name in (UPLOADER, DOWNLOADER):
        found = helper(pod, name)
        assert found["image"] == "manager:1"
        assert found["imagePullPolicy"] == "Always"
        assert found["command"] == ["python", "-m", "flyte_manager.copilot"]
        assert env_of(found) == {
            "FLYTE_AWS_ENDPOINT": "http://s3",
            "FLYTE_AWS_SECRET_ACCESS_KEY": {"secretKeyRef": {"name": "secret-of-project", "key": "s3"}},
        }
        assert found["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_helpers_program_understands_its_arguments() -> None:
    template = container_task(config={"format": "YAML", "file_input_layout": "NAMED_DIR"})
    pod = built(template, settings=SETTINGS)
    down = parser().parse_args(helper(pod, DOWNLOADER)["args"])
    assert (down.command, str(down.folder), down.inputs) == ("download", "/var/inputs", "s3://b/run/a0/inputs.pb")
    assert (down.format, down.layout, down.results) == ("YAML", "NAMED_DIR", "s3://b/run/a0/1")
    up = parser().parse_args(helper(pod, UPLOADER)["args"])
    assert (up.command, str(up.folder), up.results) == ("upload", "/var/outputs", "s3://b/run/a0/1")
    assert up.raw == "s3://b/run/a0/1/raw"
    assert interface_pb2.VariableMap.FromString(up.outputs) == template.interface.outputs
    hook = helper(pod, UPLOADER)["lifecycle"]["postStart"]["exec"]["command"]
    assert up.ready in hook[-1]
    assert base64.b64encode(up.outputs).decode() in helper(pod, UPLOADER)["args"]


def test_the_uploader_is_a_sidecar_with_time_to_upload() -> None:
    pod = built(container_task(), settings=SETTINGS)
    assert helper(pod, UPLOADER)["restartPolicy"] == "Always"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 3600
    beneath = {"spec": {"terminationGracePeriodSeconds": 7200}}
    pod = built(container_task(), settings=replace(SETTINGS, pod_template="base"), resource=beneath)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 7200


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (container_task(inputs=False), [UPLOADER]),
        (container_task(outputs=False), [DOWNLOADER]),
        (container_task(inputs=False, outputs=False), []),
        (container_task(config={"enabled": False}), []),
        (container_task(config={"io_strategy": {"download_mode": "DO_NOT_DOWNLOAD"}}), [UPLOADER]),
        (container_task(config={"io_strategy": {"upload_mode": "DO_NOT_UPLOAD"}}), [DOWNLOADER]),
    ],
)
def test_a_pod_has_the_helpers_that_it_needs(template: tasks_pb2.TaskTemplate, expected: list[str]) -> None:
    pod = built(template, settings=SETTINGS)
    assert [each["name"] for each in pod["spec"].get("initContainers", ())] == expected


def test_folders_that_are_not_said_are_flytes() -> None:
    pod = built(container_task(config={"input_path": "", "output_path": ""}), settings=SETTINGS)
    assert [each["mountPath"] for each in main_of(pod)["volumeMounts"]] == ["/var/flyte/outputs", "/var/flyte/inputs"]


@pytest.mark.parametrize(
    ("template", "settings", "words"),
    [
        (container_task(), replace(SETTINGS, helper_image=""), "set manager.kubernetes.helperImage"),
        (container_task(config={"input_path": "in"}), SETTINGS, "the input folder 'in' of task 'env.main'"),
        (container_task(config={"input_path": "/"}), SETTINGS, "the input folder '/' of task"),
        (container_task(config={"output_path": "/a/../b"}), SETTINGS, "the output folder '/a/../b'"),
        (container_task(config={"output_path": "/a:b"}), SETTINGS, "the output folder '/a:b'"),
        (container_task(config={"output_path": "/var/inputs/"}), SETTINGS, "folder of both its inputs and its outputs"),
    ],
)
def test_what_can_not_be_moved_is_refused_with_the_cure(
    template: tasks_pb2.TaskTemplate, settings: PodSettings, words: str
) -> None:
    with pytest.raises(LaunchRefused, match=words):
        built(template, settings=settings)


def test_a_container_task_whose_pod_template_lost_the_folders_is_refused() -> None:
    template = own_pod({"containers": [{"name": "main", "image": "x"}]})
    template.type = "raw-container"
    assert built(template, settings=SETTINGS)["spec"]["containers"][0]["name"] == "main"
    template.interface.CopyFrom(interface_pb2.TypedInterface(outputs=variables(o=INTEGER)))
    with pytest.raises(LaunchRefused, match="give `pod_template=` the name of a PodTemplate"):
        built(template, settings=SETTINGS)
    template.k8s_pod.data_config.CopyFrom(tasks_pb2.DataLoadingConfig(enabled=True, output_path="/out"))
    assert main_of(built(template, settings=SETTINGS))["volumeMounts"][0]["mountPath"] == "/out"


@pytest.mark.parametrize("name", [UPLOADER, DOWNLOADER])
def test_the_helpers_names_can_not_be_taken(name: str) -> None:
    settings = replace(SETTINGS, pod_defaults={"spec": {"containers": [{"name": name, "image": "x"}]}})
    with pytest.raises(LaunchRefused, match=f"container named '{name}'"):
        built(container_task(), settings=settings)
