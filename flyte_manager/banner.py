"""What a started manager prints: where it listens, where its data lie, where tasks run and why, and what to do next."""

import ipaddress
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
    """of the mode, as "no kubeconfig is configured" """
    interpreter: Path
    """of the tasks"""
    sdk_version: str | None
    """of the SDK that the interpreter has; None when it has none"""
    start: str
    """warm, or cold and why, as "cold: embedded.warm is false" """
    seconds: float
    """from the start of the process to serving"""
    own_config_here: bool = False
    """whether the manager's config.yaml lies in the working directory, where the SDK takes it for its own"""


def banner(facts: Facts) -> str:
    """The lines to print once everything serves; they end with "Ready"."""
    sdk = f"flyte {facts.sdk_version}" if facts.sdk_version else "no flyte: `flyte-manager doctor` says what to do"
    rows = (
        ("API", f"http://{facts.api.authority}"),
        ("Queue", f"http://{facts.queue.authority}"),
        ("Health", f"http://{facts.health.authority}"),
        ("Database", str(facts.database)),
        ("Data", str(facts.data_dir)),
        ("Mode", f"{facts.mode}: {facts.why}"),
        ("Tasks", f"{facts.interpreter}, {sdk}, {facts.start}"),
    )
    lines = [f"Flyte Manager {facts.version}", ""]
    lines += [f"  {name:<9} {value}" for name, value in rows]
    dangers = exposures((facts.api, facts.queue)) if facts.mode == "embedded" else ()
    if dangers:
        lines += ["", *(f"  Warning: {danger}" for danger in dangers)]
    where = ", in a folder of its own (here the SDK would take our config.yaml for its own)"
    lines += ["", f"  Try it{where if facts.own_config_here else ''}:", f"    {try_it(facts.api)}"]
    lines += ["", f"Ready in {facts.seconds:.1f} s."]
    return "\n".join(lines)


def try_it(api: Endpoint) -> str:
    """The line that makes the SDK use this manager."""
    return (
        f"flyte create config --endpoint {api.authority} --insecure "
        "--project flytesnacks --domain development --builder remote"
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
