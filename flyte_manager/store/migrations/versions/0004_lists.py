"""What lists show and filter by: who made runs and deployed tasks, when rows changed, labels; and indexes for lists."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("runs", "actions"):
        op.add_column(table, sa.Column("updated_at", sa.Text(), nullable=True))
        op.execute(f"UPDATE {table} SET updated_at = coalesce(ended_at, started_at, created_at)")
    op.add_column("runs", sa.Column("duration_ms", sa.Integer(), nullable=True))
    op.execute(_DURATIONS)
    op.add_column("actions", sa.Column("signalled_by", sa.LargeBinary(), nullable=True))
    op.add_column("runs", sa.Column("labels", sa.JSON(), nullable=True))  # of older runs: in run_spec alone
    for table, who in (("runs", "created_by"), ("tasks", "deployed_by")):
        op.add_column(table, sa.Column(who, sa.LargeBinary(), nullable=True))
        op.add_column(table, sa.Column(f"{who}_subject", sa.Text(), server_default="", nullable=False))
    op.add_column("tasks", sa.Column("environment_description", sa.Text(), server_default="", nullable=False))
    op.create_index("runs_by_time", "runs", ["created_at", "name"])
    op.create_index("runs_by_phase", "runs", ["project", "domain", "phase", "created_at", "name"])
    by_task = ["project", "domain", "task_name"]
    op.drop_index("runs_by_task", "runs")
    op.create_index("runs_by_task", "runs", [*by_task, "created_at", "name"])
    op.create_index("runs_by_version", "runs", [*by_task, "task_version", "created_at", "name"])


_DURATIONS = """
UPDATE runs SET duration_ms = max(0, (
    (strftime('%s', substr(ended_at, 1, 19)) - strftime('%s', substr(created_at, 1, 19))) * 1000000
    + substr(ended_at, 21, 6) - substr(created_at, 21, 6) + 500) / 1000)
WHERE ended_at IS NOT NULL
"""


def downgrade() -> None:
    raise RuntimeError("the schema only goes forward: put a backup in place instead")
