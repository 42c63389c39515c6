"""What makes a fork of the zygote a warm start: the SDK imported beforehand, and the child set right after the fork.

`prepare` loads what tasks need (preload.py) and stops the SDK's background thread: a fork would lose it and the child
would hang. `run` is the forked child: it takes over environment, directory, argv and `__main__` as a fresh interpreter
would have them, revives the background thread and calls `a0`. What only counts when an interpreter starts can't be set
again: see `only_counts_at_start`.

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
from importlib.machinery import SourceFileLoader
from typing import Any

from flyte_manager.processes import folder as disk
from flyte_manager.processes import libraries, linux, preload

_ours: list[str] = []
"""names of this package's modules; to look for them in a fork would touch, and so copy, 500 pages"""
_AT_START = ("PYTHON", "LD_", "MALLOC_", "SSL_CERT_", "GLIBC_TUNABLES", "OPENSSL_")
_AT_IMPORT = ("FLYTE_IO_", "FLYTE_UPLOAD_TIMEOUT", "FSSPEC_CONFIG_DIR", "OTEL_", "_F_P_WRITE_CHUNK_SIZE", "_F_TE_MAX_")


def only_counts_at_start(name: str) -> bool:
    """Whether interpreter, libraries or SDK read the variable only while they start: a fork would be too late."""
    return name.startswith(_AT_START + _AT_IMPORT)


def prepare() -> None:
    """Leaves this process with everything imported and exactly one thread. Raises what the imports raise."""
    preload.load()
    background = _background()
    background.stop()
    background.loop.close()
    _ours.extend(name for name in sys.modules if name.partition(".")[0] == "flyte_manager")
    gc.collect()
    gc.freeze()
    linux.use_huge_pages()


def _background() -> Any:
    return importlib.import_module("flyte.syncify").syncify._bg_loop


def run(order: disk.Order) -> int:
    """Runs a0 in this forked process; returns its exit code when all that it left behind is done."""
    try:
        _become_fresh(order)
        before = libraries.before_task()
        code = _call(importlib.import_module("flyte._bin.runtime").main)
        if order.learns:
            libraries.write_down(order, before)
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
    _keep_no_bytecode(os.getcwd())
    script = os.path.join(os.path.dirname(sys.executable), "a0")
    sys.argv = [script, *order.argv[1:]]
    sys.path.insert(0, os.path.dirname(script))
    sys.modules["__main__"] = types.ModuleType("__main__")  # else multiprocessing's spawn would run the zygote again
    for name in _ours:
        sys.modules.pop(name, None)  # the task may have another one
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    tempfile.tempdir = None
    config = importlib.import_module("fsspec.config")
    config.set_conf_env(config.conf)
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    _set_log_levels()
    libraries.start_afresh()
    gc.enable()
    background = _background()
    background.loop = asyncio.new_event_loop()
    background.thread = threading.Thread(name=background.thread.name, target=background._run, daemon=True)
    background.thread.start()


def _keep_no_bytecode(folder: str) -> None:
    """What is compiled there serves this attempt only: to write it down takes as long as to compile it."""
    kind: Any = SourceFileLoader
    usual = kind.set_data

    def set_data(loader: Any, path: str, data: Any, **more: Any) -> None:
        if not path.startswith(folder + os.sep):
            usual(loader, path, data, **more)

    kind.set_data = set_data


def _set_log_levels() -> None:
    """The SDK read them while it was imported."""
    sdk = importlib.import_module("flyte._logging")
    for name, level in (("flyte", sdk.get_env_log_level()), ("flyte.user", sdk.get_env_user_log_level())):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        for handler in logger.handlers:
            handler.setLevel(level)
