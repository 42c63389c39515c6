"""Which interpreter runs the tasks, and which variables they inherit."""

import sys
import venv
from pathlib import Path

import pytest

from flyte_manager.processes.environment import (
    NoInterpreter,
    WrongSystem,
    check_system,
    find_interpreter,
    listed_environment,
    past_proxies,
)

OWN = Path(sys.executable)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without anything in it."""
    path = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(path, symlinks=True)
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that says it holds flyte 9.9."""
    path = tmp_path_factory.mktemp("other") / "venv"
    venv.create(path, symlinks=True)
    info = next(path.glob("lib/python*/site-packages")) / "flyte-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flyte\nVersion: 9.9\n")
    return path


def test_tasks_inherit_listed_variables_only() -> None:
    environ = {
        "PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "https_proxy": "p", "NO_PROXY": "q",
        "SSL_CERT_FILE": "c", "TMPDIR": "/t", "FLYTECTL_CONFIG": "x", "FLYTE_API_KEY": "x", "AWS_KEY": "k",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/p", "POSTGRES_PASSWORD": "x",
    }  # fmt: skip
    kept = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "https_proxy", "NO_PROXY", "SSL_CERT_FILE"}
    assert set(listed_environment(environ, ())) == kept
    passed = listed_environment(environ, ["AWS_*", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "ABSENT"])
    assert set(passed) == kept | {"AWS_KEY", "PYTHONPATH"}


@pytest.mark.parametrize(
    ("exempt", "direct"),
    [
        ({}, "localhost,127.0.0.1,::1,10.0.0.7"),
        ({"no_proxy": "a.example.org, localhost"}, "a.example.org,localhost,127.0.0.1,::1,10.0.0.7"),
        ({"NO_PROXY": "b.example.org", "no_proxy": ""}, "b.example.org,localhost,127.0.0.1,::1,10.0.0.7"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_tasks_reach_the_manager_by_no_proxy(exempt: dict[str, str], direct: str) -> None:
    told = past_proxies({"HTTP_PROXY": "http://proxy", "A": "b", **exempt}, "10.0.0.7")
    assert told == {"HTTP_PROXY": "http://proxy", "A": "b", "no_proxy": direct, "NO_PROXY": direct}


def test_without_a_proxy_tasks_are_told_of_none() -> None:
    assert past_proxies({"PATH": "/bin"}, "localhost") == {"PATH": "/bin"}


def test_the_configured_interpreter_wins(other: Path, empty: Path) -> None:
    environ = {"VIRTUAL_ENV": str(other)}
    found = find_interpreter(str(empty / "bin" / "python"), environ, OWN)
    assert (found.python, found.sdk_version, found.source) == (empty / "bin" / "python", None, "embedded.python")
    assert find_interpreter(str(other), {}, OWN).sdk_version == "9.9"


def test_the_active_environment_is_used_when_it_holds_a_flyte(other: Path, empty: Path) -> None:
    found = find_interpreter(None, {"VIRTUAL_ENV": str(other)}, OWN)
    assert (found.python, found.sdk_version) == (other / "bin" / "python", "9.9")
    assert str(other) in found.source
    assert find_interpreter(None, {"VIRTUAL_ENV": str(empty)}, OWN).python == OWN


def test_otherwise_it_is_the_managers_own() -> None:
    found = find_interpreter(None, {}, OWN)
    assert (found.python, found.source) == (OWN, "the manager's own")
    assert found.sdk_version


def test_an_interpreter_that_cannot_run_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(NoInterpreter, match=r"embedded\.python"):
        find_interpreter(str(tmp_path / "none"), {}, OWN)
    with pytest.raises(NoInterpreter, match="code 1"):
        find_interpreter("/bin/false", {}, OWN)
    with pytest.raises(NoInterpreter, match="no Python"):
        find_interpreter("/bin/echo", {}, OWN)
    with pytest.raises(NoInterpreter, match=r"a broken one \(.*ls: [^\n]*No such file or directory\)"):
        find_interpreter("/bin/ls", {}, OWN)


def test_a_python_that_is_too_old_for_the_sdk_is_refused_with_its_version(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho Python 3 8\necho\n")
    old.chmod(0o755)
    with pytest.raises(NoInterpreter, match=r"Python 3\.8 is older than the SDK's 3\.10"):
        find_interpreter(str(old), {}, OWN)
    active = tmp_path / "venv" / "bin" / "python"
    active.parent.mkdir(parents=True)
    active.symlink_to(old)
    assert find_interpreter(None, {"VIRTUAL_ENV": str(tmp_path / "venv")}, OWN).python == OWN


def test_other_systems_are_refused_with_advice() -> None:
    check_system("linux")
    with pytest.raises(WrongSystem, match="WSL2"):
        check_system("win32")
    with pytest.raises(WrongSystem, match="macOS"):
        check_system("darwin")
