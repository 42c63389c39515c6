"""The middle of the manager under thousands of random histories (tests/chaos/simulated)."""

import os
import subprocess
import sys

import pytest

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Budget
from flyte_manager.domain.lifecycle import Do, Step
from tests.chaos.simulated.properties import Broken
from tests.chaos.simulated.seeds import play
from tests.chaos.simulated.simulation import simulate

SEEDS = 2000
PRINT_TRACE = "from tests.chaos.simulated.simulation import simulate; simulate(17, trace=print)"


def test_two_thousand_histories_keep_all_properties() -> None:
    failures = [failure for _, some in play(range(SEEDS), processes=2) for failure in some]

    assert not failures, "\n".join(failures[:10])


def test_a_seed_plays_the_same_whatever_the_process() -> None:
    first, second = (_trace(hash_seed) for hash_seed in ("1", "2"))

    assert first == second
    assert first.count("SUCCEEDED") >= 2


def test_a_decider_that_never_stops_attempts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    step = lifecycle.step

    def never_stop(*args: object) -> Step:
        decided: Step = step(*args)  # type: ignore[arg-type]
        return Step(Do.NOTHING) if decided.do is Do.STOP else decided

    monkeypatch.setattr(lifecycle, "step", never_stop)

    with pytest.raises(Broken, match="lives on"):
        _play_until_broken()


def test_attempts_that_start_beside_a_former_one_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_args: object) -> bool:
        return False

    monkeypatch.setattr("flyte_manager.executor.reconcile.Reconciler._former_attempt_lives", nobody)

    with pytest.raises(Broken, match="lives"):
        _play_until_broken()


def test_a_wrong_budget_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    generous = Budget(retries=9)
    report = lifecycle.report
    monkeypatch.setattr(lifecycle, "report", lambda action, attempt, told, _: report(action, attempt, told, generous))

    with pytest.raises(Broken, match="times of the user"):
        _play_until_broken()


def _play_until_broken() -> None:
    for seed in range(300):
        simulate(seed)


def _trace(hash_seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", PRINT_TRACE], env=environment, check=True, capture_output=True, text=True
    ).stdout
