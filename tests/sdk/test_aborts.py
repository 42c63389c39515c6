"""Aborts: of a run with its whole tree, and of one action."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk
GRACE = 60.0
"""seconds: some do not end at the first signal, and get time for it"""


def processes_with(mark: str) -> Iterable[int]:
    """Living processes whose command line has this word. A task's own has its function's name, in a pod."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def sleeping(mark: str) -> list[int]:
    """The processes that both sleepers of a tree start."""
    return [*processes_with(mark), *processes_with(f"{mark}-2")]


def until_asleep(user: User, run: str, mark: str) -> list[str]:
    """The sleeping actions, once they sleep."""

    def asleep() -> bool:
        return [user.phase(run, each) for each in user.children(run, "sleeper")] == ["RUNNING"] * 2

    eventually(asleep, 120, what="the sleep")
    eventually(lambda: len(sleeping(mark)) == 2, 60, what="the grandchildren")
    return user.children(run, "sleeper")


def test_an_abort_of_a_run_ends_its_whole_tree(user: User, manager: Manager) -> None:
    run = user.begin("endless.tree", mark="whole")
    until_asleep(user, run, "whole")
    user.flyte("abort", "run", run, "--reason", "changed my mind")
    eventually(lambda: not sleeping("whole"), GRACE, what="the end of the grandchildren")
    assert {action["status"]["phase"] for action in user.actions(run)} == {"ACTION_PHASE_ABORTED"}
    assert "changed my mind" in user.details(run)["abortInfo"]["reason"]
    assert [attempt["phase"] for attempt in user.attempts(run)] == ["ACTION_PHASE_ABORTED"]  # of 4
    known = {manager.pid, manager.zygote()}
    eventually(lambda: set(manager.processes()) <= known, what="the end of the tasks")


def test_an_abort_of_an_action_ends_it_without_a_retry_and_fails_its_parent(user: User) -> None:
    run = user.begin("endless.tree", mark="action")
    first, second = until_asleep(user, run, "action")
    user.flyte("abort", "action", run, first)
    eventually(lambda: user.phase(run) == "FAILED", GRACE, what="the end of the run")
    assert user.phase(run, first) == "ABORTED"
    assert user.phase(run, second) == "ABORTED"
    assert len(user.attempts(run, first)) == 1
    eventually(lambda: not sleeping("action"), GRACE, what="the end of the processes")


def test_an_abort_can_be_repeated_and_changes_nothing_that_has_ended(user: User) -> None:
    run = user.run("basics.double", x=1)["name"]
    user.flyte("abort", "run", run)
    assert user.phase(run) == "SUCCEEDED"
    run = user.begin("endless.stubborn")
    eventually(lambda: user.phase(run) == "RUNNING", what="RUNNING")
    for _ in range(2):
        user.flyte("abort", "run", run)
        assert user.phase(run) == "ABORTED"


def test_an_abort_of_an_unknown_run_is_told(user: User) -> None:
    assert "not found" in user.flyte("abort", "run", "never-made", code=1).lower()


def test_an_abort_at_any_moment_leaves_one_end_and_no_process(user: User, manager: Manager) -> None:
    """While they start, run and end."""
    orders = [{"task": "bounds.short", "inputs": {"seconds": 0.3}, "wait": False} for _ in range(12)]
    runs = [each["name"] for each in user.runs(*orders)]
    more = [user.begin("bounds.waits_to_be_tried_again"), user.begin("endless.stubborn")]
    for run in (*runs, *more):
        abort(manager, run)
    ends = {run: user.details(run) for run in (*runs, *more)}
    phases = {run: ended["status"]["phase"] for run, ended in ends.items()}
    assert set(phases.values()) <= {"ACTION_PHASE_ABORTED", "ACTION_PHASE_SUCCEEDED"}
    assert [phases[run] for run in more] == ["ACTION_PHASE_ABORTED"] * 2
    known = {manager.pid, manager.zygote()}
    eventually(lambda: set(manager.processes()) <= known, GRACE, what="the end of the tasks")
    for run in ends:
        abort(manager, run)
    after = {run: user.details(run) for run in ends}
    for run, ended in ends.items():
        assert after[run]["status"] == ended["status"]
        assert [each["phase"] for each in after[run]["attempts"]] == [each["phase"] for each in ended["attempts"]]
    assert manager.last_log.count("nothing to abort") >= len(ends)


def abort(manager: Manager, run: str) -> None:
    body = {"runId": {"project": "flytesnacks", "domain": "development", "name": run}, "reason": "enough"}
    manager.call("workflow.RunService/AbortRun", body).raise_for_status()
