"""Without the zygote: each attempt is a new Python."""

from collections.abc import Mapping

import pytest

from tests.managers import Manager
from tests.sdk.user import User

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module")
def settings() -> Mapping[str, str]:
    return {"embedded.warm": "false"}


def test_tasks_run_cold(user: User, manager: Manager) -> None:
    assert "cold" in manager.last_log
    nothing, fan, flaky = user.runs(
        {"task": "basics.noop"},
        {"task": "trees.fan", "inputs": {"n": 3}},
        {"task": "failures.dies_once"},
    )
    assert (nothing["phase"], nothing["outputs"]) == ("succeeded", [None])
    assert fan["outputs"] == [3]
    assert flaky["outputs"] == [1]
