"""Messages that many watchers get: those who were woken together are told one record, one after the other."""

from collections.abc import Callable
from typing import Generic, TypeVar

Message = TypeVar("Message")


class Latest(Generic[Message]):
    """Keeps the message that was made last. Nobody changes a message that was given away."""

    def __init__(self) -> None:
        self._made: tuple[object, Message] | None = None

    def of(self, record: object, make: Callable[[], Message]) -> Message:
        """The record's message: what `make` made of this very record before, if that was the last one."""
        if self._made is None or self._made[0] is not record:
            self._made = record, make()
        return self._made[1]
