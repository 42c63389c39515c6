"""Where the cluster is and how to log in, with real files."""

import asyncio
import base64
import errno
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyte_manager.kubernetes import access
from flyte_manager.kubernetes.access import Access, NoKubernetes, tls
from flyte_manager.kubernetes.credentials import FromFile, Pair
from tests.unit.kubernetes import certificates

CANARY = "canary-5f3a"
SERVER = "https://10.0.0.1:6443"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def config(
    name: str = "prod",
    *,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **(context or {})}}],
        "clusters": [{"name": name, "cluster": {"server": SERVER, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
    }


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a kubeconfig."""

    def write(document: object, name: str = "config") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return path

    return write


def explicit(path: Path, context: str = "", **environ: str) -> Access:
    return access.explicit(path, context=context, environ=environ)


def refusal(path: Path, context: str = "") -> str:
    """What is wrong with the file, as told after the words that every refusal begins with."""
    with pytest.raises(NoKubernetes) as caught:
        explicit(path, context)
    text = str(caught.value)
    assert text.startswith("failed to get Kubernetes config: ")
    assert "\n" not in text
    assert CANARY not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text.removeprefix("failed to get Kubernetes config: ")


async def test_a_context_without_a_user_has_no_credentials(write: Write) -> None:
    path = write(config(context={"namespace": "n", "user": ""}, cluster={"server": f"{SERVER}/prefix/"}))
    found = explicit(path)
    assert (found.server, found.source) == (f"{SERVER}/prefix", f"context prod of {path}")
    assert (found.context, found.namespace, found.proxy, found.tls_server_name) == ("prod", "n", "", "")
    assert await found.credentials.header() is None
    assert await found.credentials.header(refresh=True) is None


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"token": 12345}, "Bearer 12345"),
        ({"username": "me", "password": "pä"}, f"Basic {b64('me:pä'.encode())}"),
        ({"username": "me", "token": "t"}, "Bearer t"),
    ],
)
async def test_tokens_and_passwords_go_into_the_header(write: Write, user: dict[str, Any], header: str) -> None:
    found = explicit(write(config(user=user)))
    assert await found.credentials.header() == header
    assert await found.credentials.header(refresh=True) == header


async def test_a_token_file_is_read_again_when_it_changes(write: Write, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    # Beside a token, the file counts; its path is relative to the kubeconfig.
    credentials = explicit(write(config(user={"tokenFile": "token", "token": "stale"}))).credentials
    assert await credentials.header() == "Bearer one"
    (tmp_path / "next").write_text("two")
    os.replace(tmp_path / "next", tmp_path / "token")
    assert await credentials.header() == "Bearer two"
    (tmp_path / "token").write_text("")
    assert await credentials.header() == "Bearer two"
    (tmp_path / "token").unlink()
    assert await credentials.header() == "Bearer two"
    (tmp_path / "token").write_text("three")
    assert await credentials.header() == "Bearer three"


def test_a_file_that_looks_unchanged_is_read_each_minute_and_on_refusal(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "token"

    def rewrite(text: str) -> None:
        path.write_text(text)
        os.utime(path, ns=(1, 1))

    rewrite("a")
    content = FromFile(path, "the token", elapsed=lambda: now[0])
    assert content.read() == b"a"
    rewrite("b")
    assert content.read() == b"a"
    assert content.read(refresh=True) == b"b"
    rewrite("c")
    now[0] += 61
    assert content.read() == b"c"


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, list[str]]]:
    """Its port, and the common names of the client certificates that it saw (empty: none)."""
    own, seen = certificates.certified("server"), list[str]()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=certificates.authority().decode())
    access._load(context, Pair(own.certificate, own.key), "this test")
    context.verify_mode = ssl.CERT_OPTIONAL

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peercert")
        seen.append(dict(part[0] for part in peer["subject"])["commonName"] if peer else "")
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1], seen


async def greeted(found: Access, port: int) -> bytes:
    name = found.tls_server_name or None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls(found), server_hostname=name)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("as_data", [True, False])
async def test_client_certificates_are_shown_and_the_authority_is_checked(
    write: Write, tmp_path: Path, as_data: bool
) -> None:
    me = certificates.certified("me")
    given = {"certificate-authority": certificates.authority()}
    given |= {"client-certificate": me.certificate, "client-key": me.key}
    if as_data:
        named = {f"{name}-data": b64(content) for name, content in given.items()}
    else:
        named = {name: f"{name}.pem" for name in given}
        for name, content in given.items():
            (tmp_path / f"{name}.pem").write_bytes(content)
    authority = {name: value for name, value in named.items() if "authority" in name}
    user = {name: value for name, value in named.items() if name not in authority}
    found = explicit(write(config(cluster=authority, user=user)))
    assert tls(found) is tls(found)
    async with server() as (port, seen):
        assert await greeted(found, port) == b"hello"
        assert seen == ["me"]


async def test_a_certificate_file_that_is_replaced_makes_a_new_context(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = certificates.certified("old"), certificates.certified("new")
    (tmp_path / "c").write_bytes(old.certificate)
    (tmp_path / "k").write_bytes(old.key)
    cluster = {"certificate-authority-data": b64(certificates.authority())}
    found = explicit(write(config(cluster=cluster, user={"client-certificate": "c", "client-key": "k"})))
    before = tls(found)
    (tmp_path / "c").write_bytes(new.certificate)
    assert tls(found) is before
    assert "are no pair" in caplog.text
    (tmp_path / "k").write_bytes(new.key)
    assert tls(found) is not before
    async with server() as (port, seen):
        await greeted(found, port)
        assert seen == ["new"]


async def test_an_unknown_authority_is_refused_unless_told_not_to_look(write: Write) -> None:
    async with server() as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeted(explicit(write(config(cluster={"tls-server-name": "kubernetes.test"}))), port)
        assert await greeted(explicit(write(config(cluster={"insecure-skip-tls-verify": True}))), port) == b"hello"


async def test_the_servers_certificate_must_have_the_name_that_is_given(write: Write) -> None:
    authority = {"certificate-authority-data": b64(certificates.authority())}
    async with server() as (port, _):
        good = explicit(write(config(cluster={**authority, "tls-server-name": "kubernetes.test"})))
        assert await greeted(good, port) == b"hello"
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeted(explicit(write(config(cluster={**authority, "tls-server-name": "else.test"}))), port)


def test_a_server_without_tls_needs_no_context(write: Write) -> None:
    assert tls(explicit(write(config(cluster={"server": "http://127.0.0.1:8001"})))) is None


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.com"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "a.test, .example.com"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*.example.com:6443"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example.com:443"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample.com,10.0.0.0/8"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
    ],
)
def test_the_environments_proxy_is_used(write: Write, environ: dict[str, str], proxy: str) -> None:
    path = write(config(cluster={"server": "https://api.example.com:6443"}))
    assert explicit(path, **environ).proxy == proxy


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        ("https://10.0.0.1:6443", "10.0.0.0/8", True),
        ("https://10.0.0.1:6443", "10.0.0.1", True),
        ("https://10.0.0.1:6443", "10.0.0.1:443", False),
        ("https://[fd00::1]:6443", "fd00::1", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::2]:6443", "fd00::1", False),
        ("https://127.0.0.1:6443", "", True),
        ("https://localhost:6443", "", True),
    ],
)
def test_addresses_may_be_exempt_from_the_proxy(write: Write, server: str, no_proxy: str, direct: bool) -> None:
    found = explicit(write(config(cluster={"server": server})), HTTPS_PROXY="http://p:1", NO_PROXY=no_proxy)
    assert found.proxy == ("" if direct else "http://p:1")


def test_the_kubeconfigs_proxy_comes_first(write: Write) -> None:
    path = write(config(cluster={"proxy-url": "http://own:1"}))
    assert explicit(path, HTTPS_PROXY="http://p:1", NO_PROXY="*").proxy == "http://own:1"


def test_several_files_are_merged_and_the_first_wins(write: Write, tmp_path: Path) -> None:
    first = write({"current-context": "", "users": [{"name": "prod", "user": {"tokenFile": "token"}}]}, "a/config")
    (tmp_path / "a" / "token").write_text("of-a")
    second = config("prod", user={"token": "of-b"}, cluster={"server": "https://b.test"})
    second["contexts"].append({"name": "dev", "context": {"cluster": "prod", "namespace": "d"}})
    last = config("other", cluster={"server": "https://c.test"})
    last["clusters"].append({"name": "prod", "cluster": {"server": "https://wrong.test"}})
    files = [first, tmp_path / "missing", write(second, "b/config"), write(last, "c/config")]
    environ = {"KUBECONFIG": os.pathsep.join(map(str, files)) + os.pathsep}
    found = access.current(environ, tmp_path)
    assert (found.server, found.source) == ("https://b.test", f"context prod of {files[2]}")
    assert asyncio.run(_header(found)) == "Bearer of-a"
    assert access.current(environ, tmp_path, context="dev").namespace == "d"
    assert access.current(environ, tmp_path, context="other").server == "https://c.test"


async def _header(found: Access) -> str | None:
    return await found.credentials.header()


def test_without_a_list_the_file_of_the_home_folder_counts(write: Write, tmp_path: Path) -> None:
    path = write(config(), ".kube/config")
    assert access.current({}, tmp_path).source == f"context prod of {path}"
    with pytest.raises(NoKubernetes, match=r"\.kube/config does not exist: set manager\.kubernetes\.kubeconfig"):
        access.current({}, tmp_path / "nowhere")
    with pytest.raises(NoKubernetes, match="/x and /y does not exist"):
        access.current({"KUBECONFIG": os.pathsep.join(("/x", "/y"))}, tmp_path)


IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("of-the-pod")
    (folder / "namespace").write_text("flyte\n")
    (folder / "ca.crt").write_bytes(certificates.authority())
    return folder


async def test_a_pod_uses_its_service_account(account: Path) -> None:
    found = access.in_cluster(IN_POD, folder=account)
    assert (found.server, found.namespace) == ("https://10.96.0.1:443", "flyte")
    assert (found.source, found.context) == ("the service account of this pod", "")
    assert await found.credentials.header() == "Bearer of-the-pod"
    (account / "token").write_text("rotated")
    assert await found.credentials.header() == "Bearer rotated"
    async with server() as (port, _):
        assert await greeted(found, port) == b"hello"
    six = access.in_cluster({**IN_POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}, folder=account)
    assert six.server == "https://[fd00::1]:443"


def test_a_pod_without_a_service_account_is_told_the_cure(account: Path) -> None:
    (account / "token").unlink()
    with pytest.raises(NoKubernetes, match="give it a service account, with automountServiceAccountToken: true"):
        access.in_cluster(IN_POD, folder=account)
    with pytest.raises(NoKubernetes, match="so this is no pod: set manager"):
        access.in_cluster({}, folder=account)


def test_what_is_configured_comes_first_then_the_pod_then_the_current_kubeconfig(
    write: Write, tmp_path: Path, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access.in_cluster, "__kwdefaults__", {"folder": account})
    given = write({**config("a"), "contexts": [*config("a")["contexts"], *config("b")["contexts"]]}, "given")
    home = write({**config("b"), "contexts": [*config("a")["contexts"], *config("b")["contexts"]]}, ".kube/config")
    assert access.find(given, "", IN_POD, tmp_path).source == f"context a of {given}"
    assert access.find(str(given), "a", {}, tmp_path).source == f"context a of {given}"
    assert access.find("", "b", IN_POD, tmp_path).source == f"context b of {home}"
    assert access.find("", "", IN_POD, tmp_path).source == "the service account of this pod"
    assert access.find(None, "", {}, tmp_path).source == f"context b of {home}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"users: [{{name: a, user: {{token: {CANARY}\n  bad", "is no YAML (line 2): mend it"),
        (f"token: !!python/object {CANARY}", "is no YAML (line 1): mend it"),
        ("a: \x00", "is no YAML: mend it"),
        (CANARY, "is no mapping: is it another file?"),
        ("users: {a: 1}", "`users` of the kubeconfig"),
        ("users: [a]", "is no list of mappings: mend it"),
        ("contexts: [{name: a, context: 1}]", "context 'a' of the kubeconfig"),
        ("contexts: null\nclusters: null\nusers: null\n", "has no current context: set manager.kubernetes.context"),
        ("", "to one of its contexts (none)"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_refused_without_its_content(write: Write, content: str, words: str) -> None:
    assert words in refusal(write(content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"the kubeconfig {tmp_path} can't be read (Is a directory): mend the path or its permissions"
    )
    assert refusal(tmp_path / "x") == f"the kubeconfig {tmp_path / 'x'} does not exist: mend the path"


def test_a_file_without_permission_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(config())

    def forbid(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root, who may run this, may read everything

    monkeypatch.setattr(Path, "read_bytes", forbid)
    assert "can't be read (Permission denied)" in refusal(path)


def test_contexts_users_and_clusters_that_are_missing_are_named(write: Write) -> None:
    assert refusal(write(config()), "dev").endswith(
        "has no context 'dev': set manager.kubernetes.context to one it has (prod)"
    )
    assert refusal(write({**config(), "current-context": None})).endswith("to one of its contexts (prod)")
    assert "its user 'nobody' is not defined" in refusal(write(config(context={"user": "nobody"})))
    assert "its cluster 'none' is not defined" in refusal(write(config(context={"cluster": "none"})))


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"server": ""}, "`server` must begin with https:// or http://"),
        ({"server": "10.0.0.1:6443"}, "`server` must begin with https:// or http://"),
        ({"server": "https://h:port"}, "`server` must begin with https:// or http://"),
        ({"server": f"https://me:{CANARY}@h"}, "`server` must not hold a name or password"),
        ({"server": ["a"]}, "`server` must be a text"),
        ({"certificate-authority-data": f"{CANARY}!"}, "`certificate-authority-data` is not base64"),
        ({"certificate-authority-data": b64(CANARY.encode())}, "is no certificate in PEM: mend it"),
        ({"certificate-authority": "missing"}, "missing can't be read (No such file or directory)"),
        ({"certificate-authority": "missing", "insecure-skip-tls-verify": True}, "exclude each other"),
        ({"insecure-skip-tls-verify": "yes please"}, "`insecure-skip-tls-verify` must be true or false"),
        ({"proxy-url": f"socks5://me:{CANARY}@p:1"}, "is not of the kind http:// or https://"),
    ],
)
def test_a_cluster_that_is_wrong_is_refused(write: Write, cluster: dict[str, Any], words: str) -> None:
    assert words in refusal(write(config(cluster=cluster)))


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"auth-provider": {"name": "gcp"}}, "`auth-provider` is not supported"),
        ({"as": "admin"}, "`as` (acting for somebody else) is not supported"),
        ({"tokenFile": "missing"}, "missing can't be read (No such file or directory)"),
        ({"client-certificate-data": b64(CANARY.encode())}, "belong together"),
        ({"client-certificate-data": b64(CANARY.encode()), "client-key-data": b64(b"k")}, "are no pair in PEM"),
        ({"exec": "aws"}, "`exec` must be a mapping"),
        ({"exec": {"command": "x", "apiVersion": "v1"}}, "`apiVersion` must be client.authentication.k8s.io/v1 or"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}, "`command` is missing"),
    ],
)
def test_a_user_that_is_wrong_is_refused(write: Write, user: dict[str, Any], words: str) -> None:
    assert words in refusal(write(config(user=user)))


async def test_a_token_that_no_header_can_hold_is_refused(write: Write) -> None:
    with pytest.raises(NoKubernetes, match="is no token") as caught:
        await explicit(write(config(user={"token": f"{CANARY}\nX-Evil: 1"}))).credentials.header()
    assert CANARY not in str(caught.value)


def test_nothing_secret_is_shown(write: Write) -> None:
    me = certificates.certified("me")
    pair = {"client-certificate-data": b64(me.certificate), "client-key-data": b64(me.key)}
    plugin: dict[str, Any] = {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "args": [CANARY]}
    plugin["env"] = [{"name": "SECRET", "value": CANARY}]
    users: list[dict[str, Any]] = [{"token": CANARY}, {"username": "me", "password": CANARY}, {"exec": plugin}]
    for user in users:
        found = explicit(write(config(user={**user, **pair}, cluster={"proxy-url": f"http://me:{CANARY}@p:1"})))
        shown = repr(found) + repr(found.credentials) + repr(found.trust)
        assert CANARY not in shown
        assert "PRIVATE" not in shown
        assert "BEGIN" not in shown
