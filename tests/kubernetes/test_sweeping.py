"""Runs that sleep have no pods; runs that ended long ago go from a manager that runs pods, with all that was theirs.

The manager looks at once and each second, not after a minute and each hour.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence

import pytest

from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes.status import NAMES
from tests.chaos.test_prune_objects import grow_old, sleep_of
from tests.kubernetes.clusters import Kubectl
from tests.kubernetes.managers import pods_manager_of
from tests.kubernetes.plain_runs import SCOPE, Runs, pod_defaults, until_file
from tests.managers import Manager
from tests.s3 import S3Server
from tests.sdk.test_object_store import store_of

AT_ONCE = """
from flyte_manager.cli import main
from flyte_manager.executor import sweeper

sweeper.FIRST_SECONDS = 0
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    crd: None,  # noqa: ARG001
    kubectl: Kubectl,
    sdk_image: str,
    s3: S3Server,
) -> Iterator[Runs]:
    marks = tmp_path_factory.mktemp("marks")
    settings = {
        "manager.kubernetes.podDefaults": pod_defaults(marks),
        "manager.kubernetes.keepSeconds": "1",
        "retention.maxAge": "1d",
        "retention.every": "1s",
    }
    manager = pods_manager_of(tmp_path_factory.mktemp("manager"), kubectl, s3, settings)
    manager.command = (sys.executable, "-c", AT_ONCE)
    with manager:
        yield Runs(manager, kubectl, marks, sdk_image)


def sleep(runs: Runs, name: str, duration: str) -> None:
    runs.manager.call("workflow.RunService/CreateRun", sleep_of(name, duration)).raise_for_status()


def shows(runs: Runs, run: str, phase: Phase) -> None:
    """The run's TaskAction comes to tell that phase; no pod is there."""
    runs.until(phase.name, run)
    told = f"the TaskAction of {run} {phase.name}"
    runs.eventually(lambda: runs.task_action(f"{run}-a0").get("status", {}).get("phase") == NAMES[phase], told)
    assert runs.pods(run) == {}


def test_a_sleep_has_a_task_action_and_no_pod(runs: Runs) -> None:
    sleep(runs, "slept", "0.5s")
    shows(runs, "slept", Phase.SUCCEEDED)


def test_who_is_aborted_while_asleep_wakes_no_more(runs: Runs) -> None:
    sleep(runs, "asleep", "600s")
    shows(runs, "asleep", Phase.RUNNING)
    runs.abort("asleep")
    shows(runs, "asleep", Phase.ABORTED)


def test_a_sleep_whose_task_action_is_deleted_is_aborted(runs: Runs) -> None:
    sleep(runs, "deleted", "600s")
    shows(runs, "deleted", Phase.RUNNING)
    runs.kubectl("delete", "taskaction", "deleted-a0")
    runs.until("ABORTED", "deleted")
    assert "was deleted" in runs.reason("deleted")


async def test_old_runs_go_with_all_that_was_theirs_and_live_ones_stay(runs: Runs, s3: S3Server) -> None:
    await asyncio.to_thread(both, runs)
    assert await held(runs, s3) >= {"old", "live"}

    grow_old(runs.manager, "old")
    await asyncio.to_thread(runs.eventually, lambda: not runs.rows("old"), "the end of old's rows")
    await asyncio.to_thread(runs.eventually, lambda: not runs.manager.rows("SELECT run FROM prunings"), "of its folder")
    assert "old" not in await held(runs, s3)
    gone = runs.manager.call("workflow.RunService/GetRunDetails", {"runId": {**SCOPE, "name": "old"}})
    assert gone.json()["code"] == "not_found"
    await asyncio.to_thread(again, runs)

    await asyncio.to_thread(restart, runs.manager)  # it deletes TaskActions when it starts, and each minute
    await asyncio.to_thread(runs.eventually, lambda: "old-a0" not in task_actions(runs), "the end of its TaskAction")
    await asyncio.to_thread(runs.eventually, lambda: runs.pods("old") == {}, "the end of its pod")

    assert "live-a0" in task_actions(runs)
    assert runs.phase("live") == "RUNNING"
    runs.let("go")
    await asyncio.to_thread(runs.until, "SUCCEEDED", "live")
    assert "live" in await held(runs, s3)
    assert "internal error" not in runs.manager.log


def both(runs: Runs) -> None:
    """One run that has ended, and one that lives, as pods."""
    runs.start("old", "echo kept")
    runs.start("live", until_file("go"))
    runs.until("RUNNING", "live")
    runs.until("SUCCEEDED", "old")
    ended = NAMES[Phase.SUCCEEDED]
    runs.eventually(lambda: runs.task_action("old-a0").get("status", {}).get("phase") == ended, "the end of old")


def again(runs: Runs) -> None:
    """A run of that name, whose former TaskAction is still there."""
    assert "old-a0" in task_actions(runs)
    sleep(runs, "old", "0.1s")
    runs.until("SUCCEEDED", "old")


def restart(manager: Manager) -> None:
    manager.stop()
    manager.start()


def task_actions(runs: Runs) -> Sequence[str]:
    return [each["metadata"]["name"] for each in runs.kubectl.json("get", "taskactions")["items"]]


async def held(runs: Runs, s3: S3Server) -> set[str]:
    """Runs of which something lies in the store."""
    store = store_of(s3, runs.kubectl.namespace)
    base = store.join("flytesnacks/development")
    found = [each.uri async for page in store.stored(base) for each in page]
    return {uri.removeprefix(f"{base}/").partition("/")[0] for uri in found}
