"""The bridge network: each pod has its own address, and reaches the host's loopback ports at the gateway's address."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.binaries import runtime
from tests.cluster.commands import run
from tests.cluster.places import BRIDGE, KUBERNETES_SERVICE, POD_GATEWAY
from tests.cluster.record import Record


def make_bridge(record: Record) -> None:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    record.bridge = True
    record.save()
    run("ip", "addr", "add", f"{POD_GATEWAY}/16", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet").write_text("1")
    for rule in _firewall_rules(record.ports):
        _iptables("-A", *rule)
        record.rules.append(rule)
        record.save()


def remove_rule(rule: Sequence[str]) -> None:
    _iptables("-D", *rule)


def _firewall_rules(ports: Mapping[str, int]) -> list[list[str]]:
    """From a pod, the gateway's ports are the host's loopback ports, and the Kubernetes service is the API server."""
    from_pods = ["PREROUTING", "-i", BRIDGE, "-p", "tcp", "-d"]
    to_api = ["-j", "DNAT", "--to-destination", f"127.0.0.1:{ports['api']}"]
    return [
        [*from_pods, POD_GATEWAY, "-j", "DNAT", "--to-destination", "127.0.0.1"],
        [*from_pods, KUBERNETES_SERVICE, "--dport", "443", *to_api],
    ]


def _iptables(*argv: object) -> None:
    """iptables, the machine's own or else the unpacked one."""
    if own := shutil.which("iptables"):
        run(own, "-w", "-t", "nat", *argv)
        return
    libraries = runtime() / f"usr/lib/{os.uname().machine}-linux-gnu"
    env = dict(os.environ, LD_LIBRARY_PATH=str(libraries), XTABLES_LIBDIR=str(libraries / "xtables"))
    run(runtime() / "usr/sbin/xtables-nft-multi", "iptables", "-w", "-t", "nat", *argv, env=env)
