"""What this manager can't do with pods is told, with the cure."""

from obstore.store import S3Store

from tests.kubernetes.clusters import Kubectl
from tests.s3 import S3Server
from tests.sdk.test_limits import *  # noqa: F403
from tests.sdk.user import User

LEFT_OUT = {
    "test_a_module_that_the_tasks_lack_is_told_with_how_to_add_it": "it belongs into the image: see below",
    "test_a_task_that_needs_more_than_a_process_is_refused_with_a_sentence": "pods are what it needs; but see below",
    "test_a_code_bundle_that_is_gone_is_told_at_once_with_the_cure": "bundles lie in S3: see below",
}


def test_a_module_that_the_image_lacks_is_told_with_how_to_add_it(user: User) -> None:
    run = user.run("lacking.learns")
    assert run["phase"] == "failed"
    assert "No module named 'surely_not_installed_here'" in run["error"]
    assert "image" in run["error"].partition("surely_not_installed_here")[2]


def test_a_reused_container_is_refused_with_a_sentence(user: User) -> None:
    refused = user.python("drive.py", '[{"task": "refused.in_a_reused_container"}]', code=1).output
    assert "reusable" in refused


def test_a_code_bundle_that_is_gone_from_the_bucket_is_told_at_once(user: User, kubectl: Kubectl, s3: S3Server) -> None:
    user.run("basics.noop")
    bucket = S3Store(
        s3.bucket,
        endpoint=s3.endpoint,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        client_options={"allow_http": True},
    )
    found = [each["path"] for page in bucket.list(f"{kubectl.namespace}/") for each in page]
    bundles = [path for path in found if "/fast" in path]
    assert bundles
    bucket.delete(bundles)
    refused = user.python("drive.py", '[{"task": "basics.noop"}]', code=1).output
    assert "is gone from this manager's store" in refused
    assert "`flyte delete local-cache`" in refused
    user.flyte("delete", "local-cache")
    assert user.run("basics.noop")["phase"] == "succeeded"
