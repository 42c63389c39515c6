"""What must hold at each commit, and when all is over."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import Attempt
from flyte_manager.domain.bounds import Bound
from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.ids import ROOT, ActionId, RunId
from flyte_manager.domain.phases import FINAL, ROAD, Kind, Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.store import action_lists, actions, attempts, runs
from flyte_manager.store.engine import Transaction
from tests.chaos.simulated.scenario import Ending, Scenario
from tests.chaos.simulated.world import World
from tests.fakes.orders import run_id

SYSTEM_RETRIES = 3
LAST_NAME = "~"
_ENDS = {Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT}


class Broken(AssertionError):  # noqa: N818
    """A property does not hold."""


@dataclass(slots=True)
class Watch:
    """Looks at each commit. `ends`: the final reports of attempts, which never change again."""

    scenario: Scenario
    trace: Callable[[str], None] | None = None
    known: dict[ActionId, Action] = field(default_factory=dict)
    ends: dict[tuple[ActionId, int], Attempt] = field(default_factory=dict)
    commits: int = 0

    def committed(self, tx: Transaction) -> None:
        self.commits += 1
        connection = tx.connection
        for after in self._written(connection, tx.revision):
            _expect(tx.known.get(after.id, after) == after, f"the writer believes {after.id} to be otherwise")
            before = self.known.get(after.id)
            if self.trace:
                self.trace(f"{after.id} {after.phase.name} attempt {after.attempt} {after.reason}")
            self._moved(before, after)
            self.known[after.id] = after
            if after.kind is Kind.TASK:
                self._attempts(tx, after)
            if after.is_root:
                run = runs.get(connection, after.id.run)
                _expect(run is not None and run.phase is after.phase, f"run {after.id.run} shows not its root's phase")

    def _written(self, connection: sa.Connection, revision: int) -> Iterator[Action]:
        for name in self.scenario.runs:
            yield from _changed(connection, run_id(name), (revision - 1, LAST_NAME))

    def _moved(self, before: Action | None, after: Action) -> None:
        if before is None:
            first = {Kind.TASK: {Phase.QUEUED}, Kind.CONDITION: {Phase.QUEUED, Phase.PAUSED}, Kind.TRACE: FINAL}
            _expect(after.phase in first[after.kind], f"{after.id} began as {after.phase.name}")
            return
        told = f"{after.id}: {before.phase.name} (attempt {before.attempt}) to {after.phase.name} ({after.attempt})"
        if after.attempt != before.attempt:
            _expect(after.attempt == before.attempt + 1 and after.phase is Phase.QUEUED, told)
            _expect(before.phase is not Phase.SUCCEEDED, told)
        elif before.phase in FINAL:
            reopened = (
                after.kind is Kind.CONDITION and after.phase is Phase.PAUSED and before.phase is not Phase.SUCCEEDED
            )
            _expect(after.phase is before.phase or reopened, told)
        elif after.phase in ROAD:
            _expect(before.phase in ROAD and ROAD.index(before.phase) <= ROAD.index(after.phase), told)
        elif after.phase is Phase.PAUSED:
            _expect(after.kind is Kind.CONDITION, told)
        else:
            _expect(after.phase in _ENDS, told)

    def _attempts(self, tx: Transaction, action: Action) -> None:
        found = attempts.of_action(tx.connection, action.id)
        _expect([each.id.number for each in found] == [*range(1, action.attempt + 1)], f"{action.id} lacks attempts")
        for each in found:
            _expect(tx.known.get(each.id, each) == each, f"the writer believes {each.id} to be otherwise")
            key = (action.id, each.id.number)
            ended = self.ends.get(key)
            if ended is not None:
                same = (each.phase, each.failure, each.ended_at) == (ended.phase, ended.failure, ended.ended_at)
                _expect(same, f"{each.id} was reported {ended.phase.name} and then {each.phase.name}")
            elif each.phase.final:
                self.ends[key] = each
            if each.id.number < action.attempt:
                _expect(each.phase.final, f"{each.id} is {each.phase.name} while a later one began")
        _expect(found[-1].phase is action.phase, f"{action.id} shows not its attempt's phase")
        self._budget(action)

    def _budget(self, action: Action) -> None:
        retries = self.scenario.call(action.id.run.name, action.id.name).retries
        _expect(action.user_failures <= retries + 1, f"{action.id} failed {action.user_failures} times of the user")
        _expect(action.system_failures <= SYSTEM_RETRIES + 1, f"{action.id} failed too often of the system")
        if action.phase in (Phase.FAILED, Phase.TIMED_OUT):
            spent = action.user_failures > retries or action.system_failures > SYSTEM_RETRIES
            fatal = action.failure is not None and not action.failure.recoverable
            _expect(spent or fatal, f"{action.id} is {action.phase.name} with attempts left")


def at_the_end(connection: sa.Connection, world: World, seen: dict[str, dict[ActionId, ShownAction]]) -> None:
    """`seen`: run -> what a watcher that was cut off now and then knows of its actions."""
    for name, shown in seen.items():
        run = run_id(name)
        everything = _all(connection, run)
        root = next(each for each in everything if each.id.name == ROOT)
        for action in everything:
            _expect(action.final, f"{action.id} is {action.phase.name} for ever ({action.reason})")
            _agrees(action, attempts.get(connection, action.attempt_id), world)
            last = shown.get(action.id)
            _expect(
                last == ShownAction.of(action),
                f"the watcher knows {action.id} as {last and last.phase.name}, not {action.phase.name}",
            )
        _expect(root.final, f"{run} goes on")
    _expect(not world.troubles, world.troubles[0] if world.troubles else "")
    _expect(not world.alive(), f"{world.alive()[:1]} lives on after its action's end")


def _agrees(action: Action, attempt: Attempt | None, world: World) -> None:
    """What the rows say of an action is what the world did."""
    if action.kind is not Kind.TASK:
        return
    life = world.lives.get(action.attempt_id)
    if attempt is not None and attempt.cache_status is CacheStatus.HIT:
        _expect(life is None, f"{action.id} took outputs from the cache and ran all the same")
    elif action.phase is Phase.SUCCEEDED:
        _expect(life is not None and life.ending is Ending.GOOD, f"{action.id} SUCCEEDED without having done so")
    if action.phase is Phase.TIMED_OUT:
        bounds = {bound.value for bound in Bound}
        _expect(
            action.failure is not None and action.failure.code in bounds, f"{action.id} is TIMED_OUT without a bound"
        )
    if action.phase is Phase.FAILED and life is not None and life.ending is Ending.GOOD:
        meddled = action.failure is not None and action.failure.code == "Meddling"
        _expect(meddled, f"{action.id} FAILED though it ended well")


def _all(connection: sa.Connection, run: RunId) -> Iterable[Action]:
    found = _changed(connection, run, actions.START)
    _expect(len(found) < actions.PAGE, "a page holds all actions of a simulated run")
    return found


def _changed(connection: sa.Connection, run: RunId, after: actions.Cursor) -> Sequence[Action]:
    rows = [actions.get(connection, each.id) for each in action_lists.changed(connection, run, after)]
    return [action for action in rows if action is not None]


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
