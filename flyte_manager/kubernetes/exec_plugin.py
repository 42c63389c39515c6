"""Credentials that a program makes: exec plugins of kubeconfigs (client.authentication.k8s.io), as of EKS and GKE.

    header() ── cached, not expired ──▶ as before
        └────── else, or refused (401) ──▶ the program runs, 60 s at most ──▶ token and/or client certificate, cached

One run serves all that wait for it. The program gets no terminal: one that must ask a person is refused.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flyte_manager.kubernetes.credentials import Certificate, NoKubernetes, Pair, bearer

GROUP = "client.authentication.k8s.io"
API_VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta1")
RUN_SECONDS = 60.0
EARLY = timedelta(seconds=10)
"""before it expires, a credential is made anew"""
_LONGEST_WORDS = 600


@dataclass(frozen=True, slots=True)
class Plugin:
    """What the kubeconfig says of the program."""

    command: str
    """a path, or a name to be found in PATH"""
    api_version: str
    args: Sequence[str] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """all of its environment"""
    cluster: Mapping[str, Any] | None = field(default=None, repr=False)
    """shown to it, if it wants that"""
    install_hint: str = ""


@dataclass(frozen=True, slots=True)
class _Made:
    """Credentials of one run."""

    header: str | None = field(repr=False)
    pair: Pair | None
    expires_at: datetime | None

    def holds(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at - EARLY


class ExecCredentials:
    """Implements credentials.Credentials."""

    def __init__(
        self,
        plugin: Plugin,
        *,
        certificate: Certificate | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patience: float = RUN_SECONDS,
    ) -> None:
        self._plugin = plugin
        self._certificate = certificate
        self._clock = clock
        self._patience = patience
        self._made: _Made | None = None
        self._runs = 0
        self._turn = asyncio.Lock()

    async def header(self, *, refresh: bool = False) -> str | None:
        runs = self._runs
        if self._made is None or refresh or not self._made.holds(self._clock()):
            async with self._turn:
                if self._runs == runs:
                    self._made = _credentials(self._plugin, await _run(self._plugin, self._patience))
                    self._runs += 1
        assert self._made is not None
        return self._made.header

    def pair(self) -> Pair | None:
        if self._made is not None and self._made.pair is not None:
            return self._made.pair
        return self._certificate.pair() if self._certificate else None


async def _run(plugin: Plugin, patience: float) -> bytes:
    """What it printed. Raises NoKubernetes."""
    program = shutil.which(plugin.command, path=plugin.env.get("PATH", os.defpath))
    if program is None:
        hint = " ".join(plugin.install_hint.split()) or "install it, or give its full path as `command`"
        raise NoKubernetes(problem=f"the credential plugin {plugin.command} is not found: {hint}")
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *plugin.args,
            env={**plugin.env, "KUBERNETES_EXEC_INFO": _exec_info(plugin)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NoKubernetes(problem=f"the credential plugin {plugin.command} can't be run ({why}): mend it") from None
    try:
        async with asyncio.timeout(patience):
            printed, said = await process.communicate()
    except TimeoutError:
        await _end(process)
        problem = f"the credential plugin {plugin.command} took longer than {patience:g} s: run it by hand to see why"
        raise NoKubernetes(problem=problem) from None
    except BaseException:
        await _end(process)
        raise
    if process.returncode:
        problem = f"the credential plugin {plugin.command} ended with code {process.returncode}: {_words(said)}"
        raise NoKubernetes(problem=problem)
    return printed


async def _end(process: asyncio.subprocess.Process) -> None:
    """With all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _exec_info(plugin: Plugin) -> str:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    return json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec})


def _credentials(plugin: Plugin, printed: bytes) -> _Made:
    what = f"what the credential plugin {plugin.command} printed"
    try:
        answer = json.loads(printed)
        version, status = answer["apiVersion"], answer["status"]
        token, expires = status.get("token"), status.get("expirationTimestamp")
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        expires_at = datetime.fromisoformat(expires).astimezone(UTC) if expires else None
        pair = Pair(certificate.encode(), key.encode()) if certificate and key else None
        token = token.encode() if token else b""
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoKubernetes(problem=f"{what} is no ExecCredential: run it by hand to see") from None
    if answer.get("kind") != "ExecCredential" or version != plugin.api_version:
        problem = f"{what} is no ExecCredential of {plugin.api_version}: let `apiVersion` name the one that it speaks"
        raise NoKubernetes(problem=problem)
    if not token and pair is None:
        raise NoKubernetes(problem=f"{what} holds neither a token nor a client certificate with its key: log in anew")
    header = bearer(token, f"the token of the credential plugin {plugin.command}") if token else None
    return _Made(header, pair, expires_at)


def _words(said: bytes) -> str:
    text = " ".join(said.decode(errors="replace").split())
    return text[-_LONGEST_WORDS:] or "it said nothing; run it by hand to see why"
