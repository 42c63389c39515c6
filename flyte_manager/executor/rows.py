"""The rows of live actions as they were last written: most turns of the executor need not ask the database.

What changes a row tells it here, after the commit and before the action's next turn. A row that ended is forgotten when
its turn comes, so that only live ones take memory; resync brings what nobody tells.
"""

from collections.abc import Iterable

from flyte_manager.domain.actions import Action
from flyte_manager.domain.ids import ActionId
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.watch import Reader


class Rows:
    """Gives rows by their action's id."""

    def __init__(self, reader: Reader, ledger: Ledger) -> None:
        self._reader = reader
        self._known: dict[ActionId, Action] = {}
        ledger.listen(self._changed)

    async def get(self, key: ActionId) -> Action:
        """Raises UnknownAction."""
        known = self._known.get(key)
        if known is None:
            read = await self._reader.action(key)
            known = self._known.setdefault(key, read)  # it may have changed meanwhile
        if known.final or not known.operated:
            del self._known[key]
        return known

    async def live(self) -> Iterable[Action]:
        """All that have not ended, oldest first."""
        found = await self._reader.live()
        for action in found:
            known = self._known.get(action.id)
            if known is not None and known.revision <= action.revision:
                self._known[action.id] = action
        return found

    def replace(self, before: Action, after: Action) -> None:
        """What was written of the action without being told. A row that changed meanwhile stays."""
        if after is not before and self._known.get(before.id) is before:
            self._known[before.id] = after

    def _changed(self, action: Action) -> None:
        if not action.operated:  # nobody takes a turn for it
            return
        known = self._known.get(action.id)
        if known is None or known.revision <= action.revision:
            self._known[action.id] = action
