"""Pods of tasks that say their container."""

import json
from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.core import security_pb2, tasks_pb2

from flyte_manager.domain.actions import Resource
from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes import labels
from flyte_manager.kubernetes.containers import SecretByValue
from flyte_manager.kubernetes.pods import (
    BadPodDefaults,
    NameTooLong,
    PodSettings,
    build,
    check,
    needs_template,
)
from tests.unit.kubernetes.launches import (
    SETTINGS,
    attempt,
    built,
    env_of,
    launch,
    main_of,
    reference,
    resources,
    task,
)

CANARY = b"correct-horse-battery-staple"


def test_the_pod_of_a_plain_task() -> None:
    assert built() == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "r1-a0-0",
            "namespace": "flyte",
            "labels": {
                "flyte.org/managed": "true",
                "flyte.org/project": "flytesnacks",
                "flyte.org/domain": "development",
                "flyte.org/run": "r1",
                "flyte.org/action": "a0",
                "flyte.org/attempt": "1",
                "organization": "flyte",
                "project": "flytesnacks",
                "domain": "development",
                "run": "r1",
                "action": "a0",
                "attempt": "1",
                "task-name": "env.main",
            },
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "primary_container_name": "primary",
            },
            "ownerReferences": [
                {
                    "apiVersion": "flyte.org/v1",
                    "kind": "TaskAction",
                    "name": "r1-a0",
                    "uid": "uid-1",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "containers": [
                {
                    "name": "primary",
                    "image": "registry.example/task:1",
                    "args": ["a0", "--inputs", "s3://b/run/a0/inputs.pb"],
                    "env": [
                        {"name": "MODE", "value": "fast"},
                        {"name": "ACTION_NAME", "value": "a0"},
                        {"name": "RUN_NAME", "value": "r1"},
                    ],
                }
            ],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
        },
    }


def test_labels_lead_back_to_the_attempt() -> None:
    pod = built(attempt=attempt(3))
    assert pod["metadata"]["name"] == "r1-a0-2"
    assert labels.attempt_of(pod["metadata"]["labels"]) == attempt(3)
    assert pod["metadata"]["annotations"]["primary_container_name"] == "primary"


def test_the_same_launch_makes_the_same_bytes() -> None:
    given: dict[str, Any] = {
        "labels": {f"l{number}": "x" for number in range(20)},
        "env": {f"E{number}": "x" for number in range(20)},
        "secret_files": {f"g/{number}": reference(str(number)) for number in range(20)},
    }
    turned: dict[str, Any] = {name: dict(reversed(value.items())) for name, value in given.items()}
    assert json.dumps(built(**given)) == json.dumps(built(**turned))


def test_command_and_args_of_the_task_stay_apart() -> None:
    main = main_of(built(task(container={"command": ["sh", "-c"], "args": ["echo {{.runName}}"]})))
    assert (main["command"], main["args"]) == (["sh", "-c"], ["echo r1"])
    main = main_of(built(task(container={"command": ["run"], "args": []})))
    assert main["command"] == ["run"]
    assert "args" not in main


def test_a_value_that_looks_like_a_template_is_not_filled_in_again() -> None:
    main = main_of(built(args=["a0", "{{.outputPrefix}}"]))
    assert main["args"] == ["a0", "{{.outputPrefix}}"]


def test_ports_of_the_container() -> None:
    ports = [tasks_pb2.ContainerPort(container_port=8080, name="http"), tasks_pb2.ContainerPort(container_port=9)]
    assert main_of(built(task(container={"ports": ports})))["ports"] == [
        {"containerPort": 8080, "name": "http"},
        {"containerPort": 9},
    ]


def test_storage_lies_beneath_the_tasks_variables_and_these_beneath_the_attempts() -> None:
    settings = PodSettings(
        "flyte",
        storage_env={"FLYTE_AWS_ENDPOINT": "http://s3", "MODE": "storage", "ACTION_NAME": "storage"},
        storage_secret_env={"FLYTE_AWS_SECRET_ACCESS_KEY": reference("s3")},
    )
    env = env_of(main_of(built(settings=settings, env={"ACTION_NAME": "a0"})))
    assert env == {
        "FLYTE_AWS_ENDPOINT": "http://s3",
        "FLYTE_AWS_SECRET_ACCESS_KEY": {"secretKeyRef": {"name": "secret-of-project", "key": "s3"}},
        "MODE": "fast",
        "ACTION_NAME": "a0",
    }


