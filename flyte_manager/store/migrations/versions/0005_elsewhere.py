"""Actions that another executor runs, what it tells of their attempts; and what retention knows of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("actions", sa.Column("elsewhere", sa.Boolean(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("told", sa.LargeBinary(), nullable=True))
    op.add_column("runs", sa.Column("kept_bytes", sa.Integer(), nullable=True))
    op.create_index("runs_by_end", "runs", ["ended_at"], sqlite_where=sa.text("ended_at IS NOT NULL"))
    keys = ("project", "domain", "run")
    op.create_table(
        "run_references",
        *(sa.Column(name, sa.Text(), nullable=False, primary_key=True) for name in (*keys, "target")),
    )
    op.create_index("run_references_by_target", "run_references", ["target"])
    op.create_table(
        "prunings",
        *(sa.Column(name, sa.Text(), nullable=False, primary_key=True) for name in keys),
        sa.Column("base_uri", sa.Text(), server_default="", nullable=False),
    )


def downgrade() -> None:
    raise RuntimeError("the schema only goes forward: put a backup in place instead")
