"""One manager for each test module, and a user beside it who has only the SDK, its command line and a folder."""

import shutil
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.managers import Manager
from tests.sdk.user import User

PROGRAMS = Path(__file__).with_name("programs")


def pasted(manager: Manager) -> list[str]:
    """The line that the banner says to paste."""
    (line,) = (line for line in manager.last_log.splitlines() if line.strip().startswith("flyte create config"))
    return line.split()[1:]


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
    folder = manager.folder / "user"
    shutil.copytree(PROGRAMS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    someone = User(manager, folder)
    someone.flyte(*pasted(manager))
    yield someone
    someone.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the log of its manager."""
    report = yield
    manager = getattr(item, "funcargs", {}).get("manager")
    if report.failed and isinstance(manager, Manager):
        report.sections.append(("the manager's log", manager.log[-6000:]))
    return report
