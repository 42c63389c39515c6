"""deploy/ says the same thing in all its files, and what it says about the manager is true of the manager."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

import flyte_manager
from flyte_manager.config import KEYS, load
from flyte_manager.kubernetes import own_pod
from tests.cluster.dockerfile import Instruction, read_dockerfile

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = read_dockerfile(DEPLOY / "Dockerfile")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def objects(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / file).read_text()))


def last_stage() -> dict[str, Instruction]:
    """The instructions by which the image itself is made."""
    start = max(number for number, one in enumerate(DOCKERFILE) if one.word == "FROM")
    return {one.word: one for one in DOCKERFILE[start:]}


(DEPLOYMENT,) = objects("deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
SETTINGS = load({}, {}, DEPLOY / "config.yaml")
IN_POD = load({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, DEPLOY / "config.yaml")


def test_the_image_is_made_of_a_python_that_the_manager_supports() -> None:
    bases = {one.rest.partition(" ")[0] for one in DOCKERFILE if one.word == "FROM" and ":" in one.rest}
    (base,) = bases
    found = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)
    assert found
    assert f"Programming Language :: Python :: {found[1]}" in PROJECT["classifiers"]


def test_all_that_the_image_is_made_of_reaches_the_builder() -> None:
    copied = [one.rest.split()[:-1] for one in DOCKERFILE if one.word == "COPY" and "--from" not in one.rest]
    sources = {name.rstrip("/") for name in chain.from_iterable(copied)}
    ignored, *rest = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored == "*"
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == sources
    assert all((ROOT / name).exists() for name in sources)
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "flyte_manager"} <= sources


def test_the_image_and_the_deployment_agree_about_user_ports_and_command() -> None:
    image = last_stage()
    security = POD["securityContext"]
    assert image["USER"].rest == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert security["fsGroup"] == security["runAsGroup"]
    assert [int(port) for port in image["EXPOSE"].rest.split()] == [p["containerPort"] for p in CONTAINER["ports"]]
    assert image["ENTRYPOINT"].rest == str([*PROJECT["scripts"]]).replace("'", '"')
    assert "command" not in CONTAINER


def test_the_configuration_fits_the_deployment_and_the_service() -> None:
    ports = {one["name"]: one["containerPort"] for one in CONTAINER["ports"]}
    manager = SETTINGS.manager
    assert manager.mode == "kubernetes"
    assert ports == {
        "api": manager.runs_service.port,
        "queue": manager.queue_service.port,
        "health": manager.executor.health_probe_port,
    }
    assert {manager.runs_service.host, manager.queue_service.host} == {"0.0.0.0"}
    mounts = {one["name"]: one["mountPath"] for one in CONTAINER["volumeMounts"]}
    assert CONTAINER["args"] == [f"--config={mounts['config']}/config.yaml"]
    assert str(SETTINGS.data_dir) == str(SETTINGS.database.sqlite.file.parent) == mounts["data"]


def test_tasks_find_the_manager_at_its_service() -> None:
    (service,) = objects("service.yaml")
    (namespace,) = objects("namespace.yaml")
    host, _, port = IN_POD.manager.kubernetes.task_endpoint.partition(":")
    assert host == f"{service['metadata']['name']}.{namespace['metadata']['name']}.svc"
    assert int(port) == next(one["port"] for one in service["spec"]["ports"] if one["name"] == "api")
    assert service["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= DEPLOYMENT["spec"]["template"]["metadata"]["labels"].items()


def test_the_manager_is_told_where_and_who_it_is() -> None:
    told = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in CONTAINER["env"]}
    (namespace,) = (key.variable for key in KEYS if key.name == "manager.kubernetes.namespace")
    assert told == {namespace: "metadata.namespace", own_pod.POD_NAME: "metadata.name"}
    assert CONTAINER["name"] == own_pod.CONTAINER


def test_the_manager_and_the_tasks_get_the_keys_of_one_secret() -> None:
    (source,) = CONTAINER["envFrom"]
    assert source == {"secretRef": {"name": SETTINGS.storage.pod_secret, "optional": True}}


def test_the_image_is_that_of_this_version() -> None:
    (kustomization,) = objects("kustomization.yaml")
    assert [one["newTag"] for one in kustomization["images"]] == [flyte_manager.__version__]
    assert all((DEPLOY / one).resolve().exists() for one in kustomization["resources"])


def test_the_pod_is_restricted_and_there_is_one_at_a_time() -> None:
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
