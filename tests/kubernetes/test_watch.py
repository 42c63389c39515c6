"""What a platform engineer sees with kubectl beside the runs of a user, and what the users' pods are like."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import run_service_pb2
from flyteidl2.workflow.run_service_connect import RunServiceClientSync

from tests.kubernetes.clusters import Kubectl
from tests.managers import Manager, eventually
from tests.sdk.user import User

SPOT = {"key": "example.org/spot", "operator": "Exists"}
ROAD = ["Queued", "Initializing", "Running", "Succeeded"]
CANARIES = ("canary-in-a-variable", "canary-in-a-file")


@pytest.fixture(scope="module")
def pods_settings() -> Mapping[str, str]:
    return {"manager.kubernetes.interruptibleDefaults": json.dumps({"spec": {"tolerations": [SPOT]}})}


@contextmanager
def watching(kubectl: Kubectl, rows: list[list[str]]) -> Iterator[None]:
    """`kubectl get taskactions -w` beside what is done; its rows are there at the end."""
    command = kubectl.command("get", "taskactions", "--watch", "--no-headers")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        process.terminate()
        rows += [line.split() for line in process.communicate(timeout=30)[0].splitlines()]


def pods_of(kubectl: Kubectl, run: str) -> list[dict[str, Any]]:
    return list(kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"])


def without_repeats(phases: list[str]) -> list[str]:
    return [phase for number, phase in enumerate(phases) if phases[number - 1 : number] != [phase]]


def test_get_watch_shows_the_phases_of_each_action(pods_user: User, kubectl: Kubectl) -> None:
    rows: list[list[str]] = []
    with watching(kubectl, rows):
        run = pods_user.run("basics.talk", lines=2, seconds=1.0)["name"]
        shown = kubectl("get", "taskactions")
        eventually(lambda: kubectl.json("get", "taskaction", f"{run}-a0")["status"]["phase"] == "Succeeded")
    assert shown.split()[:4] == ["NAME", "PHASE", "RUN", "ACTION"]
    seen = without_repeats([row[1] for row in rows if row[0] == f"{run}-a0" and row[1] in ROAD])
    assert seen == ROAD


def test_describe_shows_phases_attempts_failure_and_events(pods_user: User, kubectl: Kubectl) -> None:
    run = pods_user.run("failures.flaky", fails=9)["name"]

    def told() -> str:
        return kubectl("describe", "taskaction", f"{run}-a0")

    eventually(lambda: "RunFailed" in told() or len(re.findall("AttemptFailed", told())) == 3, what="all events")
    text = told()
    status = text[text.index("\nStatus:") : text.index("\nEvents:")]
    history = re.findall(r"Phase: +(\w+)", status[status.index("Phase History") :])
    assert history[:12] == 3 * ["Queued", "Initializing", "Running", "Failed"]
    assert re.search(r"Attempts: +3\b", status)
    assert re.search(r"Pod Name: +" + f"{run}-a0-2", status)
    assert "attempt 2 failed" in status[status.index("Error State") :]
    events = text[text.index("\nEvents:") :]
    for words in (*(f"runs in pod {run}-a0-{number}" for number in range(3)), "attempt 0 failed"):
        assert words in events


def test_watch_cluster_events_tells_what_happened_to_a_pod(pods_user: User, pods_manager: Manager) -> None:
    run = pods_user.run("basics.noop")["name"]
    of = identifier_pb2.RunIdentifier(project="flytesnacks", domain="development", name=run)
    request = run_service_pb2.WatchClusterEventsRequest(
        id=identifier_pb2.ActionIdentifier(run=of, name="a0"), attempt=1
    )
    with RunServiceClientSync(pods_manager.url) as client:
        events = [
            each for answer in client.watch_cluster_events(request, timeout_ms=30_000) for each in answer.cluster_events
        ]
    assert {"Scheduled", "Created", "Started"} <= {each.reason for each in events}
    assert f"/{run}-a0-0 to " in next(each.message for each in events if each.reason == "Scheduled")


def test_a_container_task_gets_inputs_and_gives_outputs(pods_user: User) -> None:
    # the SDK sorts the outputs of a ContainerTask by their names
    assert pods_user.run("pods.doubled", n=21, name="box")["outputs"] == ["box", 42]


def test_a_task_brings_its_own_pod(pods_user: User, kubectl: Kubectl) -> None:
    run = pods_user.begin("pods.looks_around")
    eventually(lambda: len(pods_of(kubectl, run)) == 1, what="the pod")
    (pod,) = pods_of(kubectl, run)
    assert {"key": "example.org/template", "operator": "Exists"} in pod["spec"]["tolerations"]
    assert pod["metadata"]["labels"]["team"] == "templates"
    assert pod["metadata"]["annotations"]["example.org/note"] == "of the template"
    ends = ("SUCCEEDED", "FAILED")
    eventually(lambda: pods_user.phase(run) in ends, what="the end of the run, though a sidecar goes on")
    assert pods_user.phase(run) == "SUCCEEDED", pods_user.attempts(run)
    shown = pods_user.flyte("get", "io", "--outputs-only", run)
    assert all(word in shown for word in ("hello", "ready", "here"))
    eventually(lambda: not pods_of(kubectl, run), 60, what="the end of the sidecar")


def test_a_run_marks_the_pods_of_all_its_actions(pods_user: User, kubectl: Kubectl) -> None:
    context = {"labels": {"team": "runs"}, "annotations": {"example.org/cost": "to be shared"}, "interruptible": True}
    order = {"task": "basics.doubles", "inputs": {"n": 1}, "context": context}
    (run,) = pods_user.runs(order)
    pods = pods_of(kubectl, run["name"])
    assert len(pods) == 2
    for pod in pods:
        assert pod["metadata"]["labels"]["team"] == "runs"
        assert pod["metadata"]["annotations"]["example.org/cost"] == "to be shared"
        assert SPOT in pod["spec"]["tolerations"]


def test_an_interruptible_task_gets_what_the_platform_has_for_it(pods_user: User, kubectl: Kubectl) -> None:
    cheap, dear = pods_user.runs({"task": "pods.cheap"}, {"task": "basics.noop"})
    assert SPOT in pods_of(kubectl, cheap["name"])[0]["spec"]["tolerations"]
    assert SPOT not in pods_of(kubectl, dear["name"])[0]["spec"]["tolerations"]


def test_a_secret_is_nowhere_but_in_its_secret_and_in_the_task(
    pods_user: User, pods_manager: Manager, kubectl: Kubectl, tmp_path: Path
) -> None:
    file = tmp_path / "certificate"
    file.write_text(CANARIES[1])
    pods_user.flyte("create", "secret", "api-key", "--value", CANARIES[0])
    pods_user.flyte("create", "secret", "certificate", "--from-file", file)
    run = pods_user.run("data.knows")
    assert run["phase"] == "succeeded"
    name = run["name"]
    scope = {"org": "", "project": "flytesnacks", "domain": "development"}
    action = {"actionId": {"run": {**scope, "name": name}, "name": "a0"}}
    answers = {
        method: pods_manager.call(f"workflow.RunService/{method}", body).raise_for_status().text
        for method, body in {
            "GetRunDetails": {"runId": {**scope, "name": name}},
            "GetActionDetails": action,
            "GetActionData": action,
            "ListActions": {"runId": {**scope, "name": name}, "request": {"limit": 100}},
        }.items()
    }
    places = {
        **answers,
        "kubectl": kubectl("get", "pods,taskactions,events,configmaps,leases", "--output=yaml"),
        "kubectl describe": kubectl("describe", "pods,taskactions,secrets"),
        "log of the task": pods_user.flyte("get", "logs", name),
        "secrets": str(pods_user.get("secret")),
        **{str(path): path.read_bytes().decode("latin-1") for path in pods_manager.folder.glob("*") if path.is_file()},
    }
    assert "flyte.db" in " ".join(places)
    assert "manager.log" in " ".join(places)
    kept = kubectl("get", "secrets", "--output=yaml")
    for canary in CANARIES:
        hidden = base64.b64encode(canary.encode()).decode()
        assert kept.count(hidden) == 1
        assert [place for place, text in places.items() if canary in text or hidden in text] == []
