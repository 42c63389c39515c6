"""Where the tool keeps things, and the names and addresses that its parts agree on.

CLUSTER_CACHE   binaries and images, kept            (~/.cache/test-cluster)
CLUSTER_STATE   the running cluster: its kubeconfig,
                logs, keys and data                  ($CLUSTER_CACHE/state)
"""

import os
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
CACHE = Path(os.environ.get("CLUSTER_CACHE") or Path.home() / ".cache" / "test-cluster").absolute()
STATE = Path(os.environ.get("CLUSTER_STATE") or CACHE / "state").absolute()

NODE = "127.0.0.1"  # a loopback address passes for the node's only as its name
SERVICE_NETWORK, KUBERNETES_SERVICE = "10.96.0.0/16", "10.96.0.1"
POD_NETWORK, POD_GATEWAY, BRIDGE = "10.97.0.0/16", "10.97.0.1", "test-cluster0"
PAUSE_IMAGE = "local/pause:1"


def kubernetes_version() -> str:
    """What hyperkube is made of: v1.34.4, say."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (HERE / "hyperkube" / "go.mod").read_text())
    assert found, "go.mod requires k8s.io/kubernetes"
    return found[1]


def pki(name: str) -> Path:
    """A key or certificate of the running cluster."""
    return STATE / "pki" / name
