"""Conditions: a run waits for an answer."""

import time

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk

START_SECONDS = 120.0
"""a pod's Python starts slowly on a busy machine"""


def waiting(user: User, run: str) -> str:
    """The condition's action, once it waits."""
    eventually(lambda: bool(user.children(run, "how-many")), START_SECONDS, what="the condition")
    (action,) = user.children(run, "how-many")
    eventually(lambda: user.phase(run, action) == "PAUSED", what="PAUSED")
    return action


def test_a_signal_answers_a_condition(user: User) -> None:
    run = user.begin("conditions.asks")
    action = waiting(user, run)
    assert "how-many" in user.flyte("get", "condition", run)
    user.flyte("signal", "condition", run, action, "42")
    eventually(lambda: user.phase(run) == "SUCCEEDED", START_SECONDS, what="the end of the run")
    assert "int 42" in user.flyte("get", "io", run)
    assert user.phase(run, action) == "SUCCEEDED"
    assert "Outputs" in user.flyte("get", "io", run, action)
    assert "no output URI" not in user.flyte("get", "logs", run)


def test_an_answer_of_the_wrong_type_is_refused_and_changes_nothing(user: User) -> None:
    run = user.begin("conditions.asks")
    action = waiting(user, run)
    assert "int" in user.flyte("signal", "condition", run, action, "many", code=1)
    wrong = user.python("answer.py", run, "many", code=1).output
    assert "condition 'how-many' takes a value of type int; string_value was given" in wrong
    assert user.phase(run, action) == "PAUSED"
    user.flyte("signal", "condition", run, action, "1")
    eventually(lambda: user.phase(run) == "SUCCEEDED", START_SECONDS, what="the end of the run")


def test_a_condition_that_nobody_answers_times_out(user: User) -> None:
    run = user.run("conditions.asks_in_vain")
    assert run["outputs"] == ["nobody"]
    (action,) = user.children(run["name"], "anyone")
    assert user.phase(run["name"], action) == "TIMED_OUT"


def test_a_condition_times_out_also_while_the_manager_is_away(user: User, manager: Manager) -> None:
    run = user.begin("conditions.asks_in_vain", seconds=4)
    eventually(lambda: bool(user.children(run, "anyone")), START_SECONDS, what="the condition")
    manager.kill9()
    time.sleep(4)
    manager.start()
    (action,) = user.children(run, "anyone")
    eventually(lambda: user.phase(run, action) == "TIMED_OUT", 3, what="its end")
    assert user.details(run, action)["errorInfo"]["message"] == "nobody answered condition 'anyone' in 4 s"
    eventually(lambda: user.phase(run) == "SUCCEEDED", 60, what="the end of the run")
