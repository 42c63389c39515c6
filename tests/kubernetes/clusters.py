"""The cluster of the tests: that of KUBECONFIG, or one that tests/cluster starts for them.

KUBECONFIG unset              a fresh cluster in a folder of its own, on a free port, gone at the end
KUBECONFIG of tests/cluster   one that `python -m tests.cluster up` left running: quick for many runs of a few tests
any other                     a developer's; images must be where its nodes can pull them, named by
                              FLYTE_TEST_SDK_IMAGE and FLYTE_TEST_MANAGER_IMAGE
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
CONSTRAINTS = PROJECT / "constraints.txt"
SDK_IMAGE = "local/flyte:test"
SDK_PACKAGES = ("flyte", "kubernetes", "pandas", "pyarrow")
MANAGER_IMAGE = "local/flyte-manager:test"
_OWN = "flyte-manager-test-cluster-"


class KubectlError(Exception):
    """kubectl refused; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """`kubectl("get", "pods")` prints text, `kubectl.json("get", "pods")` reads JSON; both in the namespace, if any."""

    binary: str
    kubeconfig: Path
    namespace: str = ""

    def __call__(self, *arguments: object, input: str | None = None, seconds: float = 120) -> str:
        done = subprocess.run(
            self.command(*arguments),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}\n{done.stdout}".strip())
        return done.stdout

    def command(self, *arguments: object) -> list[str]:
        """For a process of one's own, as `get -w` needs."""
        scope = [f"--namespace={self.namespace}"] if self.namespace else []
        return [self.binary, f"--kubeconfig={self.kubeconfig}", *scope, *map(str, arguments)]

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--output=json"))

    def apply(self, *objects: object) -> None:
        """Creates or changes objects that are given as dicts."""
        self("apply", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def within(self, namespace: str) -> "Kubectl":
        return replace(self, namespace=namespace)

    def logged_in_as(self, service_account: str, file: Path) -> "Kubectl":
        """With that service account's token alone, in a kubeconfig at `file`."""
        config = self.json("config", "view", "--raw")
        token = self("create", "token", service_account).strip()
        context = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
        cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == context["cluster"])
        place = {"cluster": "tests", "user": service_account, "namespace": self.namespace}
        file.touch(mode=0o600)
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "clusters": [{"name": "tests", "cluster": cluster}],
                    "users": [{"name": service_account, "user": {"token": token}}],
                    "contexts": [{"name": "tests", "context": place}],
                }
            )
        )
        return replace(self, kubeconfig=file)


@dataclass(frozen=True, slots=True)
class Cluster:
    kubectl: Kubectl
    state: Path | None
    """of a cluster of tests/cluster"""

    @property
    def kubeconfig(self) -> Path:
        return self.kubectl.kubeconfig

    def sdk_image(self) -> str:
        """An image for tasks: the SDK of constraints.txt, with what reaches S3 (obstore), and what the tests import."""
        if self.state is None:
            return _given("FLYTE_TEST_SDK_IMAGE")
        _tool(self.state, "image", "--name", SDK_IMAGE, "--constraints", str(CONSTRAINTS), *SDK_PACKAGES)
        return SDK_IMAGE

    @contextlib.contextmanager
    def without(self, part: str) -> Iterator[None]:
        """While one of its processes (kube-apiserver, kubelet) is not there: it ends as by a crash."""
        if self.state is None:
            pytest.skip("only a cluster of tests/cluster can be broken")
        _tool(self.state, "kill", part)
        try:
            yield
        finally:
            _tool(self.state, "again", part)

    def manager_image(self) -> str:
        """The manager of this source tree, made by deploy/Dockerfile."""
        if self.state is None:
            return _given("FLYTE_TEST_MANAGER_IMAGE")
        _tool(self.state, "image-manager", "--name", MANAGER_IMAGE)
        return MANAGER_IMAGE


@contextlib.contextmanager
def open_cluster() -> Iterator[Cluster]:
    if given := os.environ.get("KUBECONFIG"):
        kubeconfig = Path(given)
        ours = (kubeconfig.parent / "cluster.json").exists()
        binary = str(kubeconfig.parent / "kubectl") if ours else "kubectl"
        yield Cluster(Kubectl(binary, kubeconfig), kubeconfig.parent if ours else None)
        return
    _stop_abandoned()
    # A short path, since it holds Unix sockets; with the pid of who must stop it.
    state = Path(tempfile.gettempdir(), f"{_OWN}{os.getpid()}")
    try:
        kubeconfig = Path(_tool(state, "up", "--port", "0").strip())
        yield Cluster(Kubectl(str(state / "kubectl"), kubeconfig), state)
    finally:
        _tool(state, "down")


def _stop_abandoned() -> None:
    """Stops clusters whose test run was killed before it could."""
    for state in Path(tempfile.gettempdir()).glob(f"{_OWN}*"):
        if not _runs(state.name.removeprefix(_OWN)):
            _tool(state, "down")


def _runs(pid: str) -> bool:
    try:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return fields[0] != "Z"


def _tool(state: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.cluster", *arguments]
    env = {**os.environ, "CLUSTER_STATE": str(state)}
    done = subprocess.run(
        command, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
    return done.stdout


def _given(variable: str) -> str:
    image = os.environ.get(variable, "")
    assert image, f"the cluster of KUBECONFIG needs an image: name one that its nodes can pull in {variable}"
    return image
