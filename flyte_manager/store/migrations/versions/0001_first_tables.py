"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _projects()
    _runs()
    _actions()
    _attempts()
    _task_specs()
    _tasks()
    _secrets()
    _instance()


def downgrade() -> None:
    raise RuntimeError("the schema only goes forward: put a backup in place instead")


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("state", sa.Integer(), server_default="0", nullable=False),
        sa.Column("org", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), server_default="", nullable=False),
        sa.Column("phase", sa.Text(), server_default="", nullable=False),
        sa.Column("task_name", sa.Text(), server_default="", nullable=False),
        sa.Column("task_version", sa.Text(), server_default="", nullable=False),
        sa.Column("input_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("base_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("source", sa.Integer(), server_default="0", nullable=False),
        sa.Column("relation", sa.Text(), server_default="", nullable=False),
        sa.Column("related_to", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), server_default="", nullable=False),
        sa.Column("run_spec", sa.LargeBinary(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "name"),
    )
    op.create_index("runs_by_revision", "runs", ["revision"])
    op.create_index("runs_by_task", "runs", ["project", "domain", "task_name", "created_at"])
    op.create_index("runs_newest", "runs", ["project", "domain", "created_at", "name"])


def _actions() -> None:
    op.create_table(
        "actions",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), server_default="", nullable=False),
        sa.Column("parent", sa.Text(), server_default="", nullable=False),
        sa.Column("group", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("phase", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("user_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("system_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("task_project", sa.Text(), server_default="", nullable=False),
        sa.Column("task_domain", sa.Text(), server_default="", nullable=False),
        sa.Column("task_name", sa.Text(), server_default="", nullable=False),
        sa.Column("task_version", sa.Text(), server_default="", nullable=False),
        sa.Column("task_type", sa.Text(), server_default="", nullable=False),
        sa.Column("short_name", sa.Text(), server_default="", nullable=False),
        sa.Column("environment", sa.Text(), server_default="", nullable=False),
        sa.Column("function", sa.Text(), server_default="", nullable=False),
        sa.Column("spec_digest", sa.Text(), server_default="", nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=True),
        sa.Column("input_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("base_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("cache_key", sa.Text(), server_default="", nullable=False),
        sa.Column("output_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("error_kind", sa.Text(), server_default="", nullable=False),
        sa.Column("error_code", sa.Text(), server_default="", nullable=False),
        sa.Column("error_message", sa.Text(), server_default="", nullable=False),
        sa.Column("error_recoverable", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.Column("not_before", sa.Text(), nullable=True),
        sa.Column("attempt_revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "run", "name"),
    )
    op.create_index("actions_by_parent", "actions", ["project", "domain", "run", "parent", "revision", "name"])
    op.create_index("actions_by_revision", "actions", ["project", "domain", "run", "revision", "name"])
    op.create_index("actions_live", "actions", ["phase"], sqlite_where=sa.text("ended_at IS NULL"))
    op.create_index("actions_newest_revision", "actions", ["revision"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.Column("output_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("report_uri", sa.Text(), server_default="", nullable=False),
        sa.Column("error_kind", sa.Text(), server_default="", nullable=False),
        sa.Column("error_code", sa.Text(), server_default="", nullable=False),
        sa.Column("error_message", sa.Text(), server_default="", nullable=False),
        sa.Column("error_recoverable", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("cpu_seconds", sa.Float(), nullable=True),
        sa.Column("peak_memory", sa.Integer(), nullable=True),
        sa.Column("logs_available", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("transitions", sa.JSON(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "run", "action", "attempt"),
    )


def _task_specs() -> None:
    op.create_table(
        "task_specs",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), server_default="", nullable=False),
        sa.Column("short_name", sa.Text(), server_default="", nullable=False),
        sa.Column("environment", sa.Text(), server_default="", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("entrypoint", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("spec_digest", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "name", "version"),
    )
    op.create_index("tasks_newest", "tasks", ["project", "domain", "name", "created_at"])


def _secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), server_default="", nullable=False),
        sa.Column("type", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "name"),
    )


def _instance() -> None:
    op.create_table(
        "instance",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
