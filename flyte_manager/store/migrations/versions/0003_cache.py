"""Kept outputs of tasks, reservations of their keys, and what the cache did for actions and attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cache_entries",
        *(sa.Column(name, sa.Text(), nullable=False, primary_key=True) for name in ("project", "domain", "key")),
        *_texts("output_uri", "run", "action"),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("literals", sa.LargeBinary(), nullable=True),
        sa.Column("metadata", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
    )
    op.create_index("cache_entries_by_run", "cache_entries", ["project", "domain", "run"])
    op.create_table(
        "cache_reservations",
        *(sa.Column(name, sa.Text(), nullable=False, primary_key=True) for name in ("project", "domain", "key")),
        *_texts("owner", "run", "action"),
        sa.Column("heartbeat", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
    )
    for table in ("actions", "attempts"):
        op.add_column(table, sa.Column("cache_status", sa.Integer(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("cache_source", sa.JSON(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("the schema only goes forward: put a backup in place instead")


def _texts(*names: str) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), server_default="", nullable=False) for name in names]
