"""What pods take and give."""

import pytest

from tests.s3 import S3Server
from tests.sdk.test_data import *  # noqa: F403
from tests.sdk.user import User


@pytest.fixture(scope="module", autouse=True)
def key(user: User, s3: S3Server) -> None:
    """The SDK opens files of the store itself, so users who do need a key of their own."""
    user.env = s3.task_env
