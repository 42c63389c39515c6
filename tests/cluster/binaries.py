"""The programs of a cluster: Kubernetes built by `go build`, containerd and its kin unpacked from Debian's packages.

    hyperkube   etcd, kube-apiserver, -controller-manager, -scheduler, kubectl and the kubelet, in one binary
    pause       the process that holds a pod's place
    kwok        plays the kubelet of nodes that do not exist
    runtime     a folder with containerd, runc, the CNI plugins and iptables; nothing is installed on the machine

Each is made once for each state of its sources, under CLUSTER_CACHE.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.commands import ToolError, digest, replacing, run, say
from tests.cluster.places import CACHE, HERE, kubernetes_version

RUNTIME_PACKAGES = ["containerd", "runc", "containernetworking-plugins"]
FIREWALL_PACKAGES = [
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
]


def hyperkube(*, node: bool) -> Path:
    major, minor = kubernetes_version().lstrip("v").split(".")[:2]
    values = {"gitVersion": kubernetes_version(), "gitMajor": major, "gitMinor": minor}
    ldflags = " ".join(
        f"-X {package}.{key}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in values.items()
    )
    full = _go_folder(HERE / "hyperkube", "hyperkube", tags="kubelet", ldflags=ldflags) / "hyperkube"
    if full.exists():  # it can do all that the one without a kubelet can
        return full
    return _go_build(HERE / "hyperkube", "hyperkube", tags="kubelet" if node else "", ldflags=ldflags)


def kwok() -> Path:
    return _go_build(HERE / "kwok", "kwok")


def pause() -> Path:
    return _go_build(HERE / "hyperkube" / "pause", "pause", cgo="0")


def runtime() -> Path:
    """containerd, runc, the CNI plugins and iptables, unpacked under the cache."""
    names = RUNTIME_PACKAGES + FIREWALL_PACKAGES
    folder = CACHE / f"runtime-{digest(*names)}"
    if not folder.exists():
        say("fetching containerd, runc and the CNI plugins from Debian's packages ...")
        with replacing(folder) as fresh:
            debs = fresh / "debs"
            debs.mkdir()
            apt("download", *names, cwd=debs)
            unpack(sorted(debs.glob("*.deb")), fresh)
            shutil.rmtree(debs)
    return folder


def apt(*argv: object, cwd: Path | None = None) -> None:
    """Runs apt-get; with fresh package lists if the lists here are old or missing."""
    try:
        run("apt-get", *argv, cwd=cwd)
    except ToolError:
        run("apt-get", "update")
        run("apt-get", *argv, cwd=cwd)


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpacks Debian packages into a merged-/usr tree without installing them."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as data:
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "-C", root, "-f", "-"], stdin=data.stdout, check=True
            )
        if data.returncode:
            raise ToolError(f"{package.name} cannot be unpacked")


def _go_folder(source: Path, name: str, *, tags: str, ldflags: str) -> Path:
    """Where the program built from these very sources is, or will be."""
    sources = sorted(p for p in source.iterdir() if p.suffix == ".go" or p.name in ("go.mod", "go.sum"))
    return CACHE / "bin" / f"{name}-{digest(tags, ldflags, *[p.read_text() for p in sources])}"


def _go_build(source: Path, name: str, *, tags: str = "", ldflags: str = "", cgo: str = "") -> Path:
    """Builds a Go main package, once for each state of its sources."""
    folder = _go_folder(source, name, tags=tags, ldflags=ldflags)
    if not (folder / name).exists():
        if not shutil.which("go"):
            raise ToolError(f"{name} is built with Go: install Go 1.24 or later and put `go` on PATH")
        say(f"building {name} with {run('go', 'env', 'GOVERSION').strip()} (minutes when Go's own cache is cold) ...")
        began = time.monotonic()
        # Collecting garbage less, and writing no debug information, is a sixth off the time.
        env = {"GOGC": "400", **os.environ, "GOWORK": "off", **({"CGO_ENABLED": cgo} if cgo else {})}
        flags = ["-mod=readonly"] if (source / "go.mod").exists() else []
        flags += ["-trimpath", "-gcflags=all=-dwarf=false", "-tags", tags, "-ldflags", f"-s -w {ldflags}"]
        with replacing(folder) as fresh:
            run("nice", "go", "build", *flags, "-o", fresh / name, ".", cwd=source, env=env)
        say(f"built {name} in {time.monotonic() - began:.0f} s, {(folder / name).stat().st_size >> 20} MiB")
    return folder / name
