"""The world without Kubernetes, built: a process an attempt, a directory for data, secrets in the database.

It survives the manager: what runs goes on, and the next start adopts it.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from flyte_manager.blobs.directory import Directory
from flyte_manager.blobs.keys import load_key
from flyte_manager.blobs.signed import SignedLinks, Signer
from flyte_manager.config import Settings
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.tasks import World
from flyte_manager.executor.admission import Admission
from flyte_manager.executor.outcome import install_into
from flyte_manager.executor.resources import RowsAlone
from flyte_manager.processes.environment import find_interpreter, listed_environment, past_proxies
from flyte_manager.processes.runtime import Processes
from flyte_manager.rpc.blobs import BlobRoutes
from flyte_manager.rpc.steady_port import steady_port
from flyte_manager.store.vault import Vault
from flyte_manager.worlds import Middle, Parts, WorldFacts

DEFAULTS = {"FSSPEC_FILE": '{"auto_mkdir": true}'}
"""A directory is no object store: fsspec must make the folders."""


async def build(settings: Settings, middle: Middle, *, why: str, stack: AsyncExitStack) -> Parts:
    """Raises a Refusal when there is no Python for the tasks."""
    embedded = settings.embedded
    interpreter = await asyncio.to_thread(find_interpreter, embedded.python or None, os.environ, Path(sys.executable))
    processes = Processes(
        root=middle.folder / "attempts",
        python=interpreter.python,
        base_env=past_proxies(listed_environment(os.environ, embedded.pass_env), settings.manager.runs_service.host),
        wake=lambda attempt: middle.wake(attempt.action),
        warm=embedded.warm and interpreter.sdk_version is not None,
        clock=middle.clock,
    )
    stack.push_async_callback(processes.stop_serving)
    blobs = Directory(middle.folder / "blobs")
    signer = Signer(load_key(middle.folder / "urls.key"), middle.clock)

    # Their way to the manager must not depend on what names a certificate has and who issued it.
    task_port = steady_port(middle.folder / "tasks.port") if settings.server.tls.certificate else 0

    async def start() -> Sequence[ActionId]:
        await processes.start()
        return [attempt.action for attempt in await processes.alive()]

    async def running() -> int:
        return len(await processes.alive())

    def facts() -> WorldFacts:
        return WorldFacts(
            why=why,
            interpreter=interpreter.python,
            sdk_version=interpreter.sdk_version,
            start=processes.warm_status,
        )

    return Parts(
        world=World.PROCESSES,
        runtime=processes,
        logs=processes,
        blobs=blobs,
        links=SignedLinks(signer, secure=lambda host: bool(task_port) and not host.endswith(f":{task_port}")),
        secrets=Vault(middle.database, load_key(middle.folder / "secrets.key"), middle.clock),
        admission=Admission(
            cpu=embedded.cpu or float(len(os.sched_getaffinity(0))),
            memory=embedded.memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            wake=middle.wake,
        ),
        resources=RowsAlone(),
        advice=install_into(str(interpreter.python)),
        defaults=DEFAULTS,
        endpoint=lambda api: f"localhost:{task_port}" if task_port else api.authority,
        task_port=task_port,
        start=start,
        watch=_for_ever,
        ready=_always,
        may_work=lambda: True,
        running=running,
        facts=facts,
        routes=BlobRoutes(signer, blobs).routes(),
        interpreter=f"{interpreter.python} (flyte {interpreter.sdk_version})",
    )


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _always() -> str | None:
    return None
