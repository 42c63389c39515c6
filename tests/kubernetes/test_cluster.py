"""The cluster does what the other tests rely on."""

from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.clusters import Kubectl, KubectlError
from tests.managers import eventually

S3_STORE = "import flyte.storage, obstore.store as o; print(o.S3Store('bucket', region='x', skip_signature=True))"


def pod(name: str, image: str, *args: str, **container: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image, "args": args, **container}]},
    }


def output(kubectl: Kubectl, name: str) -> str:
    """What a pod printed, once it has succeeded."""
    phase = ""

    def over() -> bool:
        nonlocal phase
        phase = kubectl("get", "pod", name, "--output=jsonpath={.status.phase}")
        return phase in ("Succeeded", "Failed")

    eventually(over, 60, what=f"the end of pod {name}")
    text = kubectl("logs", name)
    assert phase == "Succeeded", f"{phase}: {text}"
    return text


def test_a_pod_runs_the_sdk_which_can_reach_s3(kubectl: Kubectl, sdk_image: str) -> None:
    kubectl.apply(pod("sdk", sdk_image, "python", "-c", S3_STORE))
    assert output(kubectl, "sdk").startswith('S3Store(bucket="bucket"')


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={kubectl.namespace}:reader")
    reader = kubectl.logged_in_as("reader", tmp_path / "kubeconfig")
    assert isinstance(reader.json("get", "pods")["items"], list)
    for refused in (
        ("get", "secrets"),
        ("delete", "pod", "sdk"),
        ("run", "another", "--image=local/pause:1"),
        ("get", "pods", "--namespace=kube-system"),
    ):
        with pytest.raises(KubectlError, match=r"(?i)forbidden"):
            reader(*refused)
