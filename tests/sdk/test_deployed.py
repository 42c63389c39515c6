"""Deployed tasks, reruns, and what the command line lists."""

import pytest

from tests.managers import eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk
TASKS = {"basics.noop", "basics.double", "basics.describe", "basics.doubles", "basics.talk"}


@pytest.fixture(scope="module")
def version(user: User) -> str:
    """The version under which the tasks of basics.py are deployed."""
    user.flyte("deploy", "--version", "v1", "basics.py", "env")
    return "v1"


def test_deployed_tasks_are_listed(user: User, version: str) -> None:
    listed = {(task["taskId"]["name"], task["taskId"]["version"]) for task in user.get("task")}
    assert listed == {(name, version) for name in TASKS}
    shown = user.flyte("get", "task", "basics.double", version)
    assert "basics.double" in shown
    assert version in shown


def test_a_deploy_can_be_repeated(user: User, version: str) -> None:
    user.flyte("deploy", "--version", version, "basics.py", "env")
    assert {task["taskId"]["name"] for task in user.get("task")} == TASKS


@pytest.mark.parametrize(("run", "task"), [("by-version", "basics.double:v1"), ("latest", "basics.double")])
@pytest.mark.usefixtures("version")
def test_a_deployed_task_runs_with_and_without_its_version(user: User, run: str, task: str) -> None:
    user.flyte("run", "--name", run, "deployed-task", task, "--x", "5")
    eventually(lambda: user.phase(run) == "SUCCEEDED", what="the end of the run")
    assert "10" in user.flyte("get", "io", "--outputs-only", run)


def test_an_unknown_deployed_task_is_refused(user: User) -> None:
    refused = user.flyte("run", "deployed-task", "basics.missing", "--x", "1", code=1)
    assert "No versions found for Task basics.missing" in refused


def test_a_rerun_takes_task_and_inputs_of_the_old_run(user: User) -> None:
    run = user.run("basics.double", x=8)["name"]
    user.flyte("rerun", "--name", "again", run)
    eventually(lambda: user.phase("again") == "SUCCEEDED", what="the end of the rerun")
    assert "16" in user.flyte("get", "io", "again")
    relation = user.details("again")["metadata"]["relation"]
    assert relation["relatedTo"]["name"] == run
    assert "RERUN" in relation["relationType"]


def test_runs_and_actions_are_listed_and_shown(user: User) -> None:
    run = user.run("basics.doubles", n=2)["name"]
    assert run in {each["action"]["id"]["run"]["name"] for each in user.get("run")}
    assert run in user.flyte("get", "run", run)
    actions = user.get("action", run)
    assert {each["status"]["phase"] for each in actions} == {"ACTION_PHASE_SUCCEEDED"}
    assert len(actions) == 3
    (child, _) = user.children(run, "double")
    assert child in user.flyte("get", "action", run, child)


def test_projects_are_listed_and_created(user: User) -> None:
    assert [project["id"] for project in user.get("project")] == ["flytesnacks"]
    domains = {domain["id"] for domain in user.get("project")[0]["domains"]}
    assert domains == {"development", "staging", "production"}
    user.flyte("run", "--project", "made-by-a-run", "basics.py", "noop")
    assert {project["id"] for project in user.get("project")} == {"flytesnacks", "made-by-a-run"}


def test_secrets_are_listed_without_their_values_and_deleted(user: User) -> None:
    user.flyte("create", "secret", "password", "--value", "do-not-tell")
    shown = str(user.get("secret"))
    assert "password" in shown
    assert "do-not-tell" not in shown
    user.flyte("delete", "secret", "password")
    assert "password" not in str(user.get("secret"))


def test_the_code_of_a_run_can_be_fetched(user: User) -> None:
    run = user.run("basics.noop")["name"]
    user.flyte("get", "code", run, "--dest", "fetched")
    assert "first tasks of a newcomer" in (user.folder / "fetched" / "basics.py").read_text()
