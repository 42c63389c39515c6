"""etcd, the API server, the controller manager and the scheduler, on loopback, with certificates of their own.

Node and RBAC authorisation are enforced. It is ready when pods can be created at once: the default service account and
the root certificate are there.
"""

import socket
from functools import partial
from pathlib import Path

from tests.cluster.api import api, write_kubeconfig
from tests.cluster.commands import ToolError, run
from tests.cluster.places import (
    KUBERNETES_SERVICE,
    NODE,
    PAUSE_IMAGE,
    POD_GATEWAY,
    SERVICE_NETWORK,
    STATE,
    pki,
)
from tests.cluster.record import Record

POLICIES = "/apis/admissionregistration.k8s.io/v1beta1"


def start_control_plane(record: Record, binary: Path, port: int) -> None:
    names = ("etcd", "peer", "kubelet")
    record.ports = {"api": _free_port(port), **{name: _free_port() for name in names}}
    record.server = f"https://127.0.0.1:{record.ports['api']}"
    _make_certificates(binary, record.server)
    _start_etcd(record, binary)
    _start_api_server(record, binary)
    _start_controllers(record, binary)
    namespace = "/api/v1/namespaces/default"
    for what, path in (
        ("its service account", f"{namespace}/serviceaccounts/default"),
        ("its root certificate", f"{namespace}/configmaps/kube-root-ca.crt"),
    ):
        record.wait_for(what, partial(api, path), "kube-controller-manager")


def give_pods_the_hosts_network(record: Record) -> None:
    """By an admission policy: 127.0.0.1 means the same in a pod and out of it."""
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    mutation = {"expression": "Object{spec: Object.spec{hostNetwork: true}}"}
    api(
        f"{POLICIES}/mutatingadmissionpolicies",
        {
            "apiVersion": "admissionregistration.k8s.io/v1beta1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": "host-network"},
            "spec": {
                "matchConstraints": {"resourceRules": [pods]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": mutation}],
            },
        },
    )
    api(
        f"{POLICIES}/mutatingadmissionpolicybindings",
        {
            "apiVersion": "admissionregistration.k8s.io/v1beta1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": "host-network"},
            "spec": {"policyName": "host-network"},
        },
    )
    probe = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "main", "image": PAUSE_IMAGE}]},
    }

    def in_force() -> bool:  # which takes a moment
        pod = api("/api/v1/namespaces/default/pods?dryRun=All", probe)
        return pod["spec"].get("hostNetwork") is True

    record.wait_for("the host-network policy", in_force, "kube-apiserver")


def _make_certificates(binary: Path, server: str) -> None:
    hosts = f"127.0.0.1,{KUBERNETES_SERVICE},{POD_GATEWAY},localhost,kubernetes,kubernetes.default"
    hosts += ",kubernetes.default.svc,kubernetes.default.svc.cluster.local"
    (STATE / "pki").mkdir(mode=0o700)
    run(
        binary,
        "certs",
        STATE / "pki",
        f"apiserver=kube-apiserver@{hosts}",
        f"kubelet-server={NODE}@{NODE},localhost",
        "admin=admin/system:masters",
        "kubelet-client=kube-apiserver-kubelet-client/system:masters",
        "controller-manager=system:kube-controller-manager",
        "scheduler=system:kube-scheduler",
        f"kubelet=system:node:{NODE}/system:nodes",
    )
    write_kubeconfig(STATE / "kubeconfig", "admin", server)
    for name in ("controller-manager", "scheduler", "kubelet"):
        write_kubeconfig(STATE / f"{name}.kubeconfig", name, server)


def _start_etcd(record: Record, binary: Path) -> None:
    clients, peers = (f"http://127.0.0.1:{record.ports[name]}" for name in ("etcd", "peer"))
    record.start(
        "etcd",
        binary,
        "etcd",
        "--name=default",
        f"--data-dir={STATE}/etcd",
        "--log-level=warn",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",  # a test's data need not outlive the machine
    )


def _start_api_server(record: Record, binary: Path) -> None:
    record.start(
        "kube-apiserver",
        binary,
        "kube-apiserver",
        "--bind-address=127.0.0.1",
        f"--secure-port={record.ports['api']}",
        f"--advertise-address={POD_GATEWAY}",
        "--endpoint-reconciler-type=none",
        f"--etcd-servers=http://127.0.0.1:{record.ports['etcd']}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--client-ca-file={pki('ca.crt')}",
        f"--tls-cert-file={pki('apiserver.crt')}",
        f"--tls-private-key-file={pki('apiserver.key')}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki('sa.pub')}",
        f"--service-account-signing-key-file={pki('sa.key')}",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={pki('kubelet-client.crt')}",
        f"--kubelet-client-key={pki('kubelet-client.key')}",
        f"--kubelet-certificate-authority={pki('ca.crt')}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        # Mutating policies, by which pods are given the host's network, are beta and off in this release.
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        "--profiling=false",
        "--max-requests-inflight=1000",
        "--max-mutating-requests-inflight=500",
    )
    record.wait_for("the API server", lambda: api("/readyz") == "ok", "kube-apiserver")


def _start_controllers(record: Record, binary: Path) -> None:
    record.start(
        "kube-controller-manager",
        binary,
        "kube-controller-manager",
        "--secure-port=0",
        f"--kubeconfig={STATE}/controller-manager.kubeconfig",
        "--leader-elect=false",
        "--profiling=false",
        f"--service-account-private-key-file={pki('sa.key')}",
        f"--root-ca-file={pki('ca.crt')}",
        "--use-service-account-credentials=true",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )
    record.start(
        "kube-scheduler",
        binary,
        "kube-scheduler",
        "--secure-port=0",
        "--leader-elect=false",
        f"--kubeconfig={STATE}/scheduler.kubeconfig",
        "--profiling=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )


def _free_port(wanted: int = 0) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as problem:
            raise ToolError(f"port {wanted} is taken ({problem}); choose another, or 0 for any") from None
        return int(probe.getsockname()[1])
