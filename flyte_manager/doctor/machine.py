"""The checks of this machine: settings, ports, files, and how tasks start as processes. They change nothing."""

import fcntl
import os
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flyte_manager.banner import is_loopback
from flyte_manager.config import Address, EmbeddedSettings, Settings
from flyte_manager.doctor.findings import Finding
from flyte_manager.domain.errors import Refusal
from flyte_manager.processes.environment import Interpreter, check_system
from flyte_manager.rpc.holder import port_holder
from flyte_manager.rpc.server import Listener, bind, close_all
from flyte_manager.rpc.tls import load_identity

LOW_DISK = 1 << 30
SOON = timedelta(days=14)
OLDEST_SQLITE = (3, 35, 0)
"""the first with RETURNING"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the doctor asks of the world beside the settings."""

    platform: str
    """as sys.platform"""
    python: str
    """version of the manager's own"""
    sqlite: tuple[int, int, int]
    find_interpreter: Callable[[], Interpreter]
    """finds the Python of the tasks; raises a Refusal"""
    try_warm_start: Callable[[Interpreter], str]
    """runs a no-op task through the warm start; "" when it worked, else why not; raises a Refusal"""


def examine(settings: Settings, config_file: Path | None, machine: Machine) -> Iterator[Finding]:
    """What every start needs: all findings, one by one, as the checks run."""
    database = settings.database.sqlite.file
    own = serving_pid(database)
    yield check_system_of(machine)
    yield check_sqlite(machine.sqlite)
    yield from check_config(settings, config_file)
    yield from check_tls(settings)
    yield from check_ports(settings, own)
    yield check_database(database, own)
    yield check_data_dir(settings.data_dir)
    yield from check_leftovers(settings.data_dir)


def check_system_of(machine: Machine) -> Finding:
    try:
        check_system(machine.platform)
    except Refusal as refusal:
        return Finding("system", "bad", str(refusal))
    return Finding("system", "ok", f"Linux, Python {machine.python}")


def check_sqlite(version: tuple[int, int, int]) -> Finding:
    text = ".".join(map(str, version))
    if version < OLDEST_SQLITE:
        return Finding("sqlite", "bad", f"SQLite {text} is too old: use a Python that brings SQLite 3.35 or newer")
    return Finding("sqlite", "ok", f"SQLite {text}")


