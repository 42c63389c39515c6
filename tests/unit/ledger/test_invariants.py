"""Random sequences of everything that may happen to a run, from a seed; after each step the rows must make sense."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flyte_manager.domain.actions import Action, Budget, Run
from flyte_manager.domain.attempts import Attempt, AttemptReport, ErrorKind, Failure, Transition
from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.filters import Query
from flyte_manager.domain.ids import ActionId, AttemptId, RunId
from flyte_manager.domain.phases import FINAL, ROAD, Kind, Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.store import action_lists, actions, attempts, runs
from flyte_manager.store.engine import Connection, Transaction
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle
from tests.fakes.middle import middle as open_middle
from tests.fakes.orders import action_id, new_condition, new_run, new_task, new_trace, run_id

STEPS = 120
NAMES = [f"c{number}" for number in range(12)]
REPORTED = (*ROAD, *ROAD, Phase.FAILED, Phase.FAILED, Phase.TIMED_OUT, Phase.SUCCEEDED, Phase.ABORTED)
BAD = (Phase.FAILED, Phase.TIMED_OUT)


@dataclass
class Chaos:
    """Does one random thing after the other and remembers how the rows were."""

    middle: Middle
    clock: FakeClock
    chance: random.Random
    before: dict[str, Action] = field(default_factory=dict)
    ends: dict[AttemptId, Phase] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    async def step(self) -> None:
        self.clock.advance(self.chance.choice((0, 0.5, 3)))
        what = self.chance.choice(
            ("enqueue",) * 4 + ("report",) * 8 + ("put", "abort", "signal", "expire") + ("again",) * 4
        )
        known = [each for each in self.before if each != "a0"]
        name = self.chance.choice(NAMES if what == "enqueue" else [*known, *known, *known, self.chance.choice(NAMES)])
        self.steps.append(f"{what} {name}")
        try:
            match what:
                case "enqueue":
                    await self._enqueue(name, self.chance.choice(["a0", "a0", *known, "c11"]))
                case "again":
                    await self._enqueue(name, self.before[name].parent if name in self.before else "a0")
                case "report":
                    await self._report(self.chance.choice(["a0", name, name]))
                case "put":
                    await self._put(name)
                case "abort":
                    await self.middle.ledger.abort_action(action_id(name), "chaos")
                case "signal":
                    await self.middle.ledger.signal(action_id(name), self.chance.choice((b"1", b"2")))
                case "expire":
                    if name in self.before and self.before[name].kind is Kind.CONDITION:
                        await self.middle.ledger.expire(action_id(name), "chaos")
        except Refusal as refusal:
            self.steps[-1] += f" refused: {refusal}"
        await self.check()

    async def _enqueue(self, name: str, parent: str) -> None:
        match NAMES.index(name) % 4:
            case 0:
                await self.middle.ledger.enqueue(new_condition(name, parent=parent))
            case 1:
                good = self.chance.random() < 0.5
                order = new_trace(name, parent=parent, phase=Phase.SUCCEEDED if good else Phase.FAILED)
                await self.middle.ledger.enqueue(order, failure=None if good else self._failure())
            case _:
                await self.middle.ledger.enqueue(new_task(name, parent=parent))

    def _failure(self) -> Failure:
        kind = self.chance.choice((ErrorKind.USER, ErrorKind.USER, ErrorKind.SYSTEM))
        return Failure(kind, "Chaos", f"chaos {self.chance.random()}", recoverable=self.chance.random() < 0.9)

    async def _report(self, name: str) -> None:
        known = self.before.get(name)
        number = max(1, (known.attempt if known else 1) - (self.chance.random() < 0.2))
        phase = self.chance.choice(REPORTED if name != "a0" else (*ROAD, Phase.FAILED))
        failure = self._failure() if phase in BAD else None
        earlier = Transition(Phase.RUNNING, self.clock.now) if phase.final and self.chance.random() < 0.5 else None
        told = AttemptReport(
            AttemptId(action_id(name), number),
            phase,
            self.clock(),
            transitions=(earlier,) if earlier else (),
            failure=failure,
            reason="chaos" if phase is Phase.WAITING_FOR_RESOURCES else "",
        )
        budget = Budget(
            retries=9 if name == "a0" else self.chance.choice((0, 1, 9)), backoff_base=self.chance.choice((0.0, 2.0))
        )
        self.steps[-1] += f"/{number} {phase.name} {budget.retries} {failure and failure.kind}"
        for _ in range(self.chance.choice((1, 1, 2))):
            await self.middle.ledger.report(told, budget)
        if failure and known and known.attempt == number and not known.final:
            self._check_retry(await self.middle.action(action_id(name)), known, budget, failure)

    async def _put(self, name: str) -> None:
        phase = self.chance.choice((*ROAD, *BAD, None))
        failure = self._failure() if phase in BAD else None
        await self.middle.ledger.put_state(
            action_id(name), "{}", phase=phase, failure=failure, budget=Budget(retries=1)
        )

    def _check_retry(self, after: Action, before: Action, budget: Budget, failure: Failure) -> None:
        system = failure.kind is ErrorKind.SYSTEM
        failures = (before.system_failures if system else before.user_failures) + 1
        allowed = failure.recoverable and failures <= (budget.system_retries if system else budget.retries)
        assert (after.phase is Phase.QUEUED) == allowed
        assert after.attempt == before.attempt + allowed

    async def check(self) -> None:
        found, tries, run = await self.middle.database.read(_rows)
        await self.middle.database.write(_check_known)
        for name, action in found.items():
            tried = tries[name]
            _check_row(action, found.get(action.parent))
            if action.kind is Kind.TASK:
                self._check_attempts(action, tried)
            else:
                assert tried == []
            if name in self.before:
                _check_step(self.before[name], action)
        assert (run.phase, run.ended_at) == (found["a0"].phase, found["a0"].ended_at)
        self.before = found

    def _check_attempts(self, action: Action, tried: Sequence[Attempt]) -> None:
        assert [each.id.number for each in tried] == list(range(1, action.attempt + 1))
        assert tried[-1].phase is action.phase
        assert all(each.phase.final for each in tried[:-1])
        for attempt in tried:
            assert self.ends.get(attempt.id, attempt.phase) is attempt.phase, "ended twice"
            if attempt.phase.final:
                self.ends[attempt.id] = attempt.phase
            phases = [each.phase for each in attempt.transitions]
            assert phases[0] is Phase.QUEUED
            assert phases[-1] is attempt.phase
            assert [each for each in ROAD if each in phases] == [each for each in phases if each not in FINAL]
            assert len(FINAL & set(phases)) == attempt.phase.final
            assert all(left.at <= right.at for left, right in itertools.pairwise(attempt.transitions))
            assert (attempt.ended_at is not None) == attempt.phase.final
            assert (attempt.failure is not None) == (attempt.phase in BAD)


def _rows(connection: Connection) -> tuple[dict[str, Action], dict[str, Sequence[Attempt]], Run]:
    shown, _ = action_lists.page(connection, run_id(), Query(limit=100))
    found = {each.name: action for each in shown if (action := actions.get(connection, each.id))}
    run = runs.get(connection, run_id())
    assert run is not None
    return found, {name: attempts.of_action(connection, each.id) for name, each in found.items()}, run


def _check_known(tx: Transaction) -> None:
    for key, row in tx.known.items():
        match key:
            case ActionId():
                assert actions.get(tx.connection, key) == row
            case AttemptId():
                assert attempts.get(tx.connection, key) == row
            case RunId():
                assert runs.get(tx.connection, key) == row
            case _:
                raise AssertionError(key)


def _check_row(action: Action, parent: Action | None) -> None:
    assert (action.ended_at is not None) == action.final
    assert (action.failure is not None) == (action.phase in BAD)
    if not action.is_root:
        assert parent is not None
        assert action.final or not parent.final, "lives under a parent that has ended"


def _check_step(before: Action, after: Action) -> None:
    assert after.revision >= before.revision
    if after.revision == before.revision:
        assert after.phase is before.phase
    assert after.created_at == before.created_at
    if after.kind is Kind.CONDITION:
        assert not before.final or after.phase in (before.phase, Phase.PAUSED)
    elif after.kind is Kind.TRACE:
        assert before.phase is Phase.FAILED or after.phase is before.phase
    elif after.attempt == before.attempt:
        assert not before.final or after.phase is before.phase, "left a final phase"
        if not after.final:
            assert ROAD.index(after.phase) >= ROAD.index(before.phase), "went back"
    else:
        assert after.attempt == before.attempt + 1
        assert after.attempt_revision > before.attempt_revision


async def follow(middle: Middle, seen: dict[ActionId, ShownAction]) -> None:
    async for page in middle.reader.follow_run(run_id()):
        seen |= {action.id: action for action in page or ()}


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_the_rows_make_sense_and_watchers_see_the_end(tmp_path: Path, seed: int) -> None:
    clock = FakeClock()
    async with open_middle(tmp_path, clock) as middle:
        await middle.ledger.create_run(new_run())
        seen: dict[ActionId, ShownAction] = {}
        watching = asyncio.create_task(follow(middle, seen))
        chaos = Chaos(middle, clock, random.Random(seed))
        try:
            for _ in range(STEPS):
                await chaos.step()
        except AssertionError as error:
            raise AssertionError("\n".join(["after", *chaos.steps[-25:]])) from error
        rows = {action.id: action for action in chaos.before.values()}

        async def told() -> bool:
            # a document that another client put into an unchanged row is told to nobody
            return {each.id: each.revision for each in seen.values()} == {
                each.id: each.revision for each in rows.values()
            }

        await middle.until(told)
        watching.cancel()
        await asyncio.wait([watching])
        if not rows[action_id()].final:
            await middle.ledger.abort_run(run_id(), "the end")
        assert await middle.reader.live() == []
