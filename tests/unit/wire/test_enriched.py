"""What a watcher of a run costs the manager."""

import tracemalloc
from datetime import UTC, datetime

from flyte_manager.domain.actions import Action
from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.shown import ShownAction
from flyte_manager.wire.enriched import Enriched

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
RUN = RunId("flytesnacks", "development", "run1")
ACTIONS = 1000


def test_an_action_that_was_told_is_kept_in_a_few_hundred_bytes() -> None:
    tracemalloc.start()
    try:
        watcher = Enriched([])
        for number in range(ACTIONS):
            name = f"action{number}"
            action = Action(ActionId(RUN, name), Kind.TRACE, Phase.RUNNING, NOW, parent="a0", spec=bytes(5000))
            told = watcher.take([ShownAction.of(action)])
            assert [each.action.id.name for each in told.enriched_actions] == [name]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / ACTIONS < 1000
