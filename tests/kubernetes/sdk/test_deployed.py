"""Deployed tasks and reruns as pods."""

from tests.sdk.test_deployed import *  # noqa: F403