def test_secrets_are_references_and_never_values() -> None:
    pod = built(
        secret_env={"MY_KEY": reference("my_key"), "MODE": reference("mode")},
        secret_files={"g/one": reference("one"), "two": reference("two")},
    )
    env = env_of(main_of(pod))
    assert env["MY_KEY"] == {"secretKeyRef": {"name": "secret-of-project", "key": "my_key"}}
    assert env["MODE"] == {"secretKeyRef": {"name": "secret-of-project", "key": "mode"}}
    assert env["FLYTE_SECRETS_DEFAULT_DIR"] == "/etc/flyte/secrets"
    assert pod["spec"]["volumes"] == [
        {
            "name": "flyte-secrets",
            "projected": {
                "sources": [
                    {
                        "secret": {
                            "name": "secret-of-project",
                            "items": [{"key": "one", "path": "g/one"}, {"key": "two", "path": "two"}],
                        }
                    }
                ]
            },
        }
    ]
    assert main_of(pod)["volumeMounts"] == [
        {"name": "flyte-secrets", "mountPath": "/etc/flyte/secrets", "readOnly": True}
    ]


@pytest.mark.parametrize("kind", ["secret_env", "secret_files"])
def test_a_secrets_value_never_gets_into_a_pod_nor_into_the_message(kind: str) -> None:
    given: dict[str, Any] = {kind: {"KEY": CANARY}}
    with pytest.raises(SecretByValue) as caught:
        built(**given)
    assert CANARY.decode() not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (({"CPU": "2"}, {}), {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}),
        (({}, {"CPU": "2"}), {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}),
        (({"CPU": "1"}, {"CPU": "2"}), {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
        (
            ({"MEMORY": "1Gi", "EPHEMERAL_STORAGE": "5Gi"}, {}),
            {
                "requests": {"memory": "1Gi", "ephemeral-storage": "5Gi"},
                "limits": {"memory": "1Gi", "ephemeral-storage": "5Gi"},
            },
        ),
        (({"STORAGE": "5Gi"}, {}), {kind: {"ephemeral-storage": "5Gi"} for kind in ("requests", "limits")}),
        (({"GPU": "2"}, {}), {kind: {"nvidia.com/gpu": "2"} for kind in ("requests", "limits")}),
    ],
)
def test_request_and_limit_stand_for_each_other(
    asked: tuple[dict[str, str], dict[str, str]], expected: dict[str, dict[str, str]]
) -> None:
    assert main_of(built(task(container={"resources": resources(*asked)})))["resources"] == expected


DEFAULTS = PodSettings("flyte", default_cpu="250m", default_memory="256Mi", default_ephemeral_storage="1Gi")


def test_what_the_task_does_not_ask_for_gets_the_platforms_request_and_no_limit() -> None:
    pod = built(task(container={"resources": resources({"CPU": "2"})}), settings=DEFAULTS)
    assert main_of(pod)["resources"] == {
        "requests": {"cpu": "2", "memory": "256Mi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "2"},
    }


def test_a_template_that_limits_a_kind_is_no_task_that_asks_for_none() -> None:
    beneath = {"spec": {"containers": [{"name": "default", "resources": {"limits": {"memory": "128Mi"}}}]}}
    found = main_of(built(settings=replace(DEFAULTS, pod_template="base"), resource=beneath))["resources"]
    assert found == {"requests": {"cpu": "250m", "ephemeral-storage": "1Gi"}, "limits": {"memory": "128Mi"}}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (({"CPU": "3"}, {"CPU": "2"}), "requests 3 of cpu, but its limit is 2"),
        (({"MEMORY": "1Gi"}, {"MEMORY": "1000M"}), "requests 1Gi of memory, but its limit is 1000M"),
        (({"MEMORY": "much"}, {}), "'much' is not a quantity"),
        (({"GPU": "1"}, {"GPU": "2"}), "requests 1 of nvidia.com/gpu and limits it to 2"),
    ],
)
def test_impossible_resources_are_refused_with_words(asked: tuple[dict[str, str], dict[str, str]], words: str) -> None:
    with pytest.raises(LaunchRefused, match=words):
        built(task(container={"resources": resources(*asked)}))


