"""A real node: containerd, and a kubelet whose name is the loopback address.

Images come only from archives: a pull of any other fails at once, and no registry is asked.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.api import api, is_ready
from tests.cluster.archives import pause_image
from tests.cluster.binaries import runtime
from tests.cluster.commands import digest, run
from tests.cluster.control_groups import make_control_groups
from tests.cluster.network import make_bridge
from tests.cluster.places import BRIDGE, NODE, PAUSE_IMAGE, POD_NETWORK, STATE, pki
from tests.cluster.record import Record

HOME = STATE / "containerd"
# What a kubelet and the bridge plugin write; put back on `down`.
SYSCTLS = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
]


def start_node(record: Record, binary: Path) -> None:
    root = runtime()
    record.sysctls = {name: Path("/proc/sys", name).read_text().strip() for name in SYSCTLS}
    record.cgroup = f"test-cluster-{digest(STATE)}"
    record.save()
    make_control_groups(record.cgroup)
    if record.network == "bridge":
        make_bridge(record)
    _configure_containerd(root)
    env = dict(os.environ, PATH=f"{root}/usr/bin:{root}/usr/sbin:{os.environ.get('PATH', '')}")
    record.start("containerd", root / "usr/bin/containerd", "--config", HOME / "config.toml", env=env)
    record.wait_for("containerd", lambda: ctr("version"), "containerd")
    load(pause_image())
    _configure_kubelet(record)
    record.start(
        "kubelet",
        binary,
        "kubelet",
        f"--kubeconfig={STATE}/kubelet.kubeconfig",
        f"--config={STATE}/kubelet.json",
        f"--hostname-override={NODE}",
        f"--root-dir={STATE}/kubelet",
        f"--cert-dir={STATE}/pki",
        env=env,
    )
    record.wait_for("the node", lambda: is_ready(api(f"/api/v1/nodes/{NODE}")), "kubelet")


def ctr(*argv: object) -> str:
    """containerd's own command line, where the kubelet keeps its containers and images."""
    return run(runtime() / "usr/bin/ctr", "-a", HOME / "containerd.sock", "-n", "k8s.io", *argv)


def load(path: Path, aliases: Sequence[str] = ()) -> list[str]:
    """Imports an archive into the node; gives the names of its images."""
    lines = ctr("images", "import", path).splitlines()
    names = [line.split()[1] for line in lines if line.startswith("unpacking ")]
    for alias in aliases:
        ctr("images", "tag", "--force", names[0], alias)
    return [*names, *aliases]


def _configure_containerd(root: Path) -> None:
    (HOME / "cni").mkdir(parents=True)
    addresses = {"type": "host-local", "dataDir": str(HOME / "leases"), "ranges": [[{"subnet": POD_NETWORK}]]}
    bridge = {"type": "bridge", "bridge": BRIDGE, "isDefaultGateway": True, "hairpinMode": True, "ipam": addresses}
    network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
    (HOME / "cni" / "10-pods.conflist").write_text(json.dumps(network))
    # The address of nobody: an image that the node lacks is asked for there, and refused at once.
    (HOME / "registries" / "_default").mkdir(parents=True)
    (HOME / "registries" / "_default" / "hosts.toml").write_text(
        'server = "http://127.0.0.1:9"\n[host."http://127.0.0.1:9"]\n'  # the table may not be missing
    )
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    (HOME / "config.toml").write_text(f"""version = 2
root = "{HOME}/root"
state = "{HOME}/run"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{HOME}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{HOME}/opt"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true  # root here may lack CAP_SYS_RESOURCE, and runc then could not lower it
[{cri}.registry]
  config_path = "{HOME}/registries"
[{cri}.cni]
  bin_dir = "{root}/usr/lib/cni"
  conf_dir = "{HOME}/cni"
[{cri}.containerd]
  snapshotter = "overlayfs"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  BinaryName = "{root}/usr/sbin/runc"
  SystemdCgroup = false
""")


def _configure_kubelet(record: Record) -> None:
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": record.ports["kubelet"],
        "healthzPort": 0,
        "tlsCertFile": str(pki("kubelet-server.crt")),
        "tlsPrivateKeyFile": str(pki("kubelet-server.key")),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki("ca.crt"))},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{HOME}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{record.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "resolvConf": "/etc/resolv.conf",
        "maxPods": 250,
        "podLogsDir": str(STATE / "pod-logs"),
        "volumePluginDir": str(STATE / "volume-plugins"),
        # Images here cannot be pulled again, and a test machine's disk may well be nearly full.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "syncFrequency": "10s",
        "shutdownGracePeriod": "0s",
    }
    (STATE / "kubelet.json").write_text(json.dumps(configuration, indent=1))
