"""What the settings say of how long finished runs stay."""

import os
from pathlib import Path

from flyte_manager.blobs.folders import Folders
from flyte_manager.config import Settings
from flyte_manager.domain.ports import Clock, Trees
from flyte_manager.domain.retention import Bounds
from flyte_manager.executor.retention import Retention
from flyte_manager.executor.sweeper import Sweeper
from flyte_manager.ledger.retention import Retained
from flyte_manager.store.engine import Database
from flyte_manager.worlds import Middle, Parts


def retention_of(
    settings: Settings, database: Database, *, folder: Path, objects: Trees | None, clock: Clock
) -> Retention:
    """`folder`: of the database's instance. A manager of pods may have had processes before: it takes theirs, too."""
    blobs = Folders(os.path.realpath(folder / "blobs"))
    return Retention(
        retained=Retained(database),
        stores=[blobs] if objects is None else [blobs, objects],
        attempts=Folders(str(folder / "attempts")),
        domains=[each for each, _ in settings.runs.domains],
        clock=clock,
    )


def sweeper_of(settings: Settings, middle: Middle, parts: Parts) -> Sweeper | None:
    """None where all runs stay."""
    kept = settings.retention
    if not kept.max_age and not kept.max_size:
        return None
    retention = retention_of(settings, middle.database, folder=middle.folder, objects=parts.objects, clock=middle.clock)
    bounds = Bounds(kept.max_age or None, kept.max_size or None, cached=kept.forget_cached)
    return Sweeper(retention, bounds, every=kept.every, may_work=parts.may_work)
