"""A manager beside the cluster, whose tasks are pods, and a user of it.

Pods of the test cluster use the host's network: 127.0.0.1 is the same place for them, for the manager and for the S3
server. Each manager has a namespace and a prefix of the bucket of its own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from flyte_manager.kubernetes.crd import NAME
from tests.kubernetes.clusters import PROJECT, Kubectl
from tests.managers import Manager, steady_ports
from tests.s3 import S3Server
from tests.sdk.user import User, new_user

PROGRAMS = Path(__file__).with_name("programs")
CRD_FOLDER = PROJECT / "executor" / "config" / "crd" / "bases"


def install_crd(kubectl: Kubectl) -> None:
    """As a platform engineer does it."""
    kubectl("apply", f"--filename={CRD_FOLDER}")
    kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=30s")


def pods_manager_of(folder: Path, kubectl: Kubectl, s3: S3Server, settings: Mapping[str, str]) -> Manager:
    """Not started yet; in the namespace of `kubectl`, and with its rights."""
    ports = steady_ports()
    flags = {
        "manager.kubernetes.kubeconfig": str(kubectl.kubeconfig),
        "manager.kubernetes.namespace": kubectl.namespace,
        "manager.kubernetes.taskEndpoint": f"127.0.0.1:{ports['api']}",
        "manager.kubernetes.defaultCpu": "20m",  # many at once on a small node
        "manager.kubernetes.defaultMemory": "64Mi",
        "storage.url": f"s3://{s3.bucket}/{kubectl.namespace}",
        "storage.s3.endpoint": s3.endpoint,
        "storage.s3.accessKeyId": s3.access_key,
        "storage.s3.secretAccessKey": s3.secret_key,
    }
    return Manager(folder, {**flags, **settings}, ports)


@contextmanager
def pods_user_of(manager: Manager, image: str) -> Iterator[User]:
    """Whose environments that name no image get this one, as the SDK's configuration says; in programs, images.SDK."""
    with new_user(manager, PROGRAMS) as user:
        file = user.folder / ".flyte" / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["image"] = {"image_refs": {"default": image}}
        file.write_text(yaml.safe_dump(config))
        (user.folder / "images.py").write_text(f"SDK = {image!r}\n")
        yield user
