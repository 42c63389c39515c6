"""Runs of a user are found without passing those of others."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("runs_by_user", "runs", ["project", "domain", "created_by_subject", "created_at", "name"])


def downgrade() -> None:
    raise RuntimeError("the schema only goes forward: put a backup in place instead")
