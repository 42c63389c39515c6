"""One cluster for the whole session, one namespace for each test module."""

import re
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.kubernetes.clusters import Cluster, Kubectl, KubectlError, open_cluster

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its namespace holds, and what happened there."""
    report = yield
    kubectl = getattr(item, "funcargs", {}).get("kubectl")
    if report.failed and isinstance(kubectl, Kubectl):
        for command in (("get", "all", "--output=wide"), ("get", "events", "--sort-by=.lastTimestamp")):
            try:
                text = kubectl(*command)
            except KubectlError as error:
                text = str(error)
            report.sections.append((f"kubectl {' '.join(command)}", text[-6000:]))
    return report
