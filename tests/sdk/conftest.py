"""One manager for each test module, and a user beside it who has only the SDK, its command line and a folder.

tests/kubernetes/sdk runs the same tests on pods: its conftest.py has fixtures of these names for that world.
"""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.managers import Manager
from tests.sdk.user import ROADS, User, new_user


@pytest.fixture(scope="module")
def settings() -> Mapping[str, str]:
    """A module with other settings of its manager overrides this."""
    return {}


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, str]) -> Iterator[Manager]:
    with Manager(tmp_path_factory.mktemp("manager"), settings) as started:
        yield started


@pytest.fixture(scope="module")
def user(manager: Manager) -> Iterator[User]:
    with new_user(manager) as someone:
        yield someone


@pytest.fixture(scope="module", params=ROADS)
def road(request: pytest.FixtureRequest) -> str:
    """By which services tasks start others: a name in ROADS."""
    return str(request.param)


@pytest.fixture(scope="module")
def many() -> int:
    """How many children a large fan-out has."""
    return 100


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all tasks see."""
    return tmp_path_factory.mktemp("shared")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the log of its manager."""
    report = yield
    manager = getattr(item, "funcargs", {}).get("manager")
    if report.failed and isinstance(manager, Manager):
        report.sections.append(("the manager's log", manager.log[-6000:]))
    return report
