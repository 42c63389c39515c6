"""The manager as a pod, by deploy/ and an overlay: it serves, its rights are enforced, and nothing ends with it."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flyte_manager.kubernetes import crd
from flyte_manager.kubernetes.permissions import RULES
from tests.kubernetes.clusters import Cluster, Kubectl, KubectlError
from tests.kubernetes.deployments import NAME, Deployed, Gate, another_manager, write_overlay
from tests.kubernetes.managers import install_crd, pods_user_of
from tests.managers import eventually
from tests.s3 import S3Server
from tests.sdk.user import User


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """Not there yet: the overlay makes it."""
    name = f"test-deployment-{secrets.token_hex(3)}"
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    for kind in (f"clusterrole/{NAME}-crd", f"clusterrolebinding/{NAME}-crd", f"persistentvolume/{NAME}-{name}"):
        cluster.kubectl("delete", kind, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def manager(
    tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, namespace: str, manager_image: str, s3: S3Server
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("overlay")
    kubectl = cluster.kubectl.within(namespace)
    ports = write_overlay(folder, kubectl, s3, image=manager_image)
    cluster.kubectl("apply", "--kustomize", folder)
    deployed = Deployed(folder, ports=ports, kubectl=kubectl)
    (folder / "home").mkdir()
    deployed.until_available()
    yield deployed
    kubectl("delete", "deployment", NAME, "--ignore-not-found")
    kubectl("delete", "pods", "--all", "--now", "--wait=false")
    deployed.close()


@pytest.fixture(scope="module")
def user(manager: Deployed, sdk_image: str) -> Iterator[User]:
    with pods_user_of(manager, sdk_image) as user:
        yield user


def task_pods(kubectl: Kubectl, run: str) -> dict[str, str]:
    """Name -> uid."""
    found = kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


@contextlib.contextmanager
def at_port(user: User, port: int) -> Iterator[None]:
    """Whose configuration names this port meanwhile."""
    file = user.folder / ".flyte" / "config.yaml"
    direct = file.read_text()
    assert user.manager.endpoint in direct
    file.write_text(direct.replace(user.manager.endpoint, f"localhost:{port}"))
    try:
        yield
    finally:
        file.write_text(direct)


@contextlib.contextmanager
def without(kubectl: Kubectl, resource: str, verb: str) -> Iterator[None]:
    """The manager's Role lacks one verb meanwhile."""
    role = kubectl.json("get", "role", NAME)
    less = [
        {**rule, "verbs": [each for each in rule["verbs"] if rule["resources"] != [resource] or each != verb]}
        for rule in role["rules"]
    ]
    assert less != role["rules"]
    patch = "patch", "role", NAME, "--type=merge", "--patch"
    kubectl(*patch, json.dumps({"rules": less}))
    try:
        yield
    finally:
        kubectl(*patch, json.dumps({"rules": role["rules"]}))


