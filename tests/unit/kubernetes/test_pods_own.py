"""Pods that a task brings itself, and templates of the platform beneath all kinds of pods."""

from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.core import tasks_pb2
from google.protobuf import struct_pb2

from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes.pods import PodSettings, build
from tests.unit.kubernetes.launches import (
    SETTINGS,
    Document,
    built,
    env_of,
    launch,
    main_of,
    own_pod,
    reference,
    resources,
    task,
)

MAIN: Document = {"name": "main", "image": "task:1", "args": ["a0", "--out", "{{.outputPrefix}}"]}
SIDE: Document = {"name": "side", "image": "side:1", "command": ["serve", "{{ .RunName }}"]}
PLATFORM = PodSettings("flyte", pod_template="base")


def container(pod: Document, name: str) -> Document:
    every = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    found: Document = next(each for each in every if each["name"] == name)
    return found


def names(pod: Document, kind: str = "containers") -> list[str]:
    return [each["name"] for each in pod["spec"][kind]]


def test_all_that_the_tasks_own_pod_says_stays() -> None:
    spec = {
        "containers": [MAIN, SIDE],
        "initContainers": [{"name": "prepare", "image": "init:1", "args": ["{{.input}}"]}],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "nodeSelector": {"zone": "a"},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "securityContext": {"runAsUser": 1000},
        "hostNetwork": True,
        "automountServiceAccountToken": True,
        "enableServiceLinks": True,
        "priority": 5,
    }
    pod = built(own_pod(spec, labels={"team": "red"}, annotations={"note": "x"}))
    for name in spec.keys() - {"containers", "initContainers"}:
        assert pod["spec"][name] == spec[name]
    assert type(pod["spec"]["securityContext"]["runAsUser"]) is int
    assert names(pod) == ["main", "side"]
    assert pod["metadata"]["labels"]["team"] == "red"
    assert pod["metadata"]["annotations"]["note"] == "x"
    assert pod["metadata"]["annotations"]["primary_container_name"] == "main"


def test_the_pod_never_restarts_whatever_a_template_says() -> None:
    assert built(own_pod({"containers": [MAIN], "restartPolicy": "Always"}))["spec"]["restartPolicy"] == "Never"


def test_argument_templates_of_all_containers_are_filled_in() -> None:
    init = {"name": "prepare", "image": "init:1", "args": ["{{.input}}", "{{.inputs.n}}", "{{.unknown}}"]}
    pod = built(own_pod({"containers": [MAIN, SIDE], "initContainers": [init]}))
    assert container(pod, "main")["args"] == ["a0", "--out", "s3://b/run/a0/1"]
    assert container(pod, "side")["command"] == ["serve", "r1"]
    assert container(pod, "prepare")["args"] == ["s3://b/run/a0/inputs.pb", "7", "{{.unknown}}"]


def test_variables_and_secrets_reach_every_container() -> None:
    own = {**MAIN, "env": [{"name": "A", "value": "1"}, {"name": "RUN_NAME", "value": "mine"}]}
    init = {"name": "prepare", "image": "init:1"}
    pod = built(
        own_pod({"containers": [own, SIDE], "initContainers": [init]}),
        secret_env={"KEY": reference("key")},
        secret_files={"g/file": reference("file")},
    )
    for name in ("main", "side", "prepare"):
        env = env_of(container(pod, name))
        assert env["RUN_NAME"] == "r1"
        assert env["KEY"] == {"secretKeyRef": {"name": "secret-of-project", "key": "key"}}
        assert container(pod, name)["volumeMounts"][0]["mountPath"] == "/etc/flyte/secrets"
    assert env_of(container(pod, "main"))["A"] == "1"


