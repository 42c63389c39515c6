"""Answers a condition with a text, whatever type it wants: `answer.py RUN ACTION TEXT`."""

import sys

import flyte
import flyte.remote

if __name__ == "__main__":
    run, action, text = sys.argv[1:]
    flyte.init_from_config()
    condition = flyte.remote.Condition.get(action, run)
    assert condition is not None
    condition.signal(text)
