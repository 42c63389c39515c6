"""Several users at once, of pods."""

from tests.sdk.test_users import *  # noqa: F403
