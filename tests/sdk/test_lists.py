"""What the command line lists, by each of its filters."""

import pytest

from tests.managers import eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module")
def listing(user: User) -> User:
    """Two runs: `first` of a deployed task, then `second`, labelled, with two children. Both have succeeded."""
    user.flyte("deploy", "--version", "v1", "basics.py", "env")
    user.flyte("run", "--name", "first", "deployed-task", "basics.noop:v1")
    user.flyte("run", "--name", "second", "--label", "team=red", "basics.py", "doubles", "--n", "2")
    for name in ("first", "second"):
        eventually(lambda name=name: user.phase(name) == "SUCCEEDED", what=f"the end of {name}")  # type: ignore[misc]
    return user


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", "first second"),
        ("--in-phase succeeded", "first second"),
        ("--in-phase running", ""),
        ("--task-name basics.doubles", "second"),
        ("--task-name basics.noop --task-version v1", "first"),
        ("--task-name basics.noop --task-version v2", ""),
        ("--only-mine", "first second"),
        ("--with-label team=red", "second"),
        ("--with-label team=blue", ""),
        ("--with-label-key team", "second"),
        ("--created-after 2020-01-01", "first second"),
        ("--created-before 2020-01-01", ""),
        ("--updated-after 2020-01-01T00:00:00", "first second"),
        ("--updated-before 2020-01-01", ""),
        ("--paused-only", ""),
        ("--limit 1", "first"),
    ],
)
def test_runs(listing: User, options: str, found: str) -> None:
    """Oldest first, as the SDK asks for them."""
    runs = listing.get("run", *options.split())
    assert [run["action"]["id"]["run"]["name"] for run in runs] == found.split()
    assert all(run["action"]["metadata"]["executedBy"]["user"]["id"]["subject"] for run in runs)


@pytest.mark.parametrize(("phase", "count"), [("succeeded", 3), ("running", 0)])
def test_actions(listing: User, phase: str, count: int) -> None:
    assert len(listing.get("action", "--in-phase", phase, "second")) == count


def test_tasks_tell_their_newest_run_and_who_deployed_them(listing: User) -> None:
    tasks = {task["taskId"]["name"]: task for task in listing.get("task")}
    latest = tasks["basics.noop"]["taskSummary"]["latestRun"]
    assert (latest["runId"]["name"], latest["phase"]) == ("first", "ACTION_PHASE_SUCCEEDED")
    assert "taskSummary" not in tasks["basics.talk"]
    assert all(task["metadata"]["deployedBy"]["user"]["id"]["subject"] for task in tasks.values())
