"""Conditions that pods wait for."""

from tests.sdk.test_conditions import *  # noqa: F403
