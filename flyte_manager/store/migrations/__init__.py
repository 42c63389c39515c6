"""The history of the schema, one file a step in versions/. Steps are never edited once released.

A new step: change `store/tables.py`, write `versions/<next>_<what>.py` like the others (script.py.mako is its shape),
add its name to `upgrade.REVISIONS`; a test compares the migrated schema with the tables.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def configuration() -> Config:
    """Alembic's settings; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def run(connection: sa.Connection, revision: str = "head") -> None:
    """Brings the schema to this revision inside the transaction that the caller has begun."""
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
