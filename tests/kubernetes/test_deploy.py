"""The manager's image and the manifests of deploy/ on a real cluster."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flyte_manager
from tests.kubernetes.clusters import PROJECT, Cluster, Kubectl, KubectlError
from tests.kubernetes.test_cluster import output, pod

NOT_ROOT = """\
import os, pathlib
from flyte_manager import cli
assert os.getuid() == 10001, os.getuid()
assert pathlib.Path.cwd() == pathlib.Path.home() == pathlib.Path('/data'), pathlib.Path.cwd()
assert pathlib.Path(cli.__cached__).exists(), cli.__cached__
for place in ('/data/here', '/tmp/here', '/opt/venv/here'):
    try:
        open(place, 'w')
    except OSError as error:
        print(place, error.strerror)
"""
RESTRICTED: dict[str, Any] = {
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Kubectl]:
    """The manifests applied. The pod itself waits: here is no disk, and no image of that name."""
    admin = cluster.kubectl
    there = [one["metadata"]["name"] for one in admin.json("get", "namespaces")["items"]]
    assert "flyte" not in there, "this cluster has a namespace flyte, which these tests would change and delete"
    admin("apply", "--kustomize", PROJECT / "deploy")
    yield admin.within("flyte")
    admin("delete", "clusterrole,clusterrolebinding", "flyte-manager-crd")
    admin("delete", "namespace", "flyte")  # the CRD stays: other tests may use it


def test_the_image_starts_without_root_and_without_a_writable_root(kubectl: Kubectl, manager_image: str) -> None:
    kubectl.apply(pod("version", manager_image, "version", securityContext=RESTRICTED))
    assert output(kubectl, "version").startswith(f"flyte-manager {flyte_manager.__version__} (flyte 2.")


def test_the_image_is_compiled_and_writes_nowhere(kubectl: Kubectl, manager_image: str) -> None:
    command = ["python", "-c", NOT_ROOT]
    kubectl.apply(pod("writes", manager_image, command=command, securityContext=RESTRICTED))
    places = ("/data/here", "/tmp/here", "/opt/venv/here")
    assert output(kubectl, "writes").splitlines() == [f"{place} Read-only file system" for place in places]
    mounts = [{"name": "data", "mountPath": "/data"}]
    writable = pod("data", manager_image, command=command, securityContext=RESTRICTED, volumeMounts=mounts)
    writable["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    writable["spec"]["securityContext"] = {"fsGroup": 10001}
    kubectl.apply(writable)
    assert "/data/here" not in output(kubectl, "data")


def test_the_manager_may_do_what_it_needs_in_its_namespace_only(deployed: Kubectl, tmp_path: Path) -> None:
    manager = deployed.logged_in_as("flyte-manager", tmp_path / "kubeconfig")
    crd = manager.json("get", "crd", "taskactions.flyte.org")
    assert crd["spec"]["group"] == "flyte.org"
    for allowed in (
        ("get", "taskactions", "--watch-only", "--request-timeout=1s"),
        ("get", "pods"),
        ("create", "secret", "generic", "mine", "--from-literal=key=value"),
        ("delete", "secret", "mine"),
        ("run", "one", "--image=local/pause:1", "--restart=Never"),
        ("delete", "pod", "one", "--now"),
    ):
        manager(*allowed)
    for refused in (
        ("get", "crd"),
        ("get", "configmaps"),
        ("get", "nodes"),
        ("get", "deployments"),
        ("get", "secrets", "--namespace=kube-system"),
        ("get", "pods", "--namespace=default"),
        ("create", "rolebinding", "more", "--clusterrole=admin", "--serviceaccount=flyte:flyte-manager"),
    ):
        with pytest.raises(KubectlError, match=r"(?i)forbidden"):
            manager(*refused)


def test_the_manifests_name_the_image_of_this_version_and_survive_being_applied_again(
    deployed: Kubectl, cluster: Cluster
) -> None:
    (container,) = deployed.json("get", "deployment", "flyte-manager")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"flyte-manager:{flyte_manager.__version__}"
    again = cluster.kubectl("apply", "--kustomize", PROJECT / "deploy", "--dry-run=server", "--output=json")
    kinds = {one["kind"] for one in json.loads(again)["items"]}
    assert {"Namespace", "CustomResourceDefinition", "Deployment", "Service", "PersistentVolumeClaim"} <= kinds
