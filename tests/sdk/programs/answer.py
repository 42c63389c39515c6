"""Answers the condition how-many with a text, whatever type it wants: `answer.py RUN TEXT`."""

import sys

import flyte
import flyte.remote

if __name__ == "__main__":
    run, text = sys.argv[1:]
    flyte.init_from_config()
    condition = flyte.remote.Condition.get("how-many", run)
    assert condition is not None
    condition.signal(text)
