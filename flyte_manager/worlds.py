"""What a world, local processes or Kubernetes, brings to the manager.

`embedded` and `cluster` build one each; `app` puts it between services and executor.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyte_manager.banner import Endpoint, Pods
from flyte_manager.config import Settings
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.ports import Blobs, Clock, Links, Logs, Runtime, SecretKeeper, Trees
from flyte_manager.domain.tasks import World
from flyte_manager.executor.admission import Admission
from flyte_manager.executor.resources import Resources
from flyte_manager.ledger.ledger import Ledger
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.watch import Reader
from flyte_manager.rpc.routes import Route
from flyte_manager.store.engine import Database
from flyte_manager.wire.runs import BARE, Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """What every world works with."""

    database: Database
    ledger: Ledger
    reader: Reader
    projects: Projects
    folder: Path
    """of this database's instance"""
    wake: Callable[[ActionId], None]
    """has the executor look at that action"""
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldFacts:
    """For the banner."""

    why: str
    pods: Pods | None = None
    interpreter: Path | None = None
    sdk_version: str | None = None
    start: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    world: World
    runtime: Runtime
    logs: Logs
    blobs: Blobs
    links: Links
    secrets: SecretKeeper
    admission: Admission
    resources: Resources
    advice: Callable[[str], str]
    """how a package that a task lacks gets there"""
    defaults: Mapping[str, str]
    """variables of tasks that a run may override"""
    endpoint: Callable[[Endpoint], str]
    """the API's address -> host:port at which tasks reach it"""
    start: Callable[[], Awaitable[Sequence[ActionId]]]
    """called once the ports are open; what must be looked at first. Raises a Refusal"""
    watch: Callable[[], Coroutine[Any, Any, None]]
    """runs beside the executor until it is cancelled; raises a Refusal when the executor must stop"""
    ready: Callable[[], Awaitable[str | None]]
    """None, or what this world still waits for"""
    may_work: Callable[[], bool]
    """whether the executor may change the world now"""
    running: Callable[[], Awaitable[int]]
    """how many attempts run, where they end only when they are told to; 0 where that is nobody's concern"""
    facts: Callable[[], WorldFacts]
    """for the banner"""
    objects: Trees | None = None
    """the object store, where there is one"""
    routes: Sequence[Route] = ()
    allowed_hosts: Sequence[str] = ()
    task_port: int = 0
    """beside https: where tasks of this machine are served by plain HTTP; 0: they use the API's port"""
    namespace: str = ""
    """of the pods; empty where there are none"""
    interpreter: str = ""
    """the Python of the tasks, where it is not the image's"""
    platform: Platform = BARE
    """what attempts show beside what is recorded of them"""


def may_be_pods(settings: Settings, environ: Mapping[str, str], home: Path) -> bool:
    """Whether it could be pods: false spares a start everything that belongs to Kubernetes."""
    manager = settings.manager
    if manager.mode != "auto":
        return manager.mode == "kubernetes"
    named = manager.kubernetes.kubeconfig or manager.kubernetes.context
    return bool(named or in_pod(environ) or environ.get("KUBECONFIG") or (home / ".kube" / "config").exists())


def in_pod(environ: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in environ
