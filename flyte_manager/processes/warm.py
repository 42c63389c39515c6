"""What makes a fork of the zygote a warm start: the SDK imported beforehand, and the child set right after the fork.

`prepare` imports what `a0` imports, early and lazily, stops the SDK's background thread (a fork would lose it and the
child would hang) and builds the TLS context that every client would build anew. `run` is the forked child: it takes
over environment, directory, argv and `__main__` as a fresh interpreter would have them, revives the background thread
and calls `a0`. What only counts when an interpreter starts can't be set again: see `only_counts_at_start`.

Standard library and that interpreter's flyte only. The private names of the SDK used here are guarded by the manager's
self-test at start: where they change, tasks start cold.
"""

import asyncio
import atexit
import gc
import importlib
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
import types
from typing import Any

from flyte_manager.processes import folder as disk
from flyte_manager.processes import linux

NEEDED = (
    "flyte",
    "flyte._bin.runtime",
    "flyte._initialize",
    "flyte._internal.controllers.remote",
    "flyte._internal.image_cache",
    "flyte._internal.resolvers.default",
    "flyte._internal.runtime.convert",
    "flyte._internal.runtime.entrypoints",
    "flyte._internal.runtime.io",
    "flyte._internal.runtime.task_serde",
    "flyte._internal.runtime.taskrunner",
    "flyte._logging",
    "flyte.errors",
    "flyte.io",
    "flyte.report",
    "flyte.storage",
    "flyte.syncify",
    "fsspec.config",
)
LAZY = (
    "anyio",
    "certifi",
    "click",
    "cloudpickle",
    "faulthandler",
    "flyte._internal.controllers.remote._client",
    "flyte._utils.asyncify",
    "flyte.git",
    "flyte.remote._client.auth._interceptors.default_metadata",
    "flyte.remote._client.auth._interceptors.retry",
    "flyte.remote._client.controlplane",
    "flyte.types._type_engine",
    "fsspec.implementations.local",
    "h2.connection",
    "httpcore",
    "httpx",
    "importlib.resources.readers",
    "opentelemetry.metrics",
    "opentelemetry.propagate",
    "opentelemetry.trace",
    "pyqwest",
    "pyqwest._glue",
)
"""Imported by a0 while it runs, differently from version to version: one that is missing only costs time."""

_AT_START = ("PYTHON", "LD_", "MALLOC_", "SSL_CERT_", "GLIBC_TUNABLES", "OPENSSL_")
_AT_IMPORT = ("FLYTE_IO_", "FLYTE_UPLOAD_TIMEOUT", "FSSPEC_CONFIG_DIR", "OTEL_", "_F_P_WRITE_CHUNK_SIZE", "_F_TE_MAX_")


def only_counts_at_start(name: str) -> bool:
    """Whether interpreter, libraries or SDK read the variable only while they start: a fork would be too late."""
    return name.startswith(_AT_START + _AT_IMPORT)


def prepare() -> None:
    """Leaves this process with everything imported and exactly one thread. Raises what the imports raise."""
    for name in NEEDED:
        importlib.import_module(name)
    for name in LAZY:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    _share_tls_context()
    background = _background()
    background.stop()
    background.loop.close()
    gc.collect()
    gc.freeze()


def _background() -> Any:
    return importlib.import_module("flyte.syncify").syncify._bg_loop


def _share_tls_context() -> None:
    """Reading the certificates takes longer than the rest of a short task."""
    try:
        config: Any = importlib.import_module("httpx._config")
        transport: Any = importlib.import_module("httpx._transports.default")
        build = config.create_ssl_context
        shared = build()
    except (ImportError, AttributeError):
        return

    def create_ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        return shared if verify is True and cert is None else build(verify, cert, trust_env)

    config.create_ssl_context = transport.create_ssl_context = create_ssl_context


def run(order: disk.Order) -> int:
    """Runs a0 in this forked process; returns its exit code when all that it left behind is done."""
    try:
        _become_fresh(order)
        code = _call(importlib.import_module("flyte._bin.runtime").main)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        return code or 120
    return code


def _call(main: Any) -> int:
    try:
        main(args=sys.argv[1:], prog_name="a0")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def _become_fresh(order: disk.Order) -> None:
    linux.set_name("a0")
    os.environ.clear()
    os.environ.update(order.env)
    time.tzset()
    os.chdir(os.path.join(order.folder, disk.WORK))
    script = os.path.join(os.path.dirname(sys.executable), "a0")
    sys.argv = [script, *order.argv[1:]]
    sys.path.insert(0, os.path.dirname(script))
    sys.modules["__main__"] = types.ModuleType("__main__")  # else multiprocessing's spawn would run the zygote again
    for name in [name for name in sys.modules if name.partition(".")[0] == "flyte_manager"]:
        del sys.modules[name]  # the task may have another one
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    tempfile.tempdir = None
    config = importlib.import_module("fsspec.config")
    config.set_conf_env(config.conf)
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    _set_log_levels()
    gc.enable()
    background = _background()
    background.loop = asyncio.new_event_loop()
    background.thread = threading.Thread(name=background.thread.name, target=background._run, daemon=True)
    background.thread.start()


def _set_log_levels() -> None:
    """The SDK read them while it was imported."""
    sdk = importlib.import_module("flyte._logging")
    for name, level in (("flyte", sdk.get_env_log_level()), ("flyte.user", sdk.get_env_user_log_level())):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        for handler in logger.handlers:
            handler.setLevel(level)