def test_of_a_variable_that_the_sdk_wrote_twice_the_last_one_counts() -> None:
    twice = {**MAIN, "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}
    env = container(built(own_pod({"containers": [twice]})), "main")["env"]
    assert [each["value"] for each in env if each["name"] == "A"] == ["2"]


def test_only_the_primary_container_is_sized() -> None:
    main = {**MAIN, "resources": {"requests": {"cpu": "1", "gpu": "1"}, "limits": {}}}
    side = {**SIDE, "resources": {"requests": {"cpu": "100m"}}}
    settings = PodSettings("flyte", default_memory="256Mi", gpu_resource="amd.com/gpu")
    pod = built(own_pod({"containers": [main, side]}), settings=settings)
    assert container(pod, "main")["resources"] == {
        "requests": {"cpu": "1", "amd.com/gpu": "1", "memory": "256Mi"},
        "limits": {"cpu": "1", "amd.com/gpu": "1"},
    }
    assert container(pod, "side")["resources"] == {"requests": {"cpu": "100m"}}


def test_a_sidecar_whose_limit_is_too_low_is_refused_by_name() -> None:
    side = {**SIDE, "resources": {"requests": {"cpu": 2}, "limits": {"cpu": "500m"}}}
    with pytest.raises(LaunchRefused, match="container 'side' requests 2 of cpu, but its limit is 500m"):
        built(own_pod({"containers": [MAIN, side]}))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (own_pod({"containers": [MAIN]}, primary="other"), "has no container 'other'"),
        (own_pod({"containers": [MAIN]}, primary=""), "does not say which container is the primary one"),
        (own_pod({}), "has no container 'main'"),
        (own_pod({"containers": None}), "has no container 'main'"),
        (own_pod({"containers": [{"name": "main"}]}), "names no image"),
        (own_pod({"containers": {"name": "main"}}), "spec.containers must be a list, not an object"),
        (own_pod({"containers": ["main"]}), r"spec.containers\[0\] must be an object, not a text"),
        (own_pod({"containers": [{"image": "x"}]}), r"spec.containers\[0\] has no name"),
        (own_pod({"containers": [MAIN, MAIN]}), "spec.containers holds name 'main' twice"),
        (own_pod({"containers": [{**MAIN, "env": {"A": "1"}}]}), "env must be a list"),
        (own_pod({"containers": [{**MAIN, "args": "a0"}]}), "args of container 'main' must be a list"),
        (own_pod({"containers": [{**MAIN, "resources": [1]}]}), "resources must be an object, not a list"),
        (own_pod({"containers": [{**MAIN, "resources": {"limits": "1"}}]}), "limits must be an object"),
        (own_pod({"containers": [MAIN], "tolerations": "all"}), "spec.tolerations must be a list, not a text"),
        (own_pod({"containers": [MAIN], "priority": float("nan")}), "a number that is none"),
        (own_pod({"containers": [MAIN]}, labels={"a b": "c"}), "label 'a b'"),
    ],
)
def test_pods_that_are_none_are_refused_with_words(template: tasks_pb2.TaskTemplate, words: str) -> None:
    with pytest.raises(LaunchRefused, match=words):
        built(template)


def test_affinity_that_is_none_is_refused_where_an_accelerator_needs_it() -> None:
    accelerator = tasks_pb2.GPUAccelerator(device="a100")
    template = own_pod(
        {"containers": [MAIN], "affinity": {"nodeAffinity": "x"}},
        extended_resources=tasks_pb2.ExtendedResources(gpu_accelerator=accelerator),
    )
    with pytest.raises(LaunchRefused, match="nodeAffinity must be an object"):
        built(template, settings=PodSettings("flyte", accelerator_label="gpu"))


@pytest.mark.parametrize("volume", ["flyte-secrets", "flyte-shm"])
def test_volumes_of_flyte_can_not_be_taken(volume: str) -> None:
    shared = tasks_pb2.ExtendedResources(shared_memory=tasks_pb2.SharedMemory())
    spec = {"containers": [MAIN], "volumes": [{"name": volume, "emptyDir": {}}]}
    with pytest.raises(LaunchRefused, match=f"volume named '{volume}'.*rename yours"):
        built(own_pod(spec, extended_resources=shared), secret_files={"a": reference("a")})


def test_the_layers_lie_over_each_other_in_their_order() -> None:
    def layer(name: str, *more: str) -> Document:
        marks = dict.fromkeys((name, *more), name)
        return {"metadata": {"labels": marks, "annotations": marks}, "spec": {"nodeSelector": marks}}

    settings = replace(
        PLATFORM,
        pod_defaults=layer("defaults", "spot", "base", "own"),
        interruptible_defaults=layer("spot", "base", "own"),
    )
    spec = {"containers": [MAIN], "nodeSelector": {"own": "own"}}
    pod = built(
        own_pod(spec, labels={"own": "own"}, annotations={"own": "own"}),
        settings=settings,
        resource=layer("base", "own"),
        interruptible=True,
        labels={"run": "never", "of-run": "x"},
    )
    expected = {"defaults": "defaults", "spot": "spot", "base": "base", "own": "own"}
    assert pod["spec"]["nodeSelector"] == expected
    assert expected.items() <= pod["metadata"]["labels"].items()
    assert expected.items() <= pod["metadata"]["annotations"].items()
    assert pod["metadata"]["labels"]["of-run"] == "x"


def test_lists_of_named_things_are_merged_by_name() -> None:
    base = {
        "spec": {
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
            "imagePullSecrets": [{"name": "reg"}],
            "tolerations": [{"key": "x", "operator": "Exists"}],
            "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        }
    }
    spec = {
        "containers": [MAIN],
        "volumes": [{"name": "b", "configMap": {"name": "c"}}, {"name": "c", "emptyDir": {}}],
        "imagePullSecrets": [{"name": "reg"}, {"name": "other"}],
        "tolerations": [{"operator": "Exists", "key": "x"}, {"key": "y", "operator": "Exists"}],
    }
    found = built(own_pod(spec), settings=PLATFORM, resource=base)["spec"]
    assert found["volumes"] == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "c"}},
        {"name": "c", "emptyDir": {}},
    ]
    assert found["imagePullSecrets"] == [{"name": "reg"}, {"name": "other"}]
    assert [each["key"] for each in found["tolerations"]] == ["x", "y"]
    assert found["dnsConfig"] == base["spec"]["dnsConfig"]


