"""How long an attempt may wait and run, and an action live: flyte.Timeout, read as the SDK documents it.

    attempt   QUEUED  WAITING_FOR_RESOURCES | INITIALIZING | RUNNING | end
              |<------- queued_timeout ---->|              |<------->| max_runtime
    action    |<------------ deadline, over all its attempts ------->|

The first two belong to one attempt: it ends TIMED_OUT and is tried again while the task's retries last, as after any
failure of the user's. A backoff is no waiting: `queued_timeout` counts from its end. The deadline counts from the first
QUEUED, backoffs included, and nothing is tried again after it. 0 and nothing said: no bound.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from flyte_manager.domain.attempts import ErrorKind, Failure


class Bound(Enum):
    """Which bound it is. The value is the error code by which the SDK chooses its exception."""

    MAX_RUNTIME = "MAX_RUNTIME_EXCEEDED"
    QUEUED_TIMEOUT = "QUEUED_TIMEOUT_EXCEEDED"
    DEADLINE = "DEADLINE_EXCEEDED"


NAMES = {
    Bound.MAX_RUNTIME: ("max_runtime", "maxRuntime"),
    Bound.QUEUED_TIMEOUT: ("max_queued_time (queued_timeout)", "queuedTimeout"),
    Bound.DEADLINE: ("deadline", "deadline"),
}
"""What users of the SDK call it, and the manager's setting."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A bound of a task, in seconds."""

    bound: Bound
    seconds: float
    why: str = ""
    """why it is that much, where the task did not say so"""
    asked: float = 0.0
    """what the task asks for, where that is more than it gets"""


@dataclass(frozen=True, slots=True)
class Limit:
    """What the manager's settings say of one bound, in seconds; 0 = nothing."""

    default: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What they say of all bounds."""

    max_runtime: Limit = Limit()
    queued_timeout: Limit = Limit()
    deadline: Limit = Limit()

    def of(self, bound: Bound) -> Limit:
        match bound:
            case Bound.MAX_RUNTIME:
                return self.max_runtime
            case Bound.QUEUED_TIMEOUT:
                return self.queued_timeout
            case Bound.DEADLINE:
                return self.deadline


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Left:
    """What is left to an action now, in seconds."""

    start: float = 0.0
    """until its attempt may start: a backoff"""
    end: float = math.inf
    """until the nearest bound"""
    allowance: Allowance | None = None
    """that bound"""


UNBOUNDED = Left()


def allowed(asked: Iterable[Allowance], limits: Limits) -> tuple[Allowance, ...]:
    """The bounds that count, of those that the task asks for: a default where it asks for none, never more than the
    most."""
    given = {each.bound: each.seconds for each in asked if each.seconds > 0}
    found = (_allowance(bound, given.get(bound, 0.0), limits.of(bound)) for bound in Bound)
    return tuple(each for each in found if each.seconds)


def seconds_of(bounds: Sequence[Allowance], bound: Bound) -> float:
    """0 = no bound."""
    return next((each.seconds for each in bounds if each.bound is bound), 0.0)


def exceeded(allowance: Allowance, *, phase: str = "", reason: str = "") -> Failure:
    """The failure of what went beyond it. `phase`: in which it was; `reason`: why it waited."""
    name, length = NAMES[allowance.bound][0], span(allowance.seconds)
    match allowance.bound:
        case Bound.MAX_RUNTIME:
            message = f"the task ran longer than its {name} of {length}"
        case Bound.QUEUED_TIMEOUT:
            message = f"the task waited to start longer than its {name} of {length}"
        case Bound.DEADLINE:
            message = f"the task did not end within its {name} of {length}, which counts over all attempts"
            message += f"; this one was {phase}" if phase else ""
    message += f" ({allowance.why})" if allowance.why else ""
    message += f": {reason}" if reason else ""
    retried = allowance.bound is not Bound.DEADLINE
    return Failure(ErrorKind.USER, allowance.bound.value, message, recoverable=retried)


def span(seconds: float) -> str:
    """The time in words: `90 s`, `2 h`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.15g} s"


def _allowance(bound: Bound, asked: float, limit: Limit) -> Allowance:
    key = f"tasks.{NAMES[bound][1]}"
    if limit.most and asked > limit.most:
        return Allowance(bound, limit.most, f"it asks for {span(asked)}; {key}.most allows no more", asked)
    if asked:
        return Allowance(bound, asked)
    if limit.default and not (limit.most and limit.default > limit.most):
        return Allowance(bound, limit.default, f"{key}.default, as it names none")
    return Allowance(bound, limit.most, f"{key}.most, as it names none") if limit.most else Allowance(bound, 0.0)
