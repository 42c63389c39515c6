"""Plays seeds in several processes."""

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.chaos.simulated.simulation import simulate

AT_ONCE = 100


def play(seeds: range, *, processes: int) -> Iterator[tuple[int, Sequence[str]]]:
    """(how many have been played, what went wrong in the last of them), in order."""
    parts = [seeds[start : start + AT_ONCE] for start in range(0, len(seeds), AT_ONCE)]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        played = 0
        for part, failures in zip(parts, pool.map(_play, parts), strict=True):
            played += len(part)
            yield played, failures


def _play(seeds: range) -> Sequence[str]:
    logging.disable(logging.CRITICAL)
    return [failure for seed in seeds if (failure := _failure(seed))]


def _failure(seed: int) -> str:
    try:
        simulate(seed)
    except Exception as error:
        return f"seed {seed}: {type(error).__name__}: {error} (python -m tests.chaos.simulated --seed {seed})"
    return ""
