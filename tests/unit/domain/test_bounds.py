"""Bounds: which of them count, and what is said of one that is reached."""

import itertools

import pytest

from flyte_manager.domain.attempts import ErrorKind
from flyte_manager.domain.bounds import Allowance, Bound, Limit, Limits, allowed, exceeded, seconds_of, span

LONG = "it asks for 2 d; tasks.maxRuntime.most allows no more"


@pytest.mark.parametrize(
    ("asked", "limit", "seconds", "why"),
    [
        (0, Limit(), 0, ""),
        (5, Limit(), 5, ""),
        (5, Limit(default=60), 5, ""),
        (5, Limit(most=60), 5, ""),
        (60, Limit(most=60), 60, ""),
        (0, Limit(default=60), 60, "tasks.maxRuntime.default, as it names none"),
        (0, Limit(default=60, most=90), 60, "tasks.maxRuntime.default, as it names none"),
        (0, Limit(most=90), 90, "tasks.maxRuntime.most, as it names none"),
        (0, Limit(default=90, most=60), 60, "tasks.maxRuntime.most, as it names none"),
        (2 * 86_400, Limit(default=60, most=90), 90, LONG),
    ],
)
def test_a_task_gets_what_it_asks_for_or_the_default_and_never_more_than_the_most(
    asked: float, limit: Limit, seconds: float, why: str
) -> None:
    found = allowed([Allowance(Bound.MAX_RUNTIME, asked)] if asked else [], Limits(max_runtime=limit))
    assert seconds_of(found, Bound.MAX_RUNTIME) == seconds
    assert [each.why for each in found] == ([why] if seconds else [])
    assert [each.asked for each in found if each.asked] == ([asked] if why == LONG else [])


def test_each_bound_has_a_limit_of_its_own() -> None:
    found = allowed([], Limits(Limit(1), Limit(2), Limit(3)))
    assert [(each.bound, each.seconds) for each in found] == list(zip(Bound, (1, 2, 3), strict=True))
    assert ["queuedTimeout" in each.why for each in found] == [False, True, False]


def test_what_is_said_names_the_bound_and_why_it_is_that() -> None:
    told = exceeded(Allowance(Bound.MAX_RUNTIME, 2))
    assert (told.kind, told.code, told.recoverable) == (ErrorKind.USER, "MAX_RUNTIME_EXCEEDED", True)
    assert told.message == "the task ran longer than its max_runtime of 2 s"
    assert exceeded(Allowance(Bound.MAX_RUNTIME, 7200, LONG)).message.endswith(f"of 2 h ({LONG})")
    told = exceeded(Allowance(Bound.QUEUED_TIMEOUT, 90), phase="WAITING_FOR_RESOURCES", reason="waits for 1 CPU")
    assert (told.code, told.recoverable) == ("QUEUED_TIMEOUT_EXCEEDED", True)
    assert told.message == (
        "the task waited to start longer than its max_queued_time (queued_timeout) of 90 s: waits for 1 CPU"
    )
    told = exceeded(Allowance(Bound.DEADLINE, 1.5), phase="RUNNING")
    assert (told.code, told.recoverable) == ("DEADLINE_EXCEEDED", False)
    assert told.message == (
        "the task did not end within its deadline of 1.5 s, which counts over all attempts; this one was RUNNING"
    )


def test_times_are_told_in_the_largest_unit_that_fits() -> None:
    told = {0.25: "0.25 s", 60: "60 s", 120: "2 min", 121: "121 s", 3600: "60 min", 7200: "2 h", 172_800: "2 d"}
    assert {seconds: span(seconds) for seconds in told} == told
    assert span(1e12 + 0.5) == "1000000000000.5 s"
    assert all(span(one) != span(two) for one, two in itertools.pairwise(range(1, 10_000)))
