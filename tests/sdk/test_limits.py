"""What this manager can't do is told, with the cure."""

import sys

import pytest

from tests.managers import Manager
from tests.sdk.user import User

pytestmark = pytest.mark.sdk


def test_a_module_that_the_tasks_lack_is_told_with_how_to_add_it(user: User) -> None:
    run = user.run("lacking.learns")
    assert run["phase"] == "failed"
    assert "No module named 'surely_not_installed_here'" in run["error"]
    assert f"{sys.executable} -m pip install surely_not_installed_here" in run["error"]


def test_a_code_bundle_that_is_gone_is_told_at_once_with_the_cure(user: User, manager: Manager) -> None:
    user.run("basics.noop")
    bundles = list(manager.data.glob("blobs/uploads/**/fast*.tar.gz"))
    assert bundles
    for bundle in bundles:
        bundle.unlink()
    refused = user.python("drive.py", '[{"task": "basics.noop"}]', code=1).output
    assert "is gone from this manager's store" in refused
    assert "`flyte delete local-cache`" in refused
    user.flyte("delete", "local-cache")
    assert user.run("basics.noop")["phase"] == "succeeded"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("container", "ContainerTask"),
        ("in_a_pod", "pod templates"),
        ("in_a_reused_container", "reusable"),
    ],
)
def test_a_task_that_needs_more_than_a_process_is_refused_with_a_sentence(user: User, task: str, words: str) -> None:
    refused = user.python("drive.py", f'[{{"task": "refused.{task}"}}]', code=1).output
    assert words in refused
