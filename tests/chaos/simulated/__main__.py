"""`python -m tests.chaos.simulated`: plays many seeds, or one of them with all that happens."""

import argparse
import logging
import sys
import time

from tests.chaos.simulated.seeds import play
from tests.chaos.simulated.simulation import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.simulated", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many to play (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="play this one and print each commit and each line of the log")
    asked = parser.parse_args()
    if asked.seed is not None:
        logging.basicConfig(level=logging.INFO, format="            %(message)s")
        simulate(asked.seed, trace=print)
        return 0
    started, failed = time.monotonic(), 0
    for done, failures in play(range(asked.first, asked.first + asked.seeds), processes=asked.processes):
        for failure in failures:
            print(failure, flush=True)
        failed += len(failures)
        if sys.stderr.isatty() or done % 5000 == 0:
            print(f"{done} seeds, {failed} failed, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{asked.seeds} seeds from {asked.first}: {failed} failed, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
