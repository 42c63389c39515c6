"""What the measurements of Kubernetes run on: a cluster of tests/cluster and an S3 server, both of their own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import manager
from bench.manager import REPOSITORY, Manager, free_ports
from tests.s3 import S3Server

SDK_IMAGE = "local/flyte:test"
NAMESPACE = "flyte"
COUNTED_SECONDS = 10.0


class ClusterError(Exception):
    """A command for the cluster failed; what it said follows."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What `bench.counted` tells of its manager."""

    requests: Mapping[str, int]
    """ "verb plural" -> how many """
    started: Sequence[float]
    """seconds from the event to the commit, in the order of the commits"""
    ended: Sequence[float]

    def since(self, before: "Counted") -> "Counted":
        requests = Counter(self.requests)
        requests.subtract(before.requests)
        return Counted(requests, self.started[len(before.started) :], self.ended[len(before.ended) :])


@dataclass(frozen=True, slots=True)
class World:
    """A cluster that is up, and a folder in which a manager's data outlive it."""

    state: Path
    s3: S3Server
    folder: Path

    def __call__(self, *arguments: str) -> str:
        """A command of tests/cluster. Raises ClusterError."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "CLUSTER_STATE": str(self.state)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ClusterError(done.stderr[-2000:])
        return done.stdout

    @contextmanager
    def manager(self) -> Iterator[Manager]:
        """A manager of this world; a later one goes on with its data."""
        port = free_ports(1)[0]
        flags = {
            "manager.kubernetes.kubeconfig": self.state / "kubeconfig",
            "manager.kubernetes.namespace": NAMESPACE,
            "manager.kubernetes.taskEndpoint": f"127.0.0.1:{port}",
            "manager.kubernetes.defaultCpu": "50m",
            "manager.kubernetes.defaultMemory": "64Mi",
            "storage.url": f"s3://{self.s3.bucket}/bench",
            "storage.s3.endpoint": self.s3.endpoint,
            "storage.s3.accessKeyId": self.s3.access_key,
            "storage.s3.secretAccessKey": self.s3.secret_key,
        }
        with manager.running(
            program=("-m", "bench.counted", str(self._counts)),
            flags=[f"--{name}={value}" for name, value in flags.items()],
            folder=self.folder,
            port=port,
        ) as running:
            yield running

    def counted(self, running: Manager) -> Counted:
        """What the manager has counted by now."""
        self._counts.unlink(missing_ok=True)
        os.kill(running.pid, signal.SIGUSR1)
        end = time.monotonic() + COUNTED_SECONDS
        while not self._counts.exists():
            if time.monotonic() > end:
                raise ClusterError("the manager does not tell what it counted")
            time.sleep(0.02)
        return Counted(**json.loads(self._counts.read_text()))

    def pids(self) -> Mapping[str, int]:
        """The cluster's own processes."""
        record = json.loads((self.state / "cluster.json").read_text())
        return {name: each["pid"] for name, each in record["processes"].items()}

    @property
    def _counts(self) -> Path:
        return self.folder / "counts.json"


@contextmanager
def cluster(*how: str) -> Iterator[World]:
    """A fresh cluster with our definition and namespace; `how`: options of `up`. All is gone at the end."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="flyte-bench-", ignore_cleanup_errors=True))
        )
        state, data = folder / "c", folder / "m"
        data.mkdir()
        world = World(state, stack.enter_context(S3Server()), data)
        stack.callback(world, "down")
        world("up", "--port", "0", *how)
        world("kubectl", "apply", "--filename", str(REPOSITORY / "executor" / "config" / "crd" / "bases"))
        world("kubectl", "create", "namespace", NAMESPACE)
        world("kubectl", "wait", "--for=condition=Established", "crd/taskactions.flyte.org", "--timeout=30s")
        yield world
