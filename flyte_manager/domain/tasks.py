"""What a world needs to know of a task to run it, and how its argument templates are filled in."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from flyte_manager.domain.actions import Budget
from flyte_manager.domain.bounds import Allowance


class World(Enum):
    """Where attempts run."""

    PROCESSES = "embedded"
    PODS = "kubernetes"


@dataclass(frozen=True, slots=True)
class SecretRequest:
    """A secret that a task declares. `env_var` is empty for one that is shown as a file."""

    key: str
    group: str = ""
    env_var: str = ""


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task's template, read for running it."""

    args: Sequence[str]
    env: Mapping[str, str]
    budget: Budget
    outputs: Sequence[str]
    """names of what it declares to give back"""
    has_report: bool = False
    secrets: Sequence[SecretRequest] = ()
    cpu: float = 0.0
    """cores asked for; 0 = not said"""
    memory: int = 0
    """bytes asked for; 0 = not said"""
    memory_limit: int = 0
    """bytes; 0 = no limit"""
    image: str = ""
    template: bytes = b""
    """flyteidl2.core.TaskTemplate, for a world that runs containers"""
    interruptible: bool | None = None
    """None: as the run says"""
    unsupported: str = ""
    """why this manager can't run it, with the cure"""
    cache_serialize: bool = False
    """of equal calls one runs, the others wait for its outputs"""
    cache_max_age: float = 0.0
    """seconds since outputs were kept; 0 = any"""
    bounds: Sequence[Allowance] = ()
    """how long it may wait, run and live; empty: as long as it takes"""

    sleep: str = ""
    """of a task that only waits (core-sleep): the input that says how long"""

    @property
    def has_outputs(self) -> bool:
        return bool(self.outputs)


_TEMPLATE = re.compile(r"\{\{\s*\.([\w.]+)\s*\}\}")


def fill_in(args: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Replaces `{{.name}}` (any case, as upstream) by its value; an unknown one stays as it is."""
    lowered = {name.lower(): value for name, value in values.items()}
    return [_TEMPLATE.sub(lambda match: lowered.get(match[1].lower(), match[0]), arg) for arg in args]


_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    unit + "i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


def quantity(text: str) -> float:
    """The value of a Kubernetes quantity: cores for `500m`, bytes for `1Gi`. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a quantity such as 2, 500m, 1Gi")
    value = float(match[1]) * _UNITS[match[2]]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is more than there is")
    return value
