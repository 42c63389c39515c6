"""Where the cluster is and how to log in: a given kubeconfig, the pod's own service account, or the current kubeconfig.

Whatever can be wrong with it is said here, before anything is asked of the cluster, and without a word of what is
secret. TLS contexts are kept as long as what they are made of stays the same, so that connections are used again;
certificates that rotate make new ones.
"""

import base64
import ipaddress
import logging
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flyte_manager.kubernetes import kubeconfig
from flyte_manager.kubernetes.credentials import (
    Certificate,
    Content,
    Credentials,
    FromFile,
    Inline,
    NoCredentials,
    NoKubernetes,
    Pair,
    Password,
    Token,
)
from flyte_manager.kubernetes.exec_plugin import API_VERSIONS, ExecCredentials, Plugin
from flyte_manager.kubernetes.kubeconfig import Entry, Picked

__all__ = ["Access", "Credentials", "NoKubernetes", "current", "explicit", "find", "in_cluster", "tls"]

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"


@dataclass(slots=True)
class Trust:
    """Whom we trust, and the TLS context made of it last."""

    authorities: Content | None = None
    """None: those of the system"""
    insecure: bool = False
    where: str = "the cluster"
    _made_of: tuple[bytes, Pair | None] | None = field(default=None, repr=False)
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    def context(self, pair: Pair | None) -> ssl.SSLContext:
        """The same object as long as nothing changed."""
        made_of = (self.authorities.read() if self.authorities else b"", pair)
        if self._context is None or made_of != self._made_of:
            try:
                self._context, self._made_of = self._make(*made_of), made_of
            except NoKubernetes as error:
                # A certificate and its key can't be replaced at the same moment.
                if self._context is None:
                    raise
                log.warning("%s; what was used before is used on", error)
        return self._context

    def _make(self, authorities: bytes, pair: Pair | None) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=authorities.decode() if authorities else None)
        except (ssl.SSLError, ValueError):
            problem = f"the certificate authority of {self.where} is no certificate in PEM: mend it"
            raise NoKubernetes(problem=problem) from None
        # As other clients do: an intermediate may be trusted alone, and old authorities lack what RFC 5280 asks for.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if pair is not None:
            _load(context, pair, self.where)
        return context


@dataclass(frozen=True, slots=True)
class Access:
    server: str
    """URL without a slash at its end"""
    source: str
    """for people: `context prod of /home/me/.kube/config`, `the service account of this pod`"""
    context: str = ""
    namespace: str = ""
    """of the context; empty: it names none"""
    proxy: str = field(default="", repr=False)
    """URL, perhaps with a password; empty: none"""
    tls_server_name: str = ""
    """that the server's certificate must have, instead of the URL's host"""
    credentials: Credentials = field(default_factory=NoCredentials, repr=False)
    trust: Trust = field(default_factory=Trust, repr=False, compare=False)


def tls(access: Access) -> ssl.SSLContext | None:
    """None for a server without TLS. Ask again when the credentials may have changed: it is cheap, and the same object
    when they have not. Raises NoKubernetes."""
    if not access.server.startswith("https:"):
        return None
    return access.trust.context(access.credentials.pair())


def find(kubeconfig: str | Path | None, context: str, environ: Mapping[str, str], home: Path) -> Access:
    """The configured kubeconfig or context, else this pod's cluster, else the current kubeconfig. Raises
    NoKubernetes."""
    if kubeconfig:
        return explicit(Path(kubeconfig), context=context, environ=environ)
    if not context and "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ)
    return current(environ, home, context=context)


def explicit(path: Path, *, context: str = "", environ: Mapping[str, str] | None = None) -> Access:
    """Of one file. Raises NoKubernetes."""
    config = kubeconfig.read([path])
    return _access(config.pick(context), os.environ if environ is None else environ)


