"""Starts a cluster, tells how it is, and stops it so that the machine is as it was before."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.api import api, is_ready
from tests.cluster.archives import pause_image
from tests.cluster.binaries import hyperkube, kwok, runtime
from tests.cluster.commands import ToolError, say
from tests.cluster.control_groups import remove_control_groups
from tests.cluster.control_plane import give_pods_the_hosts_network, start_control_plane
from tests.cluster.fake_nodes import start_fake_nodes
from tests.cluster.network import remove_rule
from tests.cluster.node import ctr, load, start_node
from tests.cluster.places import BRIDGE, STATE
from tests.cluster.record import FILE, Record


@dataclass(frozen=True, slots=True)
class Wanted:
    node: bool
    network: str
    """host or bridge"""
    port: int
    images: Sequence[Path]
    fake_nodes: int
    pod_seconds: float


def up(wanted: Wanted) -> Path:
    """Starts a fresh cluster unless one is up; its kubeconfig."""
    if Record.load().alive("kube-apiserver"):
        say("already up")
        return STATE / "kubeconfig"
    if wanted.node and os.geteuid():
        raise ToolError("a node needs root; without it, use --no-node")
    binary = hyperkube(node=wanted.node)
    if wanted.node:
        runtime()
        pause_image()
    if wanted.fake_nodes:
        kwok()
    _clean(Record.load())
    record = Record(node=wanted.node, network=wanted.network)
    STATE.mkdir(parents=True, exist_ok=True)
    record.save()
    (STATE / "logs").mkdir()
    for name in ("kubectl", "hyperkube"):
        (STATE / name).symlink_to(binary)
    try:
        _start(record, binary, wanted)
    except BaseException:
        _halt(record)  # the logs stay
        raise
    return STATE / "kubeconfig"


def down(*, keep: bool) -> None:
    if not FILE.exists():
        say("not up")
        return
    began = time.monotonic()
    _halt(Record.load())
    if not keep:
        _clean(Record.load())
    say(f"down after {time.monotonic() - began:.1f} s")


def break_part(name: str) -> None:
    """Ends one of the cluster's processes without a warning."""
    Record.load().kill(name)


def mend_part(name: str) -> None:
    """Starts it again; the API server answers when this returns."""
    record = Record.load()
    record.again(name)
    if name in ("etcd", "kube-apiserver"):
        record.wait_for("the API server", lambda: api("/readyz") == "ok", name)


def status() -> bool:
    """Prints what runs, since when, and how big it is; whether the cluster is up."""
    record = Record.load()
    for name, process in record.processes.items():
        if not process.alive:
            print(f"{name:24} ended")
            continue
        text = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(int(line.split()[1]) >> 10 for line in text.splitlines() if line.startswith("VmRSS"))
        ticks = map(int, Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
        seconds = sum(ticks) / os.sysconf("SC_CLK_TCK")
        print(f"{name:24} pid {process.pid:<8} {resident:5} MiB {seconds:8.1f} s of CPU")
    if not record.alive("kube-apiserver"):
        print("not up")
        return False
    print(f"server      {record.server}\nkubeconfig  {STATE / 'kubeconfig'}\nkubectl     {STATE / 'kubectl'}")
    for node in api("/api/v1/nodes")["items"]:
        print(f"node        {node['metadata']['name']} {'Ready' if is_ready(node) else 'NotReady'}")
    return True


def _start(record: Record, binary: Path, wanted: Wanted) -> None:
    began = time.monotonic()

    def told(what: str) -> None:
        say(f"{what} ready after {time.monotonic() - began:.1f} s")

    start_control_plane(record, binary, wanted.port)
    told(f"control plane {record.server}")
    if wanted.node:
        if wanted.network == "host":
            give_pods_the_hosts_network(record)
        start_node(record, binary)
        told("node")
        for archive in wanted.images:
            say(f"on the node: {', '.join(load(archive))}")
    if wanted.fake_nodes:
        start_fake_nodes(record, wanted.fake_nodes, wanted.pod_seconds, only=not wanted.node)
        told(f"{wanted.fake_nodes} fake nodes")


def _halt(record: Record) -> None:
    """Stops everything that `up` started, and puts the machine back as it was."""
    record.stop("kubelet")
    record.stop("kwok")
    if record.alive("containerd"):
        with contextlib.suppress(ToolError):  # it is stopped next, and its mounts are undone, whatever it answers
            _remove_containers()
    for name in ("containerd", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
        record.stop(name)
    for point in _mounts_below(STATE):
        subprocess.run(["umount", "-l", point], check=False)
    for rule in record.rules:
        with contextlib.suppress(ToolError):
            remove_rule(rule)
    if record.bridge:
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False)
    if record.cgroup:
        remove_control_groups(record.cgroup)
    if record.node:
        _remove_log_links()
    for name, value in record.sysctls.items():
        path = Path("/proc/sys", name)
        if path.read_text().strip() != value:
            path.write_text(value)
    record.rules, record.bridge, record.sysctls, record.processes = [], False, {}, {}
    if STATE.exists():
        record.save()


def _remove_containers() -> None:
    for task in ctr("tasks", "ls", "-q").split():
        with contextlib.suppress(ToolError):  # it may have ended by itself
            ctr("tasks", "kill", "-a", "-s", "SIGKILL", task)
    deadline = time.monotonic() + 15
    while (tasks := ctr("tasks", "ls", "-q").split()) and time.monotonic() < deadline:
        for task in tasks:
            with contextlib.suppress(ToolError):
                ctr("tasks", "rm", "-f", task)  # which also ends its shim
        time.sleep(0.1)
    for container in ctr("containers", "ls", "-q").split():
        with contextlib.suppress(ToolError):
            ctr("containers", "rm", container)


def _remove_log_links() -> None:
    """The kubelet's links to logs of pods, whose folder is the same for all kubelets of a machine."""
    links = Path("/var/log/containers")
    for link in links.iterdir() if links.is_dir() else ():
        if link.is_symlink() and os.readlink(link).startswith(f"{STATE}/"):
            link.unlink()


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True)


def _clean(record: Record) -> None:
    """Removes the state folder: only one that this tool made, and with nothing mounted in it."""
    if not STATE.exists() or not any(STATE.iterdir()):
        return
    if not FILE.exists():
        raise ToolError(f"{STATE} was not made by this tool; remove it, or set CLUSTER_STATE to another folder")
    _halt(record)
    if left := _mounts_below(STATE):
        raise ToolError(f"still mounted: {left[0]}")
    shutil.rmtree(STATE)