def check_config(settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    given = sum(origin != "default" for origin in settings.origins.values())
    source = f"{config_file}" if config_file else "no file"
    yield Finding("config", "ok", f"{source}, {given} of {len(settings.origins)} keys set; all are valid")
    for host in dict.fromkeys((settings.manager.runs_service.host, settings.manager.queue_service.host)):
        if not is_loopback(host):
            text = f"listens on {host}: whoever reaches it can run code here; use localhost unless you mean that"
            yield Finding("config", "warn", text)


def check_tls(settings: Settings) -> Iterator[Finding]:
    try:
        identity = load_identity(settings.server.tls.certificate, settings.server.tls.key)
    except Refusal as refusal:
        yield Finding("https", "bad", str(refusal))
        return
    if identity is None:
        return
    left = identity.until - datetime.now(UTC)
    text = f"certificate for {', '.join(identity.names) or 'no name at all'}, until {identity.until:%Y-%m-%d}"
    if left < SOON:
        cure = "renew it and start the manager again"
        yield Finding("https", "warn", f"{text}, which {'has passed' if left < timedelta() else 'is soon'}: {cure}")
    elif not identity.names:
        yield Finding("https", "warn", f"{text}: clients will refuse it; issue one with subjectAltName")
    elif identity.authority:
        cure = "the SDK will refuse it; docs/configuration.md has the command that makes one for a server"
        yield Finding("https", "warn", f"{text}, marked as an authority's (CA:TRUE): {cure}")
    else:
        yield Finding("https", "ok", text)


def check_ports(settings: Settings, own: int | None) -> Iterator[Finding]:
    """`own`: pid of the manager that serves this database now."""
    manager = settings.manager
    health = Address(manager.runs_service.host, manager.executor.health_probe_port)
    for name, address, key in (
        ("API port", manager.runs_service, "manager.runsService.port"),
        ("queue port", manager.queue_service, "manager.queueService.port"),
        ("health port", health, "manager.executor.healthProbePort"),
    ):
        yield check_port(name, address, key=key, own=own)


def check_port(name: str, address: Address, *, key: str, own: int | None) -> Finding:
    holder = port_holder(address.port) if own is not None and address.port else None
    if holder is not None and holder.startswith(f"pid {own},"):
        return Finding(name, "ok", f"{address.host}:{address.port} is held by the running manager, pid {own}")
    try:
        close_all(bind(Listener(name, address.host, address.port, _nobody, key)))
    except Refusal as refusal:
        return Finding(name, "bad", str(refusal))
    return Finding(name, "ok", f"{address.host}:{address.port} is free" if address.port else "any free port")


async def _nobody(_scope: Any, _receive: Any, _send: Any) -> None:
    """The port is closed again before anybody can call."""


def serving_pid(database: Path) -> int | None:
    """The pid of the manager that serves the database now; 0 when it doesn't tell."""
    try:
        descriptor = os.open(f"{database.resolve()}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


def check_database(file: Path, own: int | None) -> Finding:
    where = file.absolute()
    if not where.parent.is_dir():
        return Finding(
            "database", "bad", f"the folder {where.parent} does not exist: make it, or set database.sqlite.file"
        )
    if not os.access(where.parent, os.W_OK | os.X_OK):
        return Finding("database", "bad", f"the folder {where.parent} may not be written: let this user write to it")
    if not where.exists():
        return Finding("database", "ok", f"{where} will be made")
    if not os.access(where, os.R_OK | os.W_OK):
        return Finding("database", "bad", f"{where} may not be read and written: let this user do both")
    try:
        with closing(sqlite3.connect(f"{where.as_uri()}?mode=rw", uri=True, timeout=2)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        return Finding("database", "bad", f"{where}: {error}: move the file away, or set database.sqlite.file")
    if verdict != "ok":
        return Finding("database", "bad", f"{where} is damaged ({verdict}): put a backup in its place")
    if tables and "alembic_version" not in tables:
        return Finding(
            "database", "bad", f"{where} was not made by this manager: move it away, or set database.sqlite.file"
        )
    served = "" if own is None else f", served by the running manager, pid {own or 'unknown'}"
    return Finding("database", "ok", f"{where}, {where.stat().st_size / 1e6:.1f} MB, sound{served}")


def check_data_dir(folder: Path) -> Finding:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        return Finding("data", "bad", f"{existing} is not a folder: move it away, or set dataDir")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("data", "bad", f"{existing} may not be written: let this user write to it, or set dataDir")
    free = shutil.disk_usage(existing).free
    if free < LOW_DISK:
        return Finding(
            "data", "warn", f"{folder} has only {free / 1e6:.0f} MB left on its disk: free some, or set dataDir"
        )
    made = "" if existing == folder.absolute() else " will be made"
    return Finding("data", "ok", f"{folder}{made}, {free / 1e9:.0f} GB free")


def check_leftovers(data_dir: Path) -> Iterator[Finding]:
    """The folders in the data directory whose database is gone."""
    for name in sorted(data_dir.glob("*/database")):
        try:
            database = name.read_text().strip()
        except (OSError, ValueError):
            yield Finding("leftovers", "warn", f"{name} can't be read: look after its permissions")
            continue
        if not Path(database).exists():
            cure = "delete the folder if you don't miss it"
            yield Finding(
                "leftovers", "warn", f"{name.parent} belongs to the database {database}, which is gone: {cure}"
            )


def check_tasks(embedded: EmbeddedSettings, machine: Machine) -> Iterator[Finding]:
    """Where they run as processes: their Python, its SDK, and how they start."""
    try:
        found = machine.find_interpreter()
    except Refusal as refusal:
        yield Finding("tasks", "bad", str(refusal))
        return
    if found.sdk_version is None:
        cure = f"run `{shlex.quote(str(found.python))} -m pip install flyte`, or set embedded.python"
        yield Finding("tasks", "bad", f"{found.python} ({found.source}) has no Flyte SDK: {cure}")
        return
    yield Finding("tasks", "ok", f"{found.python} ({found.source}), flyte {found.sdk_version}")
    yield check_start(embedded, found, machine)


def check_start(embedded: EmbeddedSettings, interpreter: Interpreter, machine: Machine) -> Finding:
    if not embedded.warm:
        return Finding("warm start", "ok", "off, because embedded.warm is false")
    try:
        problem = machine.try_warm_start(interpreter)
    except Refusal as refusal:
        return Finding("warm start", "bad", str(refusal))
    if problem:
        cure = (
            "they run, but each imports the SDK anew; use an SDK that this manager knows, or set embedded.warm to false"
        )
        return Finding("warm start", "warn", f"tasks start cold ({problem}): {cure}")
    return Finding("warm start", "ok", "works: a task that does nothing has run")
