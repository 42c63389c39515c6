"""Rows of what lives, as the writer read or wrote them last: most of its decisions need no query.

They belong to one connection, whose transactions come one after the other. A transaction that is rolled back empties
them, and so does one that finds that another connection has written.
"""

from collections.abc import Hashable
from typing import Any

MOST = 10_000


class Known(dict[Hashable, Any]):
    """Rows by their ids in the domain, as the transaction sees them that has it."""

    def keep(self, key: Hashable, row: object, *, live: bool) -> None:
        """The oldest goes where there are too many."""
        if not live:
            self.pop(key, None)
            return
        self[key] = row
        if len(self) > MOST:
            del self[next(iter(self))]
