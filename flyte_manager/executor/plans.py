"""Parsed tasks and run settings, kept for a while: all children of a map share one spec."""

from collections import OrderedDict
from collections.abc import Hashable
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
        self._runs: _Kept[tuple[Run, RunSettings]] = _Kept()

    async def plan(self, action: Action) -> TaskPlan:
        """Raises InvalidSpec, BadQuantity."""
        kept = self._plans.get(action.spec_digest)
        if kept is not None:
            return kept
        spec = await self._reader.spec(action.spec_digest)
        read = plan(parse_spec(spec), self._world)
        return self._plans.keep(action.spec_digest, replace(read, bounds=allowed(read.bounds, self._limits)))

    async def run(self, action: Action) -> tuple[Run, RunSettings]:
        """The action's run as it was ordered, and its settings. Of a run that has gone on only what never changes is
        right; a root action's is read anew, since the name may have been another run's before. Raises UnknownRun."""
        kept = None if action.is_root else self._runs.get(action.id.run)
        if kept is not None:
            return kept
        run = await self._reader.run(action.id.run)
        return self._runs.keep(action.id.run, (run, run_settings(run.run_spec)))


class _Kept(Generic[V]):
    """The values used last, KEPT at the most."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def keep(self, key: Hashable, value: V) -> V:
        self._values[key] = value
        if len(self._values) > KEPT:
            self._values.popitem(last=False)
        return value
