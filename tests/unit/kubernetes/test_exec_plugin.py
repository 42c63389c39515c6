"""Exec plugins of kubeconfigs: small programs that make credentials."""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyte_manager.kubernetes import access
from flyte_manager.kubernetes.access import Access, NoKubernetes, tls
from flyte_manager.kubernetes.credentials import Pair
from flyte_manager.kubernetes.exec_plugin import ExecCredentials, Plugin
from tests.fakes.clock import NOW, FakeClock
from tests.unit.kubernetes import certificates

V1 = "client.authentication.k8s.io/v1"
CANARY = "canary-8d1c"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a program of Python; `answer(**status)` prints an ExecCredential, `runs` counts from 1."""

    def script(body: str) -> Path:
        path = tmp_path / "plugin"
        path.write_text(
            f"#!{sys.executable} -IS\n"
            "import json, os, sys\n"
            f"with open({str(tmp_path / 'runs')!r}, 'a+') as log:\n"
            "    log.write('x'); log.seek(0); runs = len(log.read())\n"
            "def answer(version=os.environ['ASKED'], **status):\n"
            "    print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': status}))\n"
            f"{body}\n"
        )
        path.chmod(0o700)
        return path

    return script


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text())


def credentials(path: Path, *, clock: FakeClock | None = None, version: str = V1, **more: Any) -> ExecCredentials:
    plugin = Plugin(str(path), version, env={**os.environ, "ASKED": version})
    return ExecCredentials(plugin, clock=clock or FakeClock(), **more)


def configured(tmp_path: Path, user: dict[str, Any], **cluster: Any) -> Access:
    """Access by a kubeconfig with that `exec`."""
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://c.test", **cluster}}],
        "users": [{"name": "u", "user": {"exec": {"apiVersion": V1, **user}}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return access.explicit(path, environ={**os.environ, "ASKED": V1})


@pytest.mark.parametrize("version", [V1, "client.authentication.k8s.io/v1beta1"])
async def test_the_token_is_kept_until_it_is_refused(
    script: Callable[[str], Path], tmp_path: Path, version: str
) -> None:
    made = credentials(script("answer(token=f't{runs}')"), version=version)
    assert [await made.header(), await made.header()] == ["Bearer t1", "Bearer t1"]
    assert await made.header(refresh=True) == "Bearer t2"
    assert await made.header() == "Bearer t2"
    assert runs(tmp_path) == 2


async def test_the_token_is_made_anew_before_it_expires(script: Callable[[str], Path]) -> None:
    clock = FakeClock()
    expires = f"{NOW + timedelta(minutes=15):%Y-%m-%dT%H:%M:%SZ}"
    made = credentials(script(f"answer(token=f't{{runs}}', expirationTimestamp={expires!r})"), clock=clock)
    assert await made.header() == "Bearer t1"
    clock.advance(889)
    assert await made.header() == "Bearer t1"
    clock.advance(2)
    assert await made.header() == "Bearer t2"


async def test_one_run_serves_all_that_wait(script: Callable[[str], Path], tmp_path: Path) -> None:
    made = credentials(script("answer(token=f't{runs}')"))
    assert set(await asyncio.gather(*(made.header() for _ in range(10)))) == {"Bearer t1"}
    assert set(await asyncio.gather(*(made.header(refresh=True) for _ in range(10)))) == {"Bearer t2"}
    assert runs(tmp_path) == 2


async def test_a_client_certificate_may_come_instead(script: Callable[[str], Path], tmp_path: Path) -> None:
    old, new = certificates.certified("old"), certificates.certified("new")
    pairs = [[each.certificate.decode(), each.key.decode()] for each in (old, new)]
    path = script(f"c, k = {pairs!r}[runs - 1]\nanswer(clientCertificateData=c, clientKeyData=k)")
    found = configured(tmp_path, {"command": str(path)})
    before = tls(found)
    assert await found.credentials.header() is None
    assert found.credentials.pair() == Pair(old.certificate, old.key)
    first = tls(found)
    assert first is not before
    assert tls(found) is first
    await found.credentials.header(refresh=True)
    assert tls(found) is not first
    assert found.credentials.pair() == Pair(new.certificate, new.key)


async def test_it_gets_its_arguments_its_variables_and_the_cluster(
    script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script(
        "facts = [sys.argv[1:], os.environ['MINE'], json.loads(os.environ['KUBERNETES_EXEC_INFO']), sys.stdin.read()]\n"
        f"json.dump(facts, open({str(tmp_path / 'facts')!r}, 'w'))\nanswer(token='t')"
    )
    authority = certificates.authority().decode()
    (tmp_path / "ca.pem").write_text(authority)
    user = {"command": f"./{path.name}", "args": ["a", 1], "env": [{"name": "MINE", "value": "m"}]}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": 7}}
    cluster = {"certificate-authority": "ca.pem", "extensions": [extension], "tls-server-name": "n"}
    found = configured(tmp_path, {**user, "provideClusterInfo": True, "interactiveMode": "IfAvailable"}, **cluster)
    assert await found.credentials.header() == "Bearer t"
    arguments, mine, info, stdin = json.loads((tmp_path / "facts").read_text())
    assert (arguments, mine, stdin) == (["a", "1"], "m", "")
    shown = info["spec"].pop("cluster")
    assert info == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}
    assert (shown["server"], shown["tls-server-name"], shown["config"]) == ("https://c.test", "n", {"audience": 7})
    assert base64.b64decode(shown["certificate-authority-data"]).decode() == authority
    await configured(tmp_path, user, **cluster).credentials.header()
    assert "cluster" not in json.loads((tmp_path / "facts").read_text())[2]["spec"]


async def refusal(made: access.Credentials) -> str:
    with pytest.raises(NoKubernetes) as caught:
        await made.header()
    text = str(caught.value)
    assert text.startswith("failed to get Kubernetes config: ")
    assert "\n" not in text
    assert CANARY not in text
    return text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            f"print('{CANARY}')\nprint('You must\\n  log in', file=sys.stderr)\nsys.exit(3)",
            "ended with code 3: You must log in",
        ),
        ("sys.exit(1)", "ended with code 1: it said nothing; run it by hand to see why"),
        (f"print('{CANARY}')", "is no ExecCredential: run it by hand to see"),
        (f"print('[\"{CANARY}\"]')", "is no ExecCredential: run it by hand to see"),
        ("answer(expirationTimestamp='soon', token='t')", "is no ExecCredential: run it by hand to see"),
        (f"answer(version='{V1}alpha1', token='{CANARY}')", f"is no ExecCredential of {V1}: let `apiVersion` name"),
        ("answer()", "holds neither a token nor a client certificate with its key: log in anew"),
        ("answer(clientCertificateData='c')", "holds neither a token nor a client certificate"),
        (f"answer(token='{CANARY}\\n{CANARY}')", "is no token"),
    ],
)
async def test_what_goes_wrong_is_told_in_one_line(script: Callable[[str], Path], body: str, words: str) -> None:
    assert words in await refusal(credentials(script(body)))


async def test_a_failed_run_is_tried_again(script: Callable[[str], Path]) -> None:
    made = credentials(script("sys.exit(1) if runs == 1 else answer(token='t')"))
    await refusal(made)
    assert await made.header() == "Bearer t"


async def test_a_program_that_hangs_is_ended_with_its_children(script: Callable[[str], Path], tmp_path: Path) -> None:
    path = script(
        f"child = os.fork()\nopen({str(tmp_path)!r} + f'/pid{{os.getpid()}}', 'w').close()\nimport time\ntime.sleep(60)"
    )
    began = time.monotonic()
    assert "took longer than 0.5 s: run it by hand" in await refusal(credentials(path, patience=0.5))
    assert time.monotonic() - began < 5
    pids = [int(name.removeprefix("pid")) for name in os.listdir(tmp_path) if name.startswith("pid")]
    assert len(pids) == 2
    async with asyncio.timeout(5):
        while any(_runs(pid) for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_call_that_is_given_up_ends_the_program(script: Callable[[str], Path], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    path = script(f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\nimport time\ntime.sleep(60)")
    call = asyncio.create_task(credentials(path).header())
    async with asyncio.timeout(5):
        while not pid_file.exists() or not pid_file.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not _runs(int(pid_file.read_text()))


async def test_a_program_that_is_not_there_is_named_with_its_hint(tmp_path: Path) -> None:
    found = configured(tmp_path, {"command": "no-such-plugin", "installHint": "Install\n it from x."})
    assert (await refusal(found.credentials)).endswith("plugin no-such-plugin is not found: Install it from x.")
    bare = tmp_path / "bare"
    bare.write_bytes(b"\0\0")
    bare.chmod(0o700)
    assert "can't be run (Exec format error)" in await refusal(credentials(bare))


def test_a_program_that_wants_a_person_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoKubernetes, match="`interactiveMode: Always` wants a person at a terminal"):
        configured(tmp_path, {"command": "x", "interactiveMode": "Always"})


def test_the_clock_is_the_real_one_unless_told() -> None:
    made = ExecCredentials(Plugin("x", V1))
    assert abs(made._clock() - datetime.now(UTC)) < timedelta(seconds=5)
