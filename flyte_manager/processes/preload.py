"""What `a0` does in every process though once is enough: done here in the zygote, so that its forks need not.

    import what a0 imports, early and lazily | read the certificates | ask all packages whether they are plugins
    declare a task, so that patterns and bytecode are warm

and what it does though it need not be done at all, left out in the forks:

    a client of the backend (two, each with all certificates and threads of its own) before there is something to say
    the controller's thread, before a child is asked for | `git` where no repository is
    a copy of the code bundle, `tar` and `gzip` for a few small files
    pandas, where some folder above the code is called `flyte`

What a task can see stays the same; docs/performance.md has the figures. Standard library and that interpreter's flyte
only. The SDK's private names used here may change with any release: what is missing is skipped, and costs time only.
"""

import asyncio
import importlib
import os
import threading
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flyte_manager.processes import bundles

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
    "docstring_parser",
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
ENOUGH = 8
"""repetitions after which Python specializes bytecode"""


def load() -> None:
    """Raises what the imports raise."""
    for name in NEEDED:
        importlib.import_module(name)
    for name in LAZY:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    for step in (
        _share_tls_context,
        _connect_late,
        _start_controller_late,
        _unpack_small_bundles,
        _ask_git_seldom,
        _find_plugins,
        _seek_declaring_files_once,
        _rehearse,
    ):
        try:
            step()
        except (ImportError, AttributeError, TypeError, ValueError):
            continue  # this release of the SDK has other names


def _share_tls_context() -> None:
    """Reading the certificates takes longer than the rest of a short task."""
    config: Any = importlib.import_module("httpx._config")
    transport: Any = importlib.import_module("httpx._transports.default")
    build = config.create_ssl_context
    shared = build()

    def create_ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        return shared if verify is True and cert is None else build(verify, cert, trust_env)

    config.create_ssl_context = transport.create_ssl_context = create_ssl_context


class _Late:
    """Stands for an object that is made when it is first used."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        made = self.__dict__.get("_made") or self.__dict__.setdefault("_made", self._make())
        return getattr(made, name)


def _connect_late() -> None:
    """Each a0 makes two clients of the backend, and each of them reads all certificates and starts threads; a task
    without children uses neither. One has a client for each service of the backend, too."""
    session: Any = importlib.import_module("flyte.remote._client.auth._session")
    build = session._build_pyqwest_client
    session._build_pyqwest_client = lambda *args: _Late(partial(build, *args))
    clients: Any = importlib.import_module("flyte.remote._client.controlplane").ClientSet
    usual = clients.for_endpoint.__func__

    async def for_endpoint(cls: Any, *args: Any, **named: Any) -> Any:
        return await usual(lambda config: _Late(partial(cls, config)), *args, **named)

    clients.for_endpoint = classmethod(for_endpoint)


def _start_controller_late() -> None:
    """The controller of children has a thread, an event loop and twenty workers in it; a task without children asks
    nothing of it but whether it failed, and to stop."""
    kind: Any = importlib.import_module("flyte._internal.controllers.remote._core").Controller
    start, run, watch, finalize, stop = (
        kind._start, kind._run_coroutine_in_controller_thread, kind.watch_for_errors, kind._finalize_parent_action,
        kind.stop,
    )  # fmt: skip
    starting = threading.Lock()

    def run_started(self: Any, coroutine: Any) -> Any:
        with starting:
            if self._thread is None:
                start(self)
                for loop, started in self._watchers:
                    loop.call_soon_threadsafe(started.set)
        return run(self, coroutine)

    async def watch_once_started(self: Any) -> None:
        started = asyncio.Event()
        self._watchers.append((asyncio.get_running_loop(), started))
        if self._thread is None:
            await started.wait()
        await watch(self)

    async def finalize_started(self: Any, *args: Any, **named: Any) -> None:
        if self._thread is not None:
            await finalize(self, *args, **named)

    async def stop_started(self: Any) -> None:
        if self._thread is not None:
            await stop(self)
        else:
            self._client_coro.close()

    kind._start = lambda self: setattr(self, "_watchers", [])
    kind._run_coroutine_in_controller_thread = run_started
    kind.watch_for_errors = watch_once_started
    kind._finalize_parent_action = finalize_started
    kind.stop = stop_started


def _ask_git_seldom() -> None:
    """The SDK asks `git` for the repository around the working directory, where a configuration might be."""
    git: Any = importlib.import_module("flyte.git")
    usual = git.config_from_root

    def config_from_root(*args: Any, **named: Any) -> Any:
        here = Path.cwd()
        around = any((folder / ".git").exists() for folder in (here, *here.parents))
        return usual(*args, **named) if around or "GIT_DIR" in os.environ else None

    git.config_from_root = config_from_root


def _find_plugins() -> None:
    """The SDK asks every installed package whether it is one, and keeps the answer."""
    importlib.import_module("flyte._utils.entry_points").entry_points(group="flyte.plugins.types")


def _seek_declaring_files_once() -> None:
    """The SDK looks among the frames for the file that declares an environment, but not below a folder `flyte`, which
    might be its own. Where it finds none it asks `inspect` for the same frames; that touches all modules, and so
    imports pandas, which was to come late, and whose threads forbid to fork."""
    environment: Any = importlib.import_module("flyte._environment")
    asked = environment.inspect
    environment.inspect = types.SimpleNamespace(currentframe=asked.currentframe, stack=lambda: [])


def _rehearse() -> None:
    """Declares tasks as the user's modules will: what the first one makes (patterns, defaults, quickened bytecode)
    every fork has then."""
    flyte: Any = importlib.import_module("flyte")
    environments = importlib.import_module("flyte._environment").list_loaded_environments()
    known = len(environments)
    try:
        environment = flyte.TaskEnvironment("rehearsal", image="none")  # else the default is looked up here, and kept
        for _ in range(ENOUGH):
            environment.task(_rehearsed)
    finally:
        del environments[known:]


async def _rehearsed(number: int) -> int:
    """Is declared, never run.

    Args:
        number: any
    """
    return number


def _unpack_small_bundles() -> None:
    """Those that the zygote has read (bundles.py)."""
    bundle: Any = importlib.import_module("flyte._code_bundle.bundle")
    usual = bundle._locked_fetch

    async def fetch(remote_path: str, folder: Path, extract: bool) -> Path:
        if extract and bundles.unpack(remote_path, str(folder)):
            return (folder / Path(remote_path).name).absolute()
        fetched: Path = await usual(remote_path, folder, extract)
        return fetched

    bundle._locked_fetch = fetch
