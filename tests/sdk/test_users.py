"""Several users at once."""

import json
import sys

import pytest

from tests.sdk.user import User, finish

pytestmark = pytest.mark.sdk


def test_three_users_run_five_tasks_each_at_once(user: User) -> None:
    def orders(number: int) -> str:
        return json.dumps([{"task": "basics.double", "inputs": {"x": 10 * number + i}} for i in range(5)])

    users = [user.start(sys.executable, "drive.py", orders(number)) for number in range(3)]
    for number, each in enumerate(users):
        runs = finish(each).lines()
        assert [run["outputs"] for run in runs] == [[2 * (10 * number + i)] for i in range(5)]
