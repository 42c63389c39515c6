"""Name and uid of the TaskAction that was made for an action; where each attempt runs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("resource_name", "resource_uid"):
        op.add_column("actions", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.add_column("attempts", sa.Column("place", sa.JSON(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("the schema only goes forward: put a backup in place instead")
