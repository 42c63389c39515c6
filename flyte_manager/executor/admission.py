"""Who may start now: requests count against the machine's cores and memory (DESIGN.md §7).

    ask ─▶ waiting, deepest first, then oldest ─▶ held ─▶ release

An action with live children waits for them: its CPU is free for others, its memory is not. When no leaf runs, the next
is admitted whatever it asks, so that nesting cannot deadlock. The first in line blocks the rest, so that a small one
cannot pass a large one for ever; a steady stream of deeper actions does go before shallow ones.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from flyte_manager.domain.actions import Action
from flyte_manager.domain.ids import ActionId

DEFAULT_CPU = 0.5
DEFAULT_MEMORY = 256 << 20


@dataclass(frozen=True, slots=True)
class Demand:
    """Cores and bytes."""

    cpu: float = DEFAULT_CPU
    memory: int = DEFAULT_MEMORY


class Admission:
    """Counts what runs. `wake` is called with an action that waited and may start now."""

    def __init__(self, *, cpu: float, memory: int, wake: Callable[[ActionId], None]) -> None:
        self.cpu = cpu
        self.memory = memory
        self._wake = wake
        self._held: dict[ActionId, Demand] = {}
        self._waiting: dict[ActionId, Demand] = {}
        self._line: list[tuple[int, float, str, ActionId]] = []
        self._depths: dict[ActionId, int] = {}
        self._children: dict[ActionId, set[ActionId]] = {}
        self._free_cpu = cpu
        self._free_memory = memory
        self._leaves = 0

    def track(self, action: Action) -> None:
        """Tells of an action's present state; each change of an action comes here, and each look at its row: an old row
        told late (alive, while it has ended) is put right by the next look."""
        parent = ActionId(action.id.run, action.parent)
        if not action.final:
            self._depths[action.id] = self._depths.get(parent, -1) + 1
            if action.parent:
                self._add_child(parent, action.id)
            return
        self._depths.pop(action.id, None)
        self._remove_child(parent, action.id)
        self.release(action.id)

    def ask(self, action: Action, demand: Demand) -> str:
        """Empty when the action may start; else why it waits. Asking again is fine."""
        if action.id in self._held:
            return ""
        if action.id not in self._waiting:
            self._waiting[action.id] = self.clamped(demand)
            depth = self._depths.get(action.id, 0)
            heapq.heappush(self._line, (-depth, action.created_at.timestamp(), str(action.id), action.id))
        self._grant(action.id)
        if action.id in self._held:
            return ""
        wants = self._waiting[action.id]
        return (
            f"waits for {wants.cpu:g} CPU and {wants.memory >> 20} MiB: {max(self._free_cpu, 0):g} of {self.cpu:g} CPU "
            f"and {max(self._free_memory, 0) >> 20} of {self.memory >> 20} MiB are free, {len(self._waiting)} in line"
        )

    def waits(self, action: ActionId) -> bool:
        """Whether it stands in line; it is woken when its turn comes."""
        return action in self._waiting

    def clamped(self, demand: Demand) -> Demand:
        """The demand, or what the machine has where that is less."""
        return Demand(min(demand.cpu, self.cpu), min(demand.memory, self.memory))

    def adopt(self, action: Action, demand: Demand) -> None:
        """Counts an action that runs already."""
        if action.id not in self._held:
            self._waiting.pop(action.id, None)
            self._hold(action.id, self.clamped(demand))

    def release(self, action: ActionId) -> None:
        """Frees what the action held, or takes it out of the line."""
        self._waiting.pop(action, None)
        demand = self._held.pop(action, None)
        if demand is not None:
            self._free_memory += demand.memory
            if action not in self._children:
                self._free_cpu += demand.cpu
                self._leaves -= 1
        self._grant(None)

    def _add_child(self, parent: ActionId, child: ActionId) -> None:
        children = self._children.get(parent)
        if children is None:
            self._children[parent] = {child}
            if parent in self._held:
                self._free_cpu += self._held[parent].cpu
                self._leaves -= 1
                self._grant(None)
        else:
            children.add(child)

    def _remove_child(self, parent: ActionId, child: ActionId) -> None:
        children = self._children.get(parent)
        if children is None or child not in children:
            return
        children.discard(child)
        if not children:
            del self._children[parent]
            if parent in self._held:
                self._free_cpu -= self._held[parent].cpu
                self._leaves += 1

    def _hold(self, action: ActionId, demand: Demand) -> None:
        self._held[action] = demand
        self._free_memory -= demand.memory
        if action not in self._children:
            self._free_cpu -= demand.cpu
            self._leaves += 1

    def _grant(self, asking: ActionId | None) -> None:
        """Admits from the head of the line while it fits."""
        while self._line:
            action = self._line[0][3]
            demand = self._waiting.get(action)
            if demand is not None:
                fits = demand.cpu <= self._free_cpu + 1e-9 and demand.memory <= self._free_memory
                if self._leaves and not fits:
                    return
                del self._waiting[action]
                self._hold(action, demand)
                if action != asking:
                    self._wake(action)
            heapq.heappop(self._line)
