"""What this manager can't do with pods is told, with the cure."""

from tests.sdk.test_limits import *  # noqa: F403
from tests.sdk.user import User

LEFT_OUT = {
    "test_a_module_that_the_tasks_lack_is_told_with_how_to_add_it": "it belongs into the image: see below",
    "test_a_task_that_needs_more_than_a_process_is_refused_with_a_sentence": "pods are what it needs",
    "test_a_code_bundle_that_is_gone_is_told_at_once_with_the_cure": "bundles lie in S3: see below",
}


def test_a_module_that_the_image_lacks_is_told_with_how_to_add_it(user: User) -> None:
    run = user.run("lacking.learns")
    assert run["phase"] == "failed"
    assert "No module named 'surely_not_installed_here'" in run["error"]
    assert "image" in run["error"].partition("surely_not_installed_here")[2]
