"""Parsed tasks and run settings, kept for a while: all children of a map share one spec."""

from collections import OrderedDict
from dataclasses import replace
from typing import Generic, TypeVar

from flyte_manager.domain.actions import Action, Run
from flyte_manager.domain.bounds import NO_LIMITS, Limits, allowed
from flyte_manager.domain.tasks import TaskPlan, World
from flyte_manager.ledger.watch import Reader
from flyte_manager.wire.plan import RunSettings, parse_spec, plan, run_settings

KEPT = 512

V = TypeVar("V")


class Plans:
    """Reads each spec once."""

    def __init__(self, reader: Reader, world: World, limits: Limits = NO_LIMITS) -> None:
        self._reader = reader
        self._world = world
        self._limits = limits
        self._plans: _Kept[TaskPlan] = _Kept()
        self._settings: _Kept[RunSettings] = _Kept()

    async def plan(self, action: Action) -> TaskPlan:
        """Raises InvalidSpec, BadQuantity."""
        kept = self._plans.get(action.spec_digest)
        if kept is not None:
            return kept
        spec = await self._reader.spec(action.spec_digest)
        read = plan(parse_spec(spec), self._world)
        return self._plans.keep(action.spec_digest, replace(read, bounds=allowed(read.bounds, self._limits)))

    def settings(self, run: Run) -> RunSettings:
        key = str(run.id)
        return self._settings.get(key) or self._settings.keep(key, run_settings(run.run_spec))


class _Kept(Generic[V]):
    """The values used last, KEPT at the most."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def keep(self, key: str, value: V) -> V:
        self._values[key] = value
        if len(self._values) > KEPT:
            self._values.popitem(last=False)
        return value
