"""One cluster for the whole session; for each test module a namespace, and a manager and a user if it asks for them."""

import re
import secrets
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kubernetes.clusters import Cluster, Kubectl, KubectlError, open_cluster
from tests.kubernetes.managers import install_crd, pods_manager_of, pods_user_of
from tests.managers import Manager
from tests.s3 import S3Server
from tests.sdk.user import User

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all tests of this folder, so that `make test` leaves them out."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with open_cluster() as opened:
        yield opened


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    """The administrator's."""
    return cluster.kubeconfig


@pytest.fixture(scope="session")
def sdk_image(cluster: Cluster) -> str:
    """The name of an image with the SDK, for tasks."""
    return cluster.sdk_image()


@pytest.fixture(scope="session")
def manager_image(cluster: Cluster) -> str:
    """The name of an image with this manager."""
    return cluster.manager_image()


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh one, in which pods can be created at once; with all that is in it, it goes at the end."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.path.stem.removeprefix("test_").lower())
    name = f"test-{stem}-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=30s")
    yield name
    cluster.kubectl("delete", "pods", "--all", "--now", "--wait=false", f"--namespace={name}")
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """The administrator's, in the module's namespace."""
    return cluster.kubectl.within(namespace)


@pytest.fixture(scope="session")
def crd(cluster: Cluster) -> None:
    """TaskActions are known to the cluster."""
    install_crd(cluster.kubectl)


@pytest.fixture(scope="module")
def pods_settings() -> Mapping[str, str]:
    """A module with other settings of its manager overrides this."""
    return {}


@pytest.fixture(scope="module")
def pods_manager(
    tmp_path_factory: pytest.TempPathFactory,
    crd: None,  # noqa: ARG001
    kubectl: Kubectl,
    manager_image: str,
    s3: S3Server,
    pods_settings: Mapping[str, str],
) -> Iterator[Manager]:
    """A manager outside the cluster whose tasks are pods in the module's namespace."""
    folder = tmp_path_factory.mktemp("manager")
    settings = {"manager.kubernetes.helperImage": manager_image, **pods_settings}
    with pods_manager_of(folder, kubectl, s3, settings) as manager:
        yield manager


@pytest.fixture(scope="module")
def pods_user(pods_manager: Manager, sdk_image: str) -> Iterator[User]:
    with pods_user_of(pods_manager, sdk_image) as user:
        yield user


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its namespace holds, what happened there, and the log of its manager."""
    report = yield
    used = getattr(item, "funcargs", {})
    kubectl, manager = used.get("kubectl"), used.get("manager", used.get("pods_manager"))
    if report.failed and isinstance(manager, Manager):
        report.sections.append(("the manager's log", manager.log[-6000:]))
    if report.failed and isinstance(kubectl, Kubectl):
        for command in (("get", "all", "--output=wide"), ("get", "events", "--sort-by=.lastTimestamp")):
            try:
                text = kubectl(*command)
            except KubectlError as error:
                text = str(error)
            report.sections.append((f"kubectl {' '.join(command)}", text[-6000:]))
    return report
