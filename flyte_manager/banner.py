"""What a started manager prints: where it listens, where its data lie, where tasks run and why, and what to do next."""

import ipaddress
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service listens: the host as configured, the port as it really is."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """How a client on this machine reaches it: `localhost:8090`."""
        host = "localhost" if is_loopback(self.host) or is_every_address(self.host) else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Tasks as pods of a cluster."""

    cluster: str
    """its name or address"""
    namespace: str
    endpoint: str
    """host:port by which they reach this manager"""
    storage: str
    """where their data lie, as s3://bucket/prefix"""
    inside: bool = False
    """whether the manager is a pod of the cluster, too"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    version: str
    api: Endpoint
    queue: Endpoint
    health: Endpoint
    database: Path
    data_dir: Path
    mode: str
    """embedded or kubernetes"""
    why: str
    """of the mode: "no kubeconfig is configured", or where the cluster was found"""
    seconds: float
    """from the start of the process to serving"""
    domain: str = "development"
    """the first of those that there are"""
    secure: bool = False
    """whether API and queue are served by https"""
    pods: Pods | None = None
    """None: tasks are processes, of which the next three tell"""
    interpreter: Path | None = None
    """of the tasks"""
    sdk_version: str | None = None
    """of the SDK that the interpreter has; None when it has none"""
    start: str = ""
    """warm, or cold and why, as "cold: embedded.warm is false" """
    own_config_here: bool = False
    """whether the manager's config.yaml lies in the working directory, where the SDK takes it for its own"""


def banner(facts: Facts) -> str:
    """The lines to print once everything serves; they end with "Ready"."""
    scheme = "https" if facts.secure else "http"
    rows = (
        ("API", f"{scheme}://{facts.api.authority}"),
        ("Queue", f"{scheme}://{facts.queue.authority}"),
        ("Health", f"http://{facts.health.authority}"),
        ("Database", str(facts.database)),
        ("Data", facts.pods.storage if facts.pods else str(facts.data_dir)),
        ("Mode", f"{facts.mode}: {facts.why}"),
        *(_of_pods(facts.pods) if facts.pods else _of_processes(facts)),
    )
    lines = [f"Flyte Manager {facts.version}", ""]
    lines += [f"  {name:<9} {value}" for name, value in rows]
    dangers = () if facts.pods else exposures((facts.api, facts.queue))
    if dangers:
        lines += ["", *(f"  Warning: {danger}" for danger in dangers)]
    where = ", in a folder of its own (here the SDK would take our config.yaml for its own)"
    if facts.pods and facts.pods.inside:
        where = ", from your machine"
    elif not facts.own_config_here:
        where = ""
    lines += [
        "",
        f"  Try it{where}:",
        *(f"    {line}" for line in _forward(facts)),
        f"    {try_it(facts.api, pods=facts.pods is not None, secure=facts.secure, domain=facts.domain)}",
    ]
    lines += ["", f"Ready in {facts.seconds:.1f} s."]
    return "\n".join(lines)


def try_it(api: Endpoint, *, pods: bool = False, secure: bool = False, domain: str = "development") -> str:
    """The line that makes the SDK use this manager. Processes need no images: the builder "remote", which is this
    manager, has the SDK build none."""
    plain = "" if secure else " --insecure"
    line = f"flyte create config --endpoint {api.authority}{plain} --project flytesnacks --domain {domain}"
    return line if pods else f"{line} --builder remote"


def _forward(facts: Facts) -> Sequence[str]:
    """The way to a manager that is a pod, through its Service, whose port is 8090 (deploy/service.yaml)."""
    if not (facts.pods and facts.pods.inside):
        return ()
    return (f"kubectl port-forward -n {facts.pods.namespace} service/flyte-manager {facts.api.port}:8090",)


def _of_processes(facts: Facts) -> Sequence[tuple[str, str]]:
    sdk = f"flyte {facts.sdk_version}, {facts.start}"
    if not facts.sdk_version:
        command = f"{shlex.quote(str(facts.interpreter))} -m pip install flyte"
        sdk = f"no flyte: run `{command}`, or set embedded.python, and start again"
    return (("Tasks", f"{facts.interpreter}, {sdk}"),)


def _of_pods(pods: Pods) -> Sequence[tuple[str, str]]:
    return (
        ("Cluster", pods.cluster),
        ("Tasks", f"pods in namespace {pods.namespace}, which call {pods.endpoint}"),
    )


def exposures(endpoints: Sequence[Endpoint]) -> Sequence[str]:
    """A sentence for each endpoint that others than this machine reach."""
    return [
        f"{endpoint.host} is not only this machine: whoever reaches port {endpoint.port} can run code as this user."
        for endpoint in endpoints
        if not is_loopback(endpoint.host)
    ]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_every_address(host: str) -> bool:
    """Whether the host stands for all addresses of the machine, as 0.0.0.0 does."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
