"""What the settings say of how long finished runs stay."""

from collections.abc import Sequence

from flyte_manager.config import Settings
from flyte_manager.domain.ports import Clock, Trees
from flyte_manager.domain.retention import Bounds
from flyte_manager.executor.retention import Retention
from flyte_manager.executor.sweeper import Sweeper
from flyte_manager.ledger.retention import Retained
from flyte_manager.store.engine import Database
from flyte_manager.worlds import Middle, Parts


def retention_of(
    settings: Settings, database: Database, *, stores: Sequence[Trees], attempts: Trees | None, clock: Clock
) -> Retention:
    return Retention(
        retained=Retained(database),
        stores=stores,
        attempts=attempts,
        domains=[each for each, _ in settings.runs.domains],
        clock=clock,
    )


def sweeper_of(settings: Settings, middle: Middle, parts: Parts) -> Sweeper | None:
    """None where all runs stay."""
    kept = settings.retention
    if not kept.max_age and not kept.max_size:
        return None
    retention = retention_of(
        settings, middle.database, stores=parts.stores, attempts=parts.attempts, clock=middle.clock
    )
    bounds = Bounds(kept.max_age or None, kept.max_size or None, cached=kept.forget_cached)
    return Sweeper(retention, bounds, every=kept.every, may_work=parts.may_work)
