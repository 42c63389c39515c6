"""The tables. Times are UTC text with microseconds, so that they read well in `sqlite3` and sort as they are.

A proto is kept as bytes beside the columns that are queried. Rows that watchers follow carry the `revision` of the
transaction that wrote them last (DESIGN.md §4.3).
"""

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData()


class UtcTime(TypeDecorator[datetime]):
    """A moment, as `2026-11-23T09:31:44.123456Z`."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> str | None:
        return _text_of(value)

    def bind_processor(self, _dialect: Dialect) -> Callable[[datetime | None], str | None]:
        """The same, without the detours that every action and a list of many rows would feel."""
        return _text_of

    def process_result_value(self, value: str | None, _dialect: Dialect) -> datetime | None:
        return _moment(value)

    def result_processor(self, _dialect: Dialect, _kind: object) -> Callable[[str | None], datetime | None]:
        return _moment


def _text_of(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is UTC:  # most are
        return value.isoformat(timespec="microseconds")[:-6] + "Z"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _text(name: str, *, key: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, primary_key=key, nullable=False, server_default=None if key else "")


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _time(name: str, *, nullable: bool = True) -> "sa.Column[datetime]":
    return sa.Column(name, UtcTime, nullable=nullable)


def _bytes(name: str) -> "sa.Column[bytes]":
    return sa.Column(name, sa.LargeBinary, nullable=True)


projects = sa.Table(
    "projects",
    metadata,
    _text("id", key=True),
    _text("name"),
    _text("description"),
    sa.Column("labels", sa.JSON, nullable=False),
    _number("state"),
    _text("org"),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("name", key=True),
    _text("org"),
    _text("phase"),
    _text("task_name"),
    _text("task_version"),
    _text("input_uri"),
    _text("base_uri"),
    _number("source"),
    _text("relation"),
    _text("related_to"),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("ended_at"),
    _text("digest"),
    _bytes("run_spec"),
    _number("revision"),
    _time("updated_at"),
    sa.Column("duration_ms", sa.Integer, nullable=True),
    sa.Column("labels", sa.JSON(none_as_null=True), nullable=True),
    _bytes("created_by"),
    _text("created_by_subject"),
    sa.Index("runs_newest", "project", "domain", "created_at", "name"),
    sa.Index("runs_by_time", "created_at", "name"),
    sa.Index("runs_by_phase", "project", "domain", "phase", "created_at", "name"),
    sa.Index("runs_by_task", "project", "domain", "task_name", "created_at", "name"),
    sa.Index("runs_by_version", "project", "domain", "task_name", "task_version", "created_at", "name"),
    sa.Index("runs_by_user", "project", "domain", "created_by_subject", "created_at", "name"),
    sa.Index("runs_by_revision", "revision"),
    sa.Column("kept_bytes", sa.Integer, nullable=True),
    sa.Index("runs_by_end", "ended_at", sqlite_where=sa.text("ended_at IS NOT NULL")),
)

actions = sa.Table(
    "actions",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("run", key=True),
    _text("name", key=True),
    _text("org"),
    _text("parent"),
    sa.Column("group", sa.Text, nullable=False, server_default=""),
    _text("kind"),
    _text("phase"),
    _text("state"),
    _number("attempt"),
    _number("user_failures"),
    _number("system_failures"),
    _text("task_project"),
    _text("task_domain"),
    _text("task_name"),
    _text("task_version"),
    _text("task_type"),
    _text("short_name"),
    _text("environment"),
    _text("function"),
    _text("spec_digest"),
    _bytes("spec"),
    _text("input_uri"),
    _text("base_uri"),
    _text("cache_key"),
    _text("output_uri"),
    _text("reason"),
    _text("error_kind"),
    _text("error_code"),
    _text("error_message"),
    sa.Column("error_recoverable", sa.Boolean, nullable=False, server_default="0"),
    _bytes("value"),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("ended_at"),
    _time("not_before"),
    _number("attempt_revision"),
    _number("revision"),
    _text("resource_name"),
    _text("resource_uid"),
    _number("cache_status"),
    _time("updated_at"),
    _bytes("signalled_by"),
    sa.Column("elsewhere", sa.Boolean, nullable=False, server_default="0"),
    sa.Index("actions_by_parent", "project", "domain", "run", "parent", "revision", "name"),
    sa.Index("actions_by_revision", "project", "domain", "run", "revision", "name"),
    sa.Index("actions_live", "phase", sqlite_where=sa.text("ended_at IS NULL")),
    sa.Index("actions_newest_revision", "revision"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("run", key=True),
    _text("action", key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, nullable=False),
    _text("phase"),
    _time("created_at", nullable=False),
    _time("started_at"),
    _time("ended_at"),
    _text("output_uri"),
    _text("report_uri"),
    _text("error_kind"),
    _text("error_code"),
    _text("error_message"),
    sa.Column("error_recoverable", sa.Boolean, nullable=False, server_default="0"),
    sa.Column("cpu_seconds", sa.Float, nullable=True),
    sa.Column("peak_memory", sa.Integer, nullable=True),
    sa.Column("logs_available", sa.Boolean, nullable=False, server_default="0"),
    sa.Column("transitions", sa.JSON, nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("place", sa.JSON(none_as_null=True), nullable=True),
    _number("cache_status"),
    sa.Column("cache_source", sa.JSON(none_as_null=True), nullable=True),
    _bytes("told"),
)

task_specs = sa.Table(
    "task_specs",
    metadata,
    _text("digest", key=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
)

tasks = sa.Table(
    "tasks",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("name", key=True),
    _text("version", key=True),
    _text("org"),
    _text("short_name"),
    _text("environment"),
    _text("description"),
    sa.Column("entrypoint", sa.Boolean, nullable=False, server_default="0"),
    _text("spec_digest"),
    _time("created_at", nullable=False),
    _bytes("deployed_by"),
    _text("deployed_by_subject"),
    _text("environment_description"),
    sa.Index("tasks_newest", "project", "domain", "name", "created_at"),
)

secrets = sa.Table(
    "secrets",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("name", key=True),
    _text("org"),
    _number("type"),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
)

cache_entries = sa.Table(
    "cache_entries",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("key", key=True),
    _text("output_uri"),
    _text("run"),
    _text("action"),
    _number("attempt"),
    _bytes("literals"),
    _bytes("metadata"),
    _time("created_at", nullable=False),
    _time("updated_at", nullable=False),
    sa.Index("cache_entries_by_run", "project", "domain", "run"),
)

cache_reservations = sa.Table(
    "cache_reservations",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("key", key=True),
    _text("owner"),
    _text("run"),
    _text("action"),
    sa.Column("heartbeat", sa.Float, nullable=False),
    _time("expires_at", nullable=False),
)

run_references = sa.Table(  # what of the store runs that have ended refer to, beside their own folders
    "run_references",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("run", key=True),
    _text("target", key=True),
    sa.Index("run_references_by_target", "target"),
)

prunings = sa.Table(  # runs that are being deleted
    "prunings",
    metadata,
    _text("project", key=True),
    _text("domain", key=True),
    _text("run", key=True),
    _text("base_uri"),
)

instance = sa.Table(
    "instance",
    metadata,
    _text("id", key=True),
    _time("created_at", nullable=False),
)
