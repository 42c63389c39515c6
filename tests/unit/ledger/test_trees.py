"""Trees of actions that end at once, and watchers that must be told of each."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from flyte_manager.domain.actions import Action
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.store import actions
from tests.fakes.middle import Middle
from tests.fakes.orders import action_id, new_run, new_task, run_id

WIDE = 1100
DEEP = 600


async def follow(pages: AsyncIterator[Sequence[Action | ShownAction] | None], until: int) -> dict[str, Phase]:
    """The latest phases, once so many actions were told to be over."""
    seen: dict[str, Phase] = {}
    async for page in pages:
        assert page is None or len(page) <= actions.PAGE
        for action in page or ():
            seen[action.id.name] = action.phase
        if sum(phase.final for phase in seen.values()) >= until:
            break
    return seen


async def test_a_thousand_children_that_end_in_one_transaction_are_all_told(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    await asyncio.gather(*(middle.ledger.enqueue(new_task(f"c{number}")) for number in range(WIDE)))
    watchers = [
        asyncio.create_task(follow(middle.reader.follow_children(action_id()), WIDE)),
        asyncio.create_task(follow(middle.reader.follow_run(run_id()), WIDE + 1)),
    ]
    await asyncio.sleep(0.05)
    told: list[Action] = []
    middle.ledger.listen(told.append)
    await middle.ledger.abort_run(run_id(), "enough")
    async with asyncio.timeout(20):
        children, all_of_them = await asyncio.gather(*watchers)
    assert len(children) == WIDE
    assert len(all_of_them) == WIDE + 1
    assert set(children.values()) == {Phase.ABORTED}
    assert len(told) == WIDE + 1
    assert len({action.revision for action in told}) == 1


async def test_a_deep_tree_ends_in_one_transaction(middle: Middle) -> None:
    await middle.ledger.create_run(new_run())
    parent = "a0"
    for number in range(DEEP):
        await middle.ledger.enqueue(new_task(f"c{number}", parent=parent))
        parent = f"c{number}"
    await middle.ledger.abort_run(run_id(), "enough")
    assert await middle.reader.live() == []
    deepest = await middle.action(action_id(parent))
    assert (deepest.phase, deepest.reason) == (Phase.ABORTED, "parent ended")
    assert (await middle.attempts(deepest.id))[0].phase is Phase.ABORTED
