"""Prints the report of a run: `read_report.py RUN`."""

import sys

import flyte
import flyte.remote

if __name__ == "__main__":
    flyte.init_from_config()
    print(flyte.remote.Run.get(sys.argv[1]).get_report())