def test_one_command_makes_it_and_it_says_what_it_found(manager: Deployed) -> None:
    log = manager.log
    assert "Mode      kubernetes: the service account of this pod" in log
    assert f"Tasks     pods in namespace {manager.kubectl.namespace}" in log
    assert f"kubectl port-forward -n {manager.kubectl.namespace} service/{NAME} {manager.ports['api']}:8090" in log
    assert " WARN " not in log
    (container,) = manager.pod()["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert manager.kubectl.json("get", "lease", NAME)["spec"]["holderIdentity"].startswith(f"{NAME}-")


def test_the_doctor_in_its_pod_finds_nothing_wrong(manager: Deployed) -> None:
    said = manager.kubectl("exec", f"deployment/{NAME}", "--", "flyte-manager", "doctor")
    found = dict(line.split(maxsplit=2)[1::-1] for line in said.splitlines() if line.startswith("  "))
    assert set(found.values()) == {"ok"}, said
    assert {"cluster", "TaskAction", "permissions", "storage", "way"} <= found.keys()


def test_its_rights_are_those_of_the_list_and_end_at_its_namespace(manager: Deployed, tmp_path: Path) -> None:
    itself = manager.kubectl.logged_in_as(NAME, tmp_path / "kubeconfig")
    asked = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1"}
    order = json.dumps({**asked, "spec": {"namespace": itself.namespace}})
    answer = itself("create", "--filename=-", "--output=json", "--validate=false", input=order)
    granted = {
        (group, resource, verb)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if not resource.startswith("selfsubject")  # which everybody may ask
    }
    assert granted == {(rule.group, rule.resource, verb) for rule in RULES for verb in rule.verbs}
    for refused in (("get", "nodes"), ("get", "secrets", "--namespace=kube-system"), ("get", "namespaces")):
        with pytest.raises(KubectlError, match=r"(?i)forbidden"):
            itself(*refused)


def test_the_sdk_runs_through_a_port_forward(manager: Deployed, user: User, s3: S3Server) -> None:
    with manager.forwarded() as port, at_port(user, port):
        run = user.run("gate.crowd", n=2, port=manager.ports["api"])
        assert (run["phase"], run["outputs"]) == ("succeeded", [[0, 1]]), run
        logs = user.flyte("get", "logs", run["name"], user.children(run["name"], "wait")[0])
    assert "goes on" in logs
    table = manager.kubectl("get", "taskactions").splitlines()
    assert table[0].split()[:2] == ["NAME", "PHASE"]
    assert [line.split()[1] for line in table[1:] if run["name"] in line] == ["Succeeded"] * 3
    # the store's keys come by reference
    pods = manager.kubectl("get", "pods", f"--selector=flyte.org/run={run['name']}", "--output=json")
    assert s3.secret_key not in pods
    secret = {"secretKeyRef": {"name": "flyte-storage", "key": "AWS_SECRET_ACCESS_KEY"}}
    assert len(json.loads(pods)["items"]) == 3
    for pod in json.loads(pods)["items"]:
        env = {each["name"]: each.get("valueFrom") for each in pod["spec"]["containers"][0]["env"]}
        assert env["FLYTE_AWS_SECRET_ACCESS_KEY"] == secret


def test_a_run_outlives_the_managers_pod_and_its_process(manager: Deployed, user: User) -> None:
    gate = Gate()
    run = user.begin("gate.crowd", n=2, port=gate.port)
    eventually(lambda: len(user.children(run, "wait")) == 2, 60, what="the children")
    children = user.children(run, "wait")
    eventually(lambda: {user.phase(run, child) for child in children} == {"RUNNING"}, 60, what="running children")
    pods, first = task_pods(manager.kubectl, run), manager.pod()["metadata"]["uid"]
    assert len(pods) == 3

    manager.kubectl("delete", "pod", manager.pod()["metadata"]["name"])
    manager.until_available()
    assert manager.pod()["metadata"]["uid"] != first
    assert task_pods(manager.kubectl, run) == pods
    assert {user.phase(run, child) for child in children} == {"RUNNING"}

    manager.kill_process()
    eventually(lambda: manager.pod()["status"]["containerStatuses"][0]["restartCount"] == 1, 60, what="a restart")
    manager.until_available()
    eventually(manager.serves, what="serving")
    assert task_pods(manager.kubectl, run) == pods
    with gate.open():
        eventually(lambda: user.phase(run) == "SUCCEEDED", 60, what="its end")
    assert task_pods(manager.kubectl, run) == pods
    assert [len(user.attempts(run, action)) for action in ("a0", *children)] == [1, 1, 1]
    assert "1 goes on" in user.flyte("get", "logs", run, children[0]) + user.flyte("get", "logs", run, children[1])


def test_a_missing_permission_is_told_with_its_rule_and_counts_once_it_is_given(manager: Deployed, user: User) -> None:
    with without(manager.kubectl, "pods", "create"):
        refused = user.run("basics.noop")
    assert refused["phase"] == "failed"
    assert '{apiGroups: [""], resources: [pods], verbs: [get, list, watch, create, patch, delete]}' in refused["error"]
    again = user.run("basics.double", x=4)
    assert (again["phase"], again["outputs"]) == ("succeeded", [8]), again


def test_a_second_manager_waits_for_the_first_and_then_takes_over(manager: Deployed) -> None:
    kubectl = manager.kubectl
    first = manager.pod()["metadata"]["name"]
    pod = another_manager(kubectl.json("get", "deployment", NAME), "second")
    kubectl.apply(pod)
    told = f"the Lease {kubectl.namespace}/{NAME} is held by {first}"
    eventually(lambda: told in _log(kubectl, "second"), what="its words")
    ports = {each["name"]: each["containerPort"] for each in pod["spec"]["containers"][0]["ports"]}

    def answer(port: int, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}/{path}", trust_env=False)

    for part in ("api", "health"):
        ready = answer(ports[part], "readyz")
        assert (ready.status_code, told in ready.text) == (503, True), ready.text
        assert answer(ports[part], "healthz").status_code == 200

    kubectl("scale", "deployment", NAME, "--replicas=0")
    kubectl("wait", "--for=condition=Ready", "pod/second", "--timeout=40s")
    assert "Ready in" in _log(kubectl, "second")

    kubectl("scale", "deployment", NAME, "--replicas=1")
    eventually(lambda: "is held by second" in _log(kubectl, f"deployment/{NAME}"), 40, what="the first one's words")
    # one that waits ends when it is told to, not when it is killed 30 s later
    kubectl("scale", "deployment", NAME, "--replicas=0")
    eventually(lambda: not manager.pods(), 15, what="the end of a manager that waits")
    kubectl("delete", "pod", "second")
    kubectl("scale", "deployment", NAME, "--replicas=1")
    manager.until_available()


@pytest.mark.parametrize(
    ("name", "flags", "env", "sentence"),
    [
        (
            "wrong-key",
            (),
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            "doesn't accept the identity that the environment gives",
        ),
        ("no-bucket", ("--storage.url=s3://nowhere",), {}, "the bucket or container of s3://nowhere doesn't exist"),
    ],
)
def test_a_store_that_can_not_be_used_ends_the_start_with_a_sentence(
    manager: Deployed, name: str, flags: tuple[str, ...], env: dict[str, str], sentence: str
) -> None:
    assert sentence in _refusal(manager, name, *flags, env=env)


def test_a_cluster_without_taskactions_ends_the_start_with_the_line_to_type(
    manager: Deployed, cluster: Cluster
) -> None:
    if cluster.state is None:
        pytest.skip("this cluster is not the tests' own: its TaskActions stay")
    cluster.kubectl("delete", "crd", crd.NAME)
    try:
        assert f"has no TaskActions: `{crd.INSTALL}`" in _refusal(manager, "no-kind", env={})
    finally:
        install_crd(cluster.kubectl)


def _refusal(manager: Deployed, name: str, *flags: str, env: dict[str, str]) -> str:
    """What a manager said last that could not start."""
    kubectl = manager.kubectl
    kubectl.apply(another_manager(kubectl.json("get", "deployment", NAME), name, *flags, env=env))
    kubectl("wait", "--for=jsonpath={.status.phase}=Failed", f"pod/{name}", "--timeout=60s")
    status: dict[str, Any] = kubectl.json("get", "pod", name)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert status["exitCode"] == 1
    return _log(kubectl, name).splitlines()[-1]


def _log(kubectl: Kubectl, what: str) -> str:
    """Empty while there is none."""
    try:
        return kubectl("logs", what, "--tail=-1")
    except KubectlError:
        return ""