def test_shared_memory_is_an_empty_dir_in_memory() -> None:
    shared = tasks_pb2.SharedMemory(mount_path="/dev/shm", mount_name="flyte-shm", size_limit="1Gi")
    pod = built(task(extended_resources=tasks_pb2.ExtendedResources(shared_memory=shared)))
    assert pod["spec"]["volumes"] == [{"name": "flyte-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
    assert main_of(pod)["volumeMounts"] == [{"name": "flyte-shm", "mountPath": "/dev/shm"}]


def test_shared_memory_without_a_size_has_no_limit() -> None:
    shared = tasks_pb2.SharedMemory()
    pod = built(task(extended_resources=tasks_pb2.ExtendedResources(shared_memory=shared)))
    assert pod["spec"]["volumes"] == [{"name": "flyte-shm", "emptyDir": {"medium": "Memory"}}]


def accelerated(**accelerator: Any) -> tasks_pb2.TaskTemplate:
    found = tasks_pb2.GPUAccelerator(**accelerator)
    return task(
        container={"resources": resources({"GPU": "1"})},
        extended_resources=tasks_pb2.ExtendedResources(gpu_accelerator=found),
    )


LABELLED = PodSettings("flyte", accelerator_label="gpu-model", partition_label="gpu-part")


def required(pod: dict[str, Any]) -> Any:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    return affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


def test_an_accelerator_chooses_nodes_by_model_and_partition() -> None:
    pod = built(accelerated(device="nvidia-tesla-a100", partition_size="1g.5gb"), settings=LABELLED)
    assert required(pod) == [
        {
            "matchExpressions": [
                {"key": "gpu-model", "operator": "In", "values": ["nvidia-tesla-a100"]},
                {"key": "gpu-part", "operator": "In", "values": ["1g.5gb"]},
            ]
        }
    ]
    assert pod["spec"]["tolerations"] == [
        {"key": "gpu-model", "operator": "Equal", "value": "nvidia-tesla-a100", "effect": "NoSchedule"},
        {"key": "gpu-part", "operator": "Equal", "value": "1g.5gb", "effect": "NoSchedule"},
    ]
    whole = required(built(accelerated(device="x", unpartitioned=True), settings=LABELLED))
    assert whole[0]["matchExpressions"][1] == {"key": "gpu-part", "operator": "DoesNotExist"}


def test_an_accelerator_is_added_to_each_term_of_the_platforms_affinity() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    settings = replace(LABELLED, pod_defaults={"spec": {"affinity": affinity}})
    for zone, term in zip("ab", required(built(accelerated(device="x"), settings=settings)), strict=True):
        assert [each["key"] for each in term["matchExpressions"]] == ["zone", "gpu-model"]
        assert term["matchExpressions"][0]["values"] == [zone]
    assert terms[0] == {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}


@pytest.mark.parametrize(
    ("device_class", "resource"),
    [
        ("NVIDIA_GPU", "nvidia.com/gpu"),
        ("GOOGLE_TPU", "google.com/tpu"),
        ("AMAZON_NEURON", "aws.amazon.com/neuron"),
        ("AMD_GPU", "amd.com/gpu"),
        ("HABANA_GAUDI", "habana.ai/gaudi"),
    ],
)
def test_each_class_of_devices_has_its_resource(device_class: str, resource: str) -> None:
    pod = built(accelerated(device="x", device_class=device_class))
    assert main_of(pod)["resources"]["requests"] == {resource: "1"}


@pytest.mark.parametrize("accelerator", [{"device": "T4 shared"}, {"device": "AppleSilicon", "device_class": 5}])
def test_devices_that_no_label_can_choose_are_refused(accelerator: dict[str, Any]) -> None:
    with pytest.raises(LaunchRefused, match="can't be chosen by a node's label"):
        built(accelerated(**accelerator), settings=LABELLED)


def test_the_runs_account_counts_before_the_tasks_and_this_before_the_platforms() -> None:
    with_account = task()
    with_account.security_context.CopyFrom(
        security_pb2.SecurityContext(run_as=security_pb2.Identity(k8s_service_account="of-task"))
    )
    settings = PodSettings("flyte", service_account="of-platform")
    for pod, account in (
        (built(with_account, settings=settings, service_account="of-run"), "of-run"),
        (built(with_account, settings=settings), "of-task"),
        (built(settings=settings), "of-platform"),
    ):
        assert pod["spec"]["serviceAccountName"] == account
        assert "automountServiceAccountToken" not in pod["spec"]


def test_users_labels_never_replace_ours() -> None:
    pod = built(labels={"team": "red", "flyte.org/run": "other", "run": "other"}, annotations={"note": "hello, world"})
    assert pod["metadata"]["labels"]["team"] == "red"
    assert pod["metadata"]["labels"]["flyte.org/run"] == pod["metadata"]["labels"]["run"] == "r1"
    assert pod["metadata"]["annotations"]["note"] == "hello, world"


def test_a_user_may_let_the_autoscaler_evict_and_may_not_choose_another_primary() -> None:
    evict = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    found = built(annotations={evict: "true", "primary_container_name": "x"})["metadata"]["annotations"]
    assert found == {evict: "true", "primary_container_name": "primary"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"labels": {"team": "red team"}}, "label 'team' = 'red team'"),
        ({"labels": {"team": "x" * 64}}, "its value must be at most 63"),
        ({"labels": {"-bad": "x"}}, "label '-bad'"),
        ({"labels": {"UPPER.example/x": "x"}}, "label 'UPPER.example/x'"),
        ({"annotations": {"a b": "x"}}, "annotation 'a b'"),
    ],
)
def test_illegal_labels_and_annotations_are_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(LaunchRefused, match=words):
        built(**given)


