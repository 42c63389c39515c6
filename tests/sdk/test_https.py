"""A manager that is served by https, with a certificate of an authority that only this user trusts."""

from collections.abc import Iterator, Mapping

import pytest

from tests.certificates import Files, issue
from tests.managers import Manager
from tests.sdk.user import User, new_user

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return issue(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def settings(files: Files) -> Mapping[str, str]:
    return {"server.tls.certificate": str(files.certificate), "server.tls.key": str(files.key)}


@pytest.fixture(scope="module")
def user(manager: Manager, files: Files) -> Iterator[User]:
    with new_user(manager) as someone:
        someone.env = {"SSL_CERT_FILE": str(files.authority)}
        yield someone


def test_runs_with_children_pass_and_their_logs_are_read(user: User, manager: Manager) -> None:
    assert f"API       https://{manager.endpoint}" in manager.last_log
    fanned = user.run("trees.fan", n=3)
    assert (fanned["phase"], fanned["outputs"]) == ("succeeded", [3])
    assert fanned["name"] in user.flyte("get", "run")


def test_the_tasks_way_is_the_same_after_a_restart(user: User, manager: Manager) -> None:
    before = (manager.data / "tasks.port").read_text()
    assert manager.stop() == 0
    manager.start()
    assert (manager.data / "tasks.port").read_text() == before
    assert user.run("trees.fan", n=2)["outputs"] == [1]
