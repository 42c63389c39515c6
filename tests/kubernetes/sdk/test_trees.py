"""Tasks that call tasks, each a pod."""

from tests.sdk.test_trees import *  # noqa: F403
