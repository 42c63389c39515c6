"""The manager inside the cluster, by an overlay of deploy/ as docs/kubernetes.md tells to make one.

The test cluster has neither DNS nor Services that work, and its pods are on the host's network: so the manager's ports
are free ones of this machine, and tasks find it at 127.0.0.1. The database lies in a folder of this machine.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.clusters import PROJECT, Kubectl
from tests.managers import Manager, steady_ports
from tests.s3 import S3Server

DEPLOY = PROJECT / "deploy"
NAME = "flyte-manager"
USER = 10001


@dataclass(slots=True)
class Deployed(Manager):
    """A manager that the cluster runs. `folder` has the overlay and, for the user, a home."""

    kubectl: Kubectl = field(kw_only=True)

    @property
    def log(self) -> str:
        """Of its present pod, while it has one."""
        return self.kubectl("logs", f"deployment/{NAME}", "--tail=-1")

    @property
    def last_log(self) -> str:
        return self.log

    def pod(self) -> Mapping[str, Any]:
        """Its pod that is not on its way out."""
        found = [each for each in self.pods() if "deletionTimestamp" not in each["metadata"]]
        assert len(found) == 1, [each["metadata"]["name"] for each in found]
        return found[0]

    def pods(self) -> list[Mapping[str, Any]]:
        labels = "app.kubernetes.io/component=manager"
        return list(self.kubectl.json("get", "pods", f"--selector={labels}")["items"])

    def until_available(self) -> None:
        self.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=90s")

    def kill_process(self) -> None:
        """As the kernel does when there is no memory left: from outside, since a container's first process is immune
        to what is inside."""
        pod = self.pod()["metadata"]["uid"]
        (pid,) = (pid for pid in _processes_of(pod) if b"flyte-manager" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[int]:
        """A port of this machine that leads to the Service, as long as the same pod is behind it."""
        command = self.kubectl.command("port-forward", f"service/{NAME}", ":8090")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
                assert found, line
                yield int(found[1])
            finally:
                process.terminate()


def write_overlay(folder: Path, kubectl: Kubectl, s3: S3Server, *, image: str) -> dict[str, int]:
    """The overlay's files; the ports that it gives to the manager."""
    ports = steady_ports()
    name, _, tag = image.rpartition(":")
    config = yaml.safe_load((DEPLOY / "config.yaml").read_text())
    config["manager"] |= {
        "runsService": {"host": "127.0.0.1", "port": ports["api"]},
        "queueService": {"host": "127.0.0.1", "port": ports["queue"]},
        "executor": {"healthProbePort": ports["health"]},
        "kubernetes": {
            "taskEndpoint": f"127.0.0.1:{ports['api']}",
            "defaultCpu": "20m",
            "defaultMemory": "64Mi",
        },
    }
    config["storage"] |= {
        "url": f"s3://{s3.bucket}/{kubectl.namespace}",
        "s3": {"region": "us-east-1", "endpoint": s3.endpoint},
    }
    server = kubectl("config", "view", "--output=jsonpath={.clusters[0].cluster.server}")
    data = folder / "volume"
    data.mkdir(mode=0o700)
    os.chown(data, USER, USER)  # no volume of this kind is given to fsGroup
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": kubectl.namespace,
        "resources": [os.path.relpath(DEPLOY, folder), "volume.yaml"],
        "images": [{"name": NAME, "newName": name, "newTag": tag}],
        "configMapGenerator": [{"name": NAME, "behavior": "replace", "files": ["config.yaml"]}],
        "secretGenerator": [
            {"name": "flyte-storage", "envs": ["storage.env"], "options": {"disableNameSuffixHash": True}}
        ],
        "patches": [{"path": "claim.yaml"}, {"path": "deployment.yaml"}],
    }
    files = {
        "kustomization.yaml": kustomization,
        "config.yaml": config,
        "claim.yaml": _claim(kubectl.namespace),
        "volume.yaml": _volume(kubectl.namespace, data),
        "deployment.yaml": _deployment(ports, server),
    }
    for file, content in files.items():
        (folder / file).write_text(yaml.safe_dump(content))
    keys = f"AWS_ACCESS_KEY_ID={s3.access_key}\nAWS_SECRET_ACCESS_KEY={s3.secret_key}\n"
    (folder / "storage.env").write_text(keys)
    return ports


def _claim(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME},
        "spec": {"storageClassName": "", "volumeName": f"{NAME}-{namespace}"},
    }


def _volume(namespace: str, data: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{NAME}-{namespace}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(data), "type": "Directory"},
        },
    }


def _deployment(ports: Mapping[str, int], server: str) -> dict[str, Any]:
    host, port = server.removeprefix("https://").split(":")
    container = {
        "name": "manager",
        "ports": [{"$patch": "replace"}, *({"name": name, "containerPort": port} for name, port in ports.items())],
        # the Service `kubernetes` does not work here
        "env": [{"name": "KUBERNETES_SERVICE_HOST", "value": host}, {"name": "KUBERNETES_SERVICE_PORT", "value": port}],
        "resources": {"requests": {"cpu": "50m"}},
    }
    spec = {"hostNetwork": True, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {"template": {"spec": spec}},
    }


def another_manager(
    deployment: Mapping[str, Any], name: str, *flags: str, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A pod like the Deployment's, with a database and ports of its own, which is tried once."""
    spec = dict(deployment["spec"]["template"]["spec"])
    container = dict(spec["containers"][0])
    ports = steady_ports()
    container["ports"] = [{"name": part, "containerPort": port} for part, port in ports.items()]
    container["args"] = [
        *container["args"],
        *(f"--{key}={value}" for key, value in zip(_PORT_KEYS, ports.values(), strict=True)),
        *flags,
    ]
    given = [{"name": variable, "value": value} for variable, value in (env or {}).items()]
    kept = [each for each in container["env"] if each["name"] not in (env or {})]
    spec["containers"] = [{**container, "env": [*kept, *given]}]
    spec["volumes"] = [
        {"name": "data", "emptyDir": {}} if volume["name"] == "data" else volume for volume in spec["volumes"]
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": "another"}},
        "spec": {**spec, "restartPolicy": "Never"},
    }


_PORT_KEYS = ("manager.runsService.port", "manager.queueService.port", "manager.executor.healthProbePort")


class Gate:
    """Lets tasks go on that wait for `port` of this machine to be open."""

    def __init__(self) -> None:
        self.port = steady_ports()["api"]

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        with socket.create_server(("127.0.0.1", self.port)):
            yield


def _processes_of(pod: str) -> Iterator[int]:
    """By the name of their control group, which has the pod's uid with - or _."""
    names = (pod.encode(), pod.replace("-", "_").encode())
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and any(name in (entry / "cgroup").read_bytes() for name in names):
                yield int(entry.name)