@pytest.mark.parametrize("name", ["mod.task with spaces", "ünïcode", "x" * 200, "…", "-"])
def test_a_tasks_name_becomes_a_legal_label_that_is_its_own(name: str) -> None:
    template, other = task(), task()
    template.id.name, other.id.name = name, f"{name}!"
    label, second = (built(each)["metadata"]["labels"]["task-name"] for each in (template, other))
    assert 0 < len(label) <= 63
    assert label.isascii()
    assert label != second


def test_interruptible_attempts_get_what_the_platform_has_for_them() -> None:
    taint = {"key": "spot", "operator": "Exists"}
    settings = PodSettings(
        "flyte",
        pod_defaults={"spec": {"nodeSelector": {"pool": "steady", "os": "linux"}}},
        interruptible_defaults={"spec": {"nodeSelector": {"pool": "spot"}, "tolerations": [taint]}},
    )
    steady, spot = built(settings=settings)["spec"], built(settings=settings, interruptible=True)["spec"]
    assert steady["nodeSelector"] == {"pool": "steady", "os": "linux"}
    assert "tolerations" not in steady
    assert spot["nodeSelector"] == {"pool": "spot", "os": "linux"}
    assert spot["tolerations"] == [taint]


def test_pull_secrets_and_pull_policy_come_from_the_platform() -> None:
    settings = PodSettings("flyte", image_pull_secrets=("reg",), image_pull_policy="IfNotPresent")
    pod = built(settings=settings)
    assert pod["spec"]["imagePullSecrets"] == [{"name": "reg"}]
    assert main_of(pod)["imagePullPolicy"] == "IfNotPresent"


def test_a_task_without_an_image_is_refused() -> None:
    with pytest.raises(LaunchRefused, match="names no image"):
        built(task(container={"image": ""}))


def test_a_template_that_can_not_be_read_is_refused() -> None:
    with pytest.raises(LaunchRefused, match="can't be read as a flyteidl2 TaskTemplate"):
        build(replace(launch(), template=b"\xff\xff"), settings=SETTINGS, template=None)


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(NameTooLong, match="would have 254 characters"):
        build(launch(resource=Resource("x" * 252, "u")), settings=SETTINGS, template=None)


def test_needs_template_names_the_tasks_before_the_platforms() -> None:
    settings = PodSettings("flyte", pod_template="platform")
    named = task(metadata=tasks_pb2.TaskMetadata(pod_template_name="of-task"))
    assert needs_template(launch(named), settings) == "of-task"
    assert needs_template(launch(), settings) == "platform"
    assert needs_template(launch(), SETTINGS) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PodSettings("flyte", pod_defaults={"nodeSelector": {}}), "podDefaults .*'nodeSelector' is neither"),
        (PodSettings("flyte", pod_defaults={"spec": {"tolerations": {}}}), "spec.tolerations must be a list"),
        (PodSettings("flyte", interruptible_defaults={"spec": "x"}), "interruptibleDefaults .*must be an object"),
        (PodSettings("flyte", pod_defaults={"metadata": {"labels": {"a": 1}}}), "must be an object of texts"),
        (PodSettings("flyte", pod_defaults={"metadata": {"labels": {"a": "b c"}}}), "[Ll]abel 'a'"),
        (PodSettings("flyte", default_memory="lots"), "'lots' is not a quantity"),
    ],
)
def test_bad_defaults_are_told_at_the_start(settings: PodSettings, words: str) -> None:
    with pytest.raises(BadPodDefaults, match=words):
        check(settings)


def test_good_defaults_pass() -> None:
    check(DEFAULTS)
    check(LABELLED)
