"""The tests of tests/sdk, of tasks that are pods.

A module here takes over the tests of the module there (`from tests.sdk.test_runs import *`) and may add its own. What
can't hold for pods it names in LEFT_OUT, with the reason. Whole modules that are not here:

    test_cold.py            pods have no zygote: each is a new Python
    test_curl.py            its tasks are plain commands of this machine; the API beneath is the same
    test_object_store.py    runs neither manager nor tasks; all tests here use the S3 server
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.managers import Manager
from tests.sdk.conftest import road as road
from tests.sdk.conftest import shared as shared
from tests.sdk.user import User

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what the modules say."""
    left_out = [item for item in items if FOLDER in item.path.parents and _name(item) in _left_out(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _left_out(item: pytest.Item) -> Mapping[str, str]:
    module = getattr(item, "module", None)
    reasons: Mapping[str, str] = getattr(module, "LEFT_OUT", {})
    unknown = [name for name in reasons if not hasattr(module, name)]
    assert not unknown, f"{item.path}: LEFT_OUT names {unknown}, which are no tests"
    return reasons


def _name(item: pytest.Item) -> str:
    """Without parameters."""
    return str(getattr(item, "originalname", item.name))


@pytest.fixture(scope="module")
def manager(pods_manager: Manager) -> Manager:
    return pods_manager


@pytest.fixture(scope="module")
def user(pods_user: User) -> User:
    return pods_user


@pytest.fixture(scope="module")
def many(road: str) -> int:
    """A pod costs more than a second of a core, most of it for Python's start."""
    return 30 if road == "actions" else 5