def current(environ: Mapping[str, str], home: Path, *, context: str = "") -> Access:
    """As kubectl finds it: the files of $KUBECONFIG, else ~/.kube/config. Raises NoKubernetes."""
    listed = [Path(each) for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    config = kubeconfig.read(listed or [home / ".kube" / "config"], optional=True)
    return _access(config.pick(context), environ)


def in_cluster(environ: Mapping[str, str], *, folder: Path = SERVICE_ACCOUNT) -> Access:
    """As a pod's service account. Raises NoKubernetes."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        problem = "KUBERNETES_SERVICE_HOST is not set, so this is no pod: set manager.kubernetes.kubeconfig"
        raise NoKubernetes(problem=problem)
    if not (folder / "token").exists():
        problem = f"this pod has no {folder}/token: give it a service account, with automountServiceAccountToken: true"
        raise NoKubernetes(problem=problem)
    authority = FromFile(folder / "ca.crt", "the certificate authority of the service account,")
    what = "the token of the service account,"
    namespace = folder / "namespace"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return _checked(
        Access(
            server,
            source="the service account of this pod",
            namespace=namespace.read_text().strip() if namespace.exists() else "",
            proxy=_proxy_of(urlsplit(server), environ),
            credentials=Token(FromFile(folder / "token", what), what),
            trust=Trust(authority, where="the service account of this pod"),
        )
    )


def _access(picked: Picked, environ: Mapping[str, str]) -> Access:
    cluster = picked.cluster
    server = cluster.text("server").rstrip("/")
    parts = _url(server)
    if parts is None or not parts.hostname:
        raise cluster.wrong("`server` must begin with https:// or http:// and name a host")
    if parts.username or parts.password:
        raise cluster.wrong("`server` must not hold a name or password: they belong to `users`")
    authorities, insecure = cluster.content("certificate-authority"), cluster.flag("insecure-skip-tls-verify")
    if authorities is not None and insecure:
        raise cluster.wrong("`insecure-skip-tls-verify` and a certificate authority exclude each other")
    proxy = cluster.text("proxy-url")
    return _checked(
        Access(
            server,
            source=f"context {picked.name} of {picked.context.file}",
            context=picked.name,
            namespace=picked.context.text("namespace"),
            proxy=proxy or _proxy_of(parts, environ),
            tls_server_name=cluster.text("tls-server-name"),
            credentials=_credentials(picked, environ),
            trust=Trust(authorities, insecure, where=f"context {picked.name} of {picked.context.file}"),
        )
    )


def _checked(access: Access) -> Access:
    """Files are read and certificates loaded, so that what is wrong is said now."""
    if access.proxy and _url(access.proxy) is None:
        problem = f"the proxy of {access.source} is not of the kind http:// or https://: use such a one"
        raise NoKubernetes(problem=problem)
    if isinstance(access.credentials, Token):
        access.credentials.token.read()
    tls(access)
    return access


def _credentials(picked: Picked, environ: Mapping[str, str]) -> Credentials:
    user = picked.user
    if user is None:
        return NoCredentials()
    if user.fields.get("auth-provider"):
        raise user.wrong("`auth-provider` is not supported, as Kubernetes gave it up: use an `exec` plugin instead")
    if any(user.fields.get(name) for name in ("as", "as-uid", "as-groups", "as-user-extra")):
        raise user.wrong("`as` (acting for somebody else) is not supported: give that user's own credentials")
    certificate = _certificate(user)
    what = f"the token of {user.what},"
    if path := user.text("tokenFile"):
        return Token(FromFile(user.path(path), what), what, certificate)
    if token := user.text("token"):
        return Token(Inline(token.encode()), what, certificate)
    if name := user.text("username"):
        return Password(name, user.text("password"), certificate)
    plugin = user.part("exec")
    if plugin is not None:
        return ExecCredentials(_plugin(plugin, picked.cluster, environ), certificate=certificate)
    return NoCredentials(certificate)


def _certificate(user: Entry) -> Certificate | None:
    certificate, key = user.content("client-certificate"), user.content("client-key")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise user.wrong("`client-certificate` and `client-key` (or their `-data`) belong together")
    return Certificate(certificate, key)


def _plugin(plugin: Entry, cluster: Entry, environ: Mapping[str, str]) -> Plugin:
    version, command = plugin.text("apiVersion"), plugin.text("command")
    if version not in API_VERSIONS:
        raise plugin.wrong(f"`apiVersion` must be {' or '.join(API_VERSIONS)}")
    if not command:
        raise plugin.wrong("`command` is missing")
    if plugin.text("interactiveMode") == "Always":
        raise plugin.wrong("`interactiveMode: Always` wants a person at a terminal: use credentials that need none")
    env = dict(environ)
    for each in plugin.fields.get("env") or ():
        if not isinstance(each, Mapping) or not each.get("name"):
            raise plugin.wrong("`env` must be a list of `name` and `value`")
        env[str(each["name"])] = str(each.get("value") or "")
    return Plugin(
        command=str(plugin.path(command)) if "/" in command else command,
        api_version=version,
        args=plugin.texts("args"),
        env=env,
        cluster=_cluster_info(cluster) if plugin.flag("provideClusterInfo") else None,
        install_hint=plugin.text("installHint"),
    )


def _cluster_info(cluster: Entry) -> Mapping[str, Any]:
    """As the plugin's `spec.cluster`."""
    authority = cluster.content("certificate-authority")
    extensions = [each for each in cluster.fields.get("extensions") or () if isinstance(each, Mapping)]
    info = {
        "server": cluster.text("server"),
        "tls-server-name": cluster.text("tls-server-name"),
        "insecure-skip-tls-verify": cluster.flag("insecure-skip-tls-verify"),
        "certificate-authority-data": base64.b64encode(authority.read()).decode() if authority else "",
        "proxy-url": cluster.text("proxy-url"),
        "config": next((each.get("extension") for each in extensions if each.get("name") == _EXEC_EXTENSION), None),
    }
    return {name: value for name, value in info.items() if value}


def _load(context: ssl.SSLContext, pair: Pair, where: str) -> None:
    """OpenSSL reads certificates from files only: one that nobody else can read, for a moment."""
    with tempfile.NamedTemporaryFile(prefix="flyte-manager-") as file:
        file.write(pair.certificate.rstrip() + b"\n" + pair.key.rstrip() + b"\n")
        file.flush()
        try:
            # An empty password, because without one OpenSSL asks at the terminal.
            context.load_cert_chain(file.name, password="")
        except (ssl.SSLError, ValueError):
            problem = f"the client certificate and key of {where} are no pair in PEM without a password: mend them"
            raise NoKubernetes(problem=problem) from None


def _url(text: str) -> SplitResult | None:
    """None when it is none of HTTP."""
    try:
        parts = urlsplit(text)
        return parts if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:
        return None


def _proxy_of(server: SplitResult, environ: Mapping[str, str]) -> str:
    """The environment's, as other tools understand it."""
    host, port = server.hostname or "", server.port or (443 if server.scheme == "https" else 80)
    if _is_local(host) or _is_exempt(host, port, _variable("NO_PROXY", environ)):
        return ""
    proxy = _variable(f"{server.scheme.upper()}_PROXY", environ)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _variable(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name) or environ.get(name.lower()) or ""


def _is_local(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    for rule in no_proxy.lower().replace(",", " ").split():
        name, _, wanted = rule.rpartition(":")
        if name and wanted.isdecimal() and _address(rule) is None and "/" not in rule:
            if int(wanted) != port:
                continue
            rule = name.strip("[]")
        if rule == "*" or _fits(host, rule):
            return True
    return False


def _fits(host: str, rule: str) -> bool:
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    domain = rule.removeprefix("*")
    return host.endswith(domain) if domain.startswith(".") else host == domain or host.endswith(f".{domain}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
