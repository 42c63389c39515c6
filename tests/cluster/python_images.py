"""Images with Python: a base made of Debian's packages in seconds, and a virtual environment of some requirements.

Wheels are fetched by this machine's pip, with its settings, and installed without the network by the image's own
Python. A wheel's path is a requirement too.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.archives import write_archive, write_layer
from tests.cluster.binaries import apt, unpack
from tests.cluster.commands import ToolError, digest, replacing, run, say
from tests.cluster.places import CACHE

BASE_PACKAGES = [
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "gzip",
    "libc-bin",
    "libstdc++6",
    "python3",
    "python3-venv",
    "tzdata",
]
FOLDERS = ["dev", "etc", "home", "opt", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp"]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
BASE_PATH = "/usr/local/bin:/usr/bin:/bin"


def base_tree() -> Path:
    """A root file system with Debian's Python; its layer lies beside it, as `.layer`."""
    folder = CACHE / f"base-{digest(*BASE_PACKAGES)}"
    if not folder.exists():
        say("making the base image's file system from Debian's packages ...")
        with replacing(folder) as fresh:
            _fill_base(fresh)
    if not folder.with_suffix(".layer").exists():
        write_layer(folder.with_suffix(".layer"), folder)
    return folder


def python_version(base: Path) -> str:
    """3.11, say."""
    return run("chroot", base, "/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def python_image(name: str, requirements: Sequence[str], constraints: Path | None = None) -> Path:
    """An image with the requirements in a virtual environment that is first on PATH."""
    base = base_tree()
    pins = _without_hashes(constraints.read_text()) if constraints else ""
    files = [Path(one).stat().st_mtime_ns for one in requirements if Path(one).is_file()]
    key = digest(base.name, name, *requirements, *files, *([pins] if pins else []))
    path = CACHE / "images" / f"python-{key}.tar"
    if path.exists():
        return path
    say(f"making the image {name}: {' '.join(requirements)} ...")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(CACHE / f"making-{key}") as work:
        wheels = work / "wheels"
        wheels.mkdir()
        (work / "pins.txt").write_text(pins)
        download(base, wheels, "--constraint", work / "pins.txt", "pip", *requirements)
        for wheel in (one for one in requirements if Path(one).is_file()):
            shutil.copy(wheel, wheels)
        upper = _install(base, wheels, requirements, work)
        write_layer(work / "layer.tar", upper, "opt/venv")
        write_archive(
            path,
            [name],
            [base.with_suffix(".layer"), work / "layer.tar"],
            {
                "Env": [f"PATH=/opt/venv/bin:{BASE_PATH}", f"SSL_CERT_FILE={CERTIFICATES}", "PYTHONUNBUFFERED=1"],
                "Cmd": ["python"],
                "WorkingDir": "/root",
            },
        )
    shutil.rmtree(CACHE / f"making-{key}", ignore_errors=True)
    return path


def download(base: Path, into: Path, *what: object) -> None:
    """Fetches wheels for the base's Python by this machine's pip."""
    machine = os.uname().machine
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)] + [f"manylinux2014_{machine}"]
    flags = [flag for platform in platforms for flag in ("--platform", platform)]
    flags += ["--only-binary=:all:", "--python-version", python_version(base)]
    run(*_pip(), "download", "-q", "--disable-pip-version-check", "-d", into, *flags, *what)


@contextlib.contextmanager
def overlay(lower: Sequence[Path], upper: Path, scratch: Path, at: Path) -> Iterator[None]:
    """Mounts `lower`, the topmost first, below `upper`, which takes what is written."""
    layers = ":".join(map(str, lower))
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={layers},upperdir={upper},workdir={scratch}", at)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


@contextlib.contextmanager
def bound(source: Path, at: Path) -> Iterator[None]:
    """Mounts a folder a second time."""
    run("mount", "--bind", source, at)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def _fill_base(root: Path) -> None:
    fetched = root.parent / f"{root.name}.apt"
    (fetched / "archives" / "partial").mkdir(parents=True)
    (fetched / "status").touch()  # nothing is installed: every dependency comes along
    options = [
        f"Dir::State::status={fetched}/status",
        f"Dir::Cache::archives={fetched}/archives",
        "APT::Sandbox::User=root",
        "Debug::NoLocking=1",
    ]
    flags = [flag for option in options for flag in ("-o", option)]
    apt("-y", "--no-install-recommends", "--download-only", *flags, "install", *BASE_PACKAGES)
    unpack(sorted((fetched / "archives").glob("*.deb")), root)
    shutil.rmtree(fetched)
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    # What the packages' own scripts would have done, as far as Python needs it.
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    bundle = root / CERTIFICATES.lstrip("/")
    bundle.parent.mkdir(parents=True, exist_ok=True)
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle.write_bytes(b"".join(one.read_bytes() for one in certificates))
    (root / "etc/resolv.conf").touch()
    run("chroot", root, "/usr/bin/python3", "-c", "import ssl, sqlite3, venv")
    shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
    shutil.rmtree(root / "usr/share/man", ignore_errors=True)


def _install(base: Path, wheels: Path, requirements: Sequence[str], work: Path) -> Path:
    """Installs into /opt/venv of the base; the folder of what that wrote."""
    upper, scratch, merged = (work / name for name in ("upper", "work", "merged"))
    for folder in (upper, scratch, merged):
        folder.mkdir()
    installer = next(wheels.glob("pip-*.whl")).name
    wanted = [f"/opt/wheels/{Path(one).name}" if Path(one).is_file() else one for one in requirements]
    inside = ["chroot", merged, "/usr/bin/env", f"PYTHONPATH=/opt/wheels/{installer}", "SOURCE_DATE_EPOCH=0"]
    offline = ["-q", "--no-index", "--no-cache-dir", "--find-links", "/opt/wheels", "--root-user-action=ignore"]
    with overlay([base], upper, scratch, merged):
        (merged / "opt/wheels").mkdir()
        with bound(wheels, merged / "opt/wheels"):
            run(*inside, "/usr/bin/python3", "-m", "venv", "--without-pip", "/opt/venv")
            run(*inside, "/opt/venv/bin/python", "-m", "pip", "install", *offline, *wanted)
    return upper


def _without_hashes(constraints: str) -> str:
    """Versions alone: with hashes, pip would want one for everything."""
    lines = (line.removesuffix("\\").rstrip() for line in constraints.splitlines())
    return "".join(f"{line}\n" for line in lines if re.match(r"[A-Za-z0-9]", line))


def _pip() -> list[str]:
    """A pip of this machine: a virtual environment may well have none."""
    for python in (sys.executable, getattr(sys, "_base_executable", ""), shutil.which("python3")):
        with contextlib.suppress(ToolError, OSError):
            if python:
                run(python, "-m", "pip", "--version")
                return [python, "-m", "pip"]
    raise ToolError("no pip here to fetch wheels with")
