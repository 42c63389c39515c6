"""What pods take and give."""

from tests.sdk.test_data import *  # noqa: F403
