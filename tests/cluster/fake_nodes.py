"""KWOK: nodes that do not exist, on which pods run and then succeed after a while, without any process.

A pod's annotations change that: `test-cluster/seconds: "30s"`, `test-cluster/exit-code: "3"`.
"""

import json
from typing import Any

from tests.cluster.api import api, is_ready
from tests.cluster.binaries import kwok
from tests.cluster.places import STATE
from tests.cluster.record import Record

SECONDS, EXIT_CODE = "test-cluster/seconds", "test-cluster/exit-code"
CONTAINERS = """
containerStatuses:
{{ range .spec.containers }}
- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, restartCount: 0, ready: %s, started: %s,
   state: {%s}}
{{ end }}
"""
ENDED = (
    "terminated: {exitCode: %s, reason: %s, startedAt: {{ $.status.startTime | Quote }}, finishedAt: {{ Now | Quote }}}"
)


def start_fake_nodes(record: Record, count: int, seconds: float, *, only: bool) -> None:
    """`only`: they are the only nodes and take every pod; else a pod must tolerate their taint."""
    (STATE / "kwok.yaml").write_text("\n---\n".join(json.dumps(stage, indent=1) for stage in _stages(seconds)) + "\n")
    record.start(
        "kwok",
        kwok(),
        f"--kubeconfig={STATE}/kubeconfig",
        f"--config={STATE}/kwok.yaml",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-ip=127.0.0.1",
        "--node-lease-duration-seconds=40",
    )
    for number in range(count):
        api("/api/v1/nodes", _node(f"fake-{number}", only=only))

    def ready() -> bool:
        return sum(map(is_ready, api("/api/v1/nodes?labelSelector=type%3Dfake")["items"])) == count

    record.wait_for("the fake nodes", ready, "kwok")


def _node(name: str, *, only: bool) -> dict[str, Any]:
    resources = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "8"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"type": "fake", "kubernetes.io/hostname": name},
        },
        "spec": {} if only else {"taints": [{"key": "fake", "value": "true", "effect": "NoSchedule"}]},
        "status": {"allocatable": resources, "capacity": resources},
    }


def _stages(seconds: float) -> list[dict[str, Any]]:
    """What becomes of a pod: it runs, then succeeds or fails; a deleted one goes."""
    absent = [{"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}]
    going = [
        *absent,
        {"key": ".status.phase", "operator": "In", "values": ["Running"]},
        {"key": ".spec.restartPolicy", "operator": "NotIn", "values": ["Always"]},
    ]
    code = f'.metadata.annotations["{EXIT_CODE}"]'
    code_value = f'{{{{ index $.metadata.annotations "{EXIT_CODE}" }}}}'
    delay = {
        "durationMilliseconds": round(seconds * 1000),
        "durationFrom": {"expressionFrom": f'.metadata.annotations["{SECONDS}"]'},
    }
    conditions = "".join(
        f'\n- {{type: {kind}, status: "True", lastTransitionTime: {{{{ Now | Quote }}}}}}'
        for kind in ("Initialized", "ContainersReady", "Ready")
    )
    running = (
        "phase: Running\nstartTime: {{ Now | Quote }}\nhostIP: 127.0.0.1\npodIP: 127.0.0.1\n"
        f"conditions:{conditions}" + CONTAINERS % ("true", "true", "running: {startedAt: {{ Now | Quote }}}")
    )
    succeeded = "phase: Succeeded" + CONTAINERS % ("false", "false", ENDED % ("0", "Completed"))
    failed = "phase: Failed" + CONTAINERS % ("false", "false", ENDED % (code_value, "Error"))
    without_address = [*absent, {"key": ".status.podIP", "operator": "DoesNotExist"}]
    without_code, with_code = ([*going, {"key": code, "operator": how}] for how in ("DoesNotExist", "Exists"))
    deleted = [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}]
    return [
        _stage("pod-run", without_address, {"statusTemplate": running}, {}),
        _stage("pod-succeed", without_code, {"statusTemplate": succeeded}, delay),
        _stage("pod-fail", with_code, {"statusTemplate": failed}, delay),
        _stage("pod-delete", deleted, {"finalizers": {"empty": True}, "delete": True}, {}),
    ]


def _stage(name: str, expressions: list[Any], following: dict[str, Any], delay: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": expressions},
            "delay": delay,
            "next": following,
        },
    }
