"""The command `flyte-manager`: reads the settings, then starts the manager, shows them, or examines the machine.

Exit codes: 0 done, 1 it didn't work, 2 the command or a setting is wrong. Errors are one line on stderr.
"""

import signal
import sys

if sys.platform == "win32":
    raise SystemExit("flyte-manager: Windows can't run tasks as local processes: use WSL2")
else:
    # The imports below take a second: Ctrl-C then ends the command as it ends any other, without a trace.
    _usual_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import os
import platform
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from flyte_manager import __version__, app
from flyte_manager.config import KEYS, ConfigError, Settings, find_file, load, unknown_key
from flyte_manager.doctor.findings import Finding, report, verdict
from flyte_manager.doctor.machine import Machine, check_tasks, examine, serving_pid
from flyte_manager.domain.errors import Refusal
from flyte_manager.kubernetes import crd
from flyte_manager.processes.environment import Interpreter, check_system, find_interpreter, listed_environment
from flyte_manager.processes.runtime import Processes
from flyte_manager.telemetry import hush, open_streams, set_up_logging
from flyte_manager.worlds import may_be_pods

signal.signal(signal.SIGINT, _usual_interrupt)

EXAMPLES = """\
examples:
  flyte-manager                                      start with ./config.yaml, if there is one
  flyte-manager --config my.yaml --logger.level=5    start with another file, and say more
  flyte-manager --manager.runsService.port=9090      start on another port
  flyte-manager config show                          every setting and where it comes from
  flyte-manager doctor                               what is wrong on this machine, and what to do
  flyte-manager prune --older-than 30d --dry-run     which finished runs would go
  flyte-manager crd | kubectl apply -f -             let a cluster know TaskActions

A setting is taken from the command line, else from the environment (manager.runsService.port is
FLYTE_MANAGER__MANAGER__RUNSSERVICE__PORT), else from the file, else its default. docs/configuration.md tells more.
"""

COMMANDS = {
    "config show": "show each setting, its value, and where it comes from",
    "crd": "print the custom resource definition that a cluster needs",
    "doctor": "check what a start needs, and say what to do",
    "prune": "delete finished runs, with their logs and data: --older-than 30d, --keep-size 10GiB, --dry-run",
    "version": "show the versions of the manager, its SDK and Python",
}


INTERRUPTED = 128 + signal.SIGINT
"""the exit code that a shell gives to what Ctrl-C has ended"""