def test_default_and_primary_of_a_template_lie_beneath_the_tasks_containers() -> None:
    base = {
        "spec": {
            "containers": [
                {
                    "name": "default",
                    "image": "placeholder",
                    "terminationMessagePath": "/dev/foo",
                    "env": [{"name": "EVERY", "value": "1"}, {"name": "BOTH", "value": "default"}],
                    "securityContext": {"runAsNonRoot": True},
                },
                {
                    "name": "primary",
                    "image": "placeholder",
                    "env": [{"name": "BOTH", "value": "primary"}],
                    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                },
                {"name": "noop", "image": "docker.io/rwgrim/docker-noop"},
                {"name": "side", "image": "ignored", "args": ["beneath"]},
                {"name": "proxy", "image": "proxy:1"},
            ],
            "initContainers": [
                {"name": "default-init", "image": "placeholder", "workingDir": "/init"},
                {"name": "first", "image": "first:1"},
            ],
            "volumes": [{"name": "cache", "emptyDir": {}}],
        }
    }
    init = {"name": "prepare", "image": "init:1"}
    pod = built(own_pod({"containers": [MAIN, SIDE], "initContainers": [init]}), settings=PLATFORM, resource=base)
    assert names(pod) == ["main", "side", "proxy"]
    assert names(pod, "initContainers") == ["first", "prepare"]
    main, side = container(pod, "main"), container(pod, "side")
    assert (main["image"], main["terminationMessagePath"]) == ("task:1", "/dev/foo")
    assert main["securityContext"] == {"runAsNonRoot": True}
    assert env_of(main)["BOTH"] == "primary"
    assert main["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert (side["image"], side["args"], env_of(side)["BOTH"]) == ("side:1", ["beneath"], "default")
    assert "volumeMounts" not in side
    assert {env_of(container(pod, name))["EVERY"] for name in ("main", "side", "proxy")} == {"1"}
    assert container(pod, "prepare")["workingDir"] == container(pod, "first")["workingDir"] == "/init"


def test_a_plain_tasks_container_lies_over_the_templates() -> None:
    base = {
        "spec": {
            "containers": [
                {
                    "name": "default",
                    "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi", "cpu": "1"}},
                }
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "serviceAccountName": "of-template",
            "serviceAccount": "of-template",
        }
    }
    pod = built(task(container={"resources": resources({"CPU": "2"})}), settings=PLATFORM, resource=base)
    assert main_of(pod)["resources"] == {
        "requests": {"cpu": "2", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "2Gi"},
    }
    assert pod["spec"]["serviceAccountName"] == "of-template"
    assert "serviceAccount" not in pod["spec"]


def test_probes_and_hooks_are_replaced_as_a_whole() -> None:
    base = {
        "spec": {"containers": [{"name": "default", "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3}}]}
    }
    main = {**MAIN, "livenessProbe": {"exec": {"command": ["true"]}}}
    pod = built(own_pod({"containers": [main]}), settings=PLATFORM, resource=base)
    assert main_of(pod)["livenessProbe"] == {"exec": {"command": ["true"]}}


def test_a_template_that_is_not_there_or_is_none_is_refused() -> None:
    with pytest.raises(LaunchRefused, match="PodTemplate 'base' is not in namespace 'flyte'"):
        built(settings=PLATFORM)
    with pytest.raises(LaunchRefused, match=r"PodTemplate 'base' .*spec.containers must be a list"):
        built(settings=PLATFORM, resource={"spec": {"containers": "x"}})


def test_what_is_given_is_never_changed() -> None:
    settings = replace(
        PLATFORM,
        accelerator_label="gpu",
        pod_defaults={"spec": {"tolerations": [{"key": "x"}], "containers": [{"name": "default", "env": []}]}},
    )
    resource: dict[str, Any] = {"template": {"spec": {"containers": [{"name": "primary", "resources": {}}]}}}
    before = repr((settings, resource))
    accelerator = tasks_pb2.GPUAccelerator(device="a100")
    template = task(extended_resources=tasks_pb2.ExtendedResources(gpu_accelerator=accelerator))
    for _ in range(2):
        pod = build(launch(template), settings=settings, template=resource)
    assert len(pod["spec"]["tolerations"]) == 2
    assert repr((settings, resource)) == before


def test_an_own_pod_needs_no_primary_in_the_config_when_the_pod_names_it() -> None:
    template = own_pod({"containers": [MAIN]}, primary="")
    template.k8s_pod.primary_container_name = "main"
    assert main_of(built(template))["name"] == "main"


def test_a_deep_pod_does_not_break_the_builder() -> None:
    deep: Any = {}
    for _ in range(30):
        deep = {"x": deep}
    struct = struct_pb2.Struct()
    struct.update({"containers": [MAIN], "odd": deep})
    template = own_pod({"containers": [MAIN]})
    template.k8s_pod.pod_spec.CopyFrom(struct)
    assert built(template, settings=SETTINGS)["spec"]["odd"] == deep
