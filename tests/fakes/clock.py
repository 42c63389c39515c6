"""A clock that stands still until it is moved."""

from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


class FakeClock:
    """Implements ports.Clock."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