PRUNE_FLAGS = {
    "--dry-run": "dry_run",
    "--older-than": "older_than",
    "--keep-size": "keep_size",
    "--forget-cached": "forget_cached",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: `flyte-manager --help` tells what there is")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    open_streams()
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as of `flyte-manager config show | head -1`
        hush()
        return 1
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        _refuse_unknown_flags(arguments)
        given = vars(_parser().parse_intermixed_args(arguments))
        command = " ".join(given.pop("command", ()))
        if command and command not in COMMANDS:
            raise ConfigError(f"unknown command {command!r}: use {', '.join(COMMANDS)}, or none to start the manager")
        if command == "version" or given.pop("version", False):
            return _version()
        if command == "crd":
            print(crd.manifest(), end="")
            return 0
        config_file = find_file(given.pop("config", None), Path())
        asked = {name: given.pop(name) for name in PRUNE_FLAGS.values() if name in given}
        if asked and command != "prune":
            raise ConfigError(f"{', '.join(PRUNE_FLAGS)} are for the command prune")
        settings = load(given, os.environ, config_file)
        if command == "prune":
            return _prune(settings, asked)
    except ConfigError as error:
        return _fail(str(error), 2)
    if command == "config show":
        return _show(settings)
    if command == "doctor":
        return _examine(settings, config_file)
    return _start(settings)


def _start(settings: Settings) -> int:
    set_up_logging(settings.logger.level, show_source=settings.logger.show_source)
    try:
        check_system()
        return app.serve(settings)
    except Refusal as refusal:
        return _fail(str(refusal), 1)


def _prune(settings: Settings, asked: dict[str, object]) -> int:
    """Raises ConfigError."""
    prune = import_module("flyte_manager.prune")  # imports the object store's client, which takes a while
    bounds = prune.bounds_of(settings, asked)
    set_up_logging(settings.logger.level, show_source=settings.logger.show_source)
    try:
        return int(prune.prune(settings, bounds, dry="dry_run" in asked))
    except (Refusal, OSError) as error:
        return _fail(str(error), 1)


def _show(settings: Settings) -> int:
    width = max(len(key.name) for key in KEYS)
    values = {key.name: _as_text(settings.value(key.name), secret=key.kind.secret) for key in KEYS}
    value_width = max(map(len, values.values()))
    for name, value in values.items():
        print(f"{name:<{width}}  {value:<{value_width}}  {settings.origins[name]}")
    return 0


def _as_text(value: object, *, secret: bool = False) -> str:
    if secret and value:
        return "(hidden)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else '""'


def _examine(settings: Settings, config_file: Path | None) -> int:
    set_up_logging(0)  # the findings tell it all
    embedded = settings.embedded
    machine = Machine(
        platform=sys.platform,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version_info[:3],
        find_interpreter=lambda: find_interpreter(embedded.python or None, os.environ, Path(sys.executable)),
        try_warm_start=lambda interpreter: asyncio.run(_try_warm_start(interpreter, embedded.pass_env)),
    )
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        print(report(finding), flush=True)
        findings.append(finding)

    for finding in examine(settings, config_file, machine):
        tell(finding)
    if not (may_be_pods(settings, os.environ, Path.home()) and asyncio.run(_examine_pods(settings, tell))):
        for finding in check_tasks(embedded, machine):
            tell(finding)
    print(f"\n{verdict(findings)}")
    return int(any(finding.state == "bad" for finding in findings))


async def _examine_pods(settings: Settings, tell: Callable[[Finding], None]) -> bool:
    """Whether a start would run tasks as pods."""
    # The Kubernetes client takes a while to import: only those pay who may need it.
    pods = import_module("flyte_manager.doctor.pods")
    asking = pods.Asking(
        environ=os.environ,
        home=Path.home(),
        serving=serving_pid(settings.database.sqlite.file) is not None,
        tell=lambda text: print(f"  …     {text}", flush=True),
        clock=lambda: datetime.now(UTC),
    )
    choice = await pods.choose_as_a_start(settings, asking)
    tell(choice.finding)
    async for finding in pods.examine_pods(settings, choice, asking):
        tell(finding)
    return bool(choice.pods)


async def _try_warm_start(interpreter: Interpreter, pass_env: Sequence[str]) -> str:
    """The self-test that each start of the manager makes; "" when it went well, else why not."""
    with tempfile.TemporaryDirectory(prefix="flyte-manager-doctor-") as folder:
        processes = Processes(
            root=Path(folder),
            python=interpreter.python,
            base_env=listed_environment(os.environ, pass_env),
            wake=lambda _: None,
            warm=True,
            clock=lambda: datetime.now(UTC),
        )
        try:
            await processes.start()
            return "" if processes.warm_status == "warm" else processes.warm_status.removeprefix("cold: ")
        finally:
            await processes.stop_serving()


def _version() -> int:
    try:
        sdk = version("flyte")
    except PackageNotFoundError:
        sdk = "none"
    print(f"flyte-manager {__version__} (flyte {sdk}, Python {platform.python_version()}, {platform.system()})")
    return 0


def _fail(message: str, code: int) -> int:
    print(f"flyte-manager: {message}", file=sys.stderr)
    return code


def _refuse_unknown_flags(arguments: Sequence[str]) -> None:
    """Names the nearest key, which argparse can't."""
    known = {key.flag for key in KEYS} | {"--config", "--help", "--version", *PRUNE_FLAGS}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in known:
            raise ConfigError(f"flag {flag}: {unknown_key(flag.removeprefix('--'))}")


def _parser() -> argparse.ArgumentParser:
    usage = "flyte-manager [--config FILE] [--KEY=VALUE …] [config show | crd | doctor | prune | version]"
    commands = "\n".join(f"  {name:<14} {meaning}" for name, meaning in COMMANDS.items())
    parser = _Parser(
        prog="flyte-manager",
        usage=usage,
        description="Starts the backend of Flyte 2: point the SDK at it, and tasks run on this machine.\n\n"
        f"commands (without one, the manager starts):\n{commands}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("command", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="store_true", help="the same as the command version")
    parser.add_argument("--config", metavar="FILE", help="default: ./config.yaml, else /etc/flyte/config/config.yaml")
    group = parser.add_argument_group("prune")
    group.add_argument("--dry-run", action="store_true", help="only tell what would be deleted")
    group.add_argument("--older-than", metavar="TIME", help="runs that ended before that, such as 30d or 12h")
    group.add_argument("--keep-size", metavar="SIZE", help="the oldest runs beyond it, such as 10GiB")
    group.add_argument("--forget-cached", action="store_true", help="also runs whose outputs the cache keeps")
    for section in dict.fromkeys(key.name.partition(".")[0] for key in KEYS):
        group = parser.add_argument_group(section)
        for key in KEYS:
            if key.name.partition(".")[0] == section:
                default = f" ({_as_text(key.default)})" if key.default not in ("", [], {}) else ""
                group.add_argument(key.flag, dest=key.name, metavar="VALUE", help=f"{key.meaning}{default}")
    return parser
