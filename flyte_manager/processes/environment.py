"""Which interpreter runs the tasks, which variables they inherit, and whether this system can run them at all."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from flyte_manager.domain.errors import Unready

INHERITED = ("PATH", "HOME", "LANG", "LC_*", "TZ", "SSL_*", "*_proxy", "*_PROXY")
NEVER = ("PYTHONDONTWRITEBYTECODE", "TMPDIR")
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
PROBE_SECONDS = 20.0
OLDEST = (3, 10)
"""Python that the SDK runs on"""

_PROBE = """
import sys
print("Python %d %d" % sys.version_info[:2])
try:
    import importlib.metadata as metadata
    print(metadata.version("flyte"))
except ImportError:
    print("")
"""


class WrongSystem(Unready):
    """Tasks as local processes need Linux, this is {system}: {advice}."""


class NoInterpreter(Unready):
    """`embedded.python` is {python}, which can't run tasks: {why}. Give the path of a Python that has `flyte`."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs the tasks. `source` says for people why this one."""

    python: Path
    sdk_version: str | None
    source: str


def check_system(platform: str = sys.platform) -> None:
    """Raises WrongSystem where attempts can't be shepherded (locks that can be asked, subreapers and pidfds)."""
    if platform.startswith("linux"):
        return
    if platform == "win32":
        raise WrongSystem(system="Windows", advice="use WSL2")
    system = "macOS" if platform == "darwin" else platform
    raise WrongSystem(system=system, advice="run the manager in a Linux container or virtual machine")


def listed_environment(environ: Mapping[str, str], pass_env: Iterable[str]) -> dict[str, str]:
    """The variables that tasks inherit: a fixed list and the names (or patterns like `AWS_*`) in `pass_env`."""
    patterns = (*INHERITED, *pass_env)
    return {
        name: value
        for name, value in environ.items()
        if name not in NEVER and any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def past_proxies(env: Mapping[str, str], host: str) -> dict[str, str]:
    """The variables, so that tasks reach the manager on this machine or at that host by no proxy."""
    if not any(name.lower().endswith("_proxy") for name in env):
        return dict(env)
    exempt = [*env.get("no_proxy", "").split(","), *env.get("NO_PROXY", "").split(","), *THIS_MACHINE, host]
    direct = "*" if "*" in exempt else ",".join(dict.fromkeys(each.strip() for each in exempt if each.strip()))
    return {**env, "no_proxy": direct, "NO_PROXY": direct}


def find_interpreter(configured: str | None, environ: Mapping[str, str], own: Path) -> Interpreter:
    """The configured one; else the active virtual environment's, if it holds a flyte; else the manager's own.

    Raises NoInterpreter.
    """
    if configured:
        path = Path(configured).expanduser()
        python = path / "bin" / "python" if path.is_dir() else path
        return Interpreter(python, _sdk_version(python, environ), "embedded.python")
    active = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX")
    if active:
        python = Path(active) / "bin" / "python"
        if python.parent != own.parent and python.exists() and (version := _flyte_in(python, environ)):
            return Interpreter(python, version, f"the active environment {active}")
    try:
        version = importlib.metadata.version("flyte")
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Interpreter(own, version, "the manager's own")


def _flyte_in(python: Path, environ: Mapping[str, str]) -> str | None:
    """Its version. An environment that is too old or broken holds none."""
    try:
        return _sdk_version(python, environ)
    except NoInterpreter:
        return None


def _sdk_version(python: Path, environ: Mapping[str, str]) -> str | None:
    env = {**listed_environment(environ, ()), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        told = subprocess.run(
            [os.fspath(python), "-c", _PROBE],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
    except OSError as error:
        raise NoInterpreter(python=python, why=error.strerror) from error
    except subprocess.TimeoutExpired as error:
        raise NoInterpreter(python=python, why=f"it didn't answer within {PROBE_SECONDS:g} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        why = f"no Python, or a broken one ({said[-1] if said else f'it ended with code {error.returncode}'})"
        raise NoInterpreter(python=python, why=why) from error
    name, _, told_version = told.stdout.partition("\n")
    match name.split():
        case ["Python", major, minor] if (int(major), int(minor)) >= OLDEST:
            return told_version.strip() or None
        case ["Python", major, minor]:
            raise NoInterpreter(
                python=python, why=f"Python {major}.{minor} is older than the SDK's {OLDEST[0]}.{OLDEST[1]}"
            )
    raise NoInterpreter(python=python, why="no Python")
