"""A real, one-node Kubernetes for tests, built from package registries alone.

    python -m tests.cluster build              build the binaries (cached; minutes when cold)
    python -m tests.cluster up                 start a fresh cluster on loopback; prints its kubeconfig's path
    python -m tests.cluster status             what runs, since when, and how big it is
    python -m tests.cluster image [REQ ...]    make a Python image and give it to the node
    python -m tests.cluster image-manager      make the manager's image by deploy/Dockerfile, and give it to the node
    python -m tests.cluster load FILE          give the node an image archive
    python -m tests.cluster kubectl ARG ...    kubectl on this cluster
    python -m tests.cluster kill NAME          end a part (kube-apiserver, kubelet, ...) as a crash would
    python -m tests.cluster again NAME         start it as it was started before
    python -m tests.cluster down               stop it, and undo what it did to the machine

The README beside this file tells what it needs and how it works.
"""

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.archives import pause_image
from tests.cluster.binaries import hyperkube, kwok, pause, runtime
from tests.cluster.commands import ToolError, say
from tests.cluster.lifecycle import Wanted, break_part, down, mend_part, status, up
from tests.cluster.manager_image import MANAGER_IMAGE, manager_image
from tests.cluster.node import load
from tests.cluster.places import CACHE, STATE
from tests.cluster.python_images import python_image
from tests.cluster.record import Record

SDK_IMAGE = "local/flyte:test"


def main() -> int:
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["kubectl"]:  # whose options are not this program's
            _kubectl(arguments[1:])
        options = _parser().parse_args(arguments)
        if options.command == "status":
            return 0 if status() else 3
        if options.command in ("kill", "again"):  # while images are made for others
            (break_part if options.command == "kill" else mend_part)(options.part)
            return 0
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time: test runners may call this at once
            _do(options)
    except ToolError as problem:
        say(f"cluster: {problem}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build, start = commands.add_parser("build"), commands.add_parser("up")
    for sub in (build, start):
        sub.add_argument("--no-node", dest="node", action="store_false", help="the control plane alone")
    build.add_argument("--kwok", action="store_true", help="KWOK too, for fake nodes")
    start.add_argument("--port", type=int, default=6443, help="the API server's port (6443; 0: any free one)")
    networks = "host: pods share the machine's network; bridge: each has an address"
    start.add_argument("--network", choices=["host", "bridge"], default="host", help=networks)
    start.add_argument("--image", type=Path, action="append", default=[], help="an archive for the node")
    start.add_argument("--kwok", type=int, default=0, metavar="N", help="add N fake nodes")
    start.add_argument("--pod-seconds", type=float, default=1, help="how long pods run on fake nodes (1)")
    stop = commands.add_parser("down")
    stop.add_argument("--keep", action="store_true", help="leave the logs and data in the state folder")
    commands.add_parser("status")
    for name in ("kill", "again"):
        commands.add_parser(name).add_argument("part", metavar="NAME", help="as `status` shows it")
    python = commands.add_parser("image")
    python.add_argument("requirements", nargs="*", metavar="REQ", help="for pip; a wheel's path too (flyte)")
    python.add_argument("--constraints", type=Path, help="a file of versions for pip, whose hashes are left out")
    manager = commands.add_parser("image-manager")
    archive = commands.add_parser("load")
    archive.add_argument("file", type=Path)
    for sub, name in ((python, SDK_IMAGE), (manager, MANAGER_IMAGE)):
        sub.add_argument("--name", default=name, help=f"({name})")
    for sub in (python, manager, archive):
        sub.add_argument("--alias", action="append", default=[], help="another name for it on the node")
    return parser


def _do(options: argparse.Namespace) -> None:
    match options.command:
        case "build":
            _build(node=options.node, with_kwok=options.kwok)
        case "up":
            print(
                up(
                    Wanted(
                        node=options.node,
                        network=options.network,
                        port=options.port,
                        images=options.image,
                        fake_nodes=options.kwok,
                        pod_seconds=options.pod_seconds,
                    )
                )
            )
        case "down":
            down(keep=options.keep)
        case "load":
            print(*load(options.file, options.alias), sep="\n")
        case "image":
            requirements = options.requirements or ["flyte"]
            _give(python_image(options.name, requirements, options.constraints), options.alias)
        case "image-manager":
            _give(manager_image(options.name), options.alias)


def _build(*, node: bool, with_kwok: bool) -> None:
    began = time.monotonic()
    paths = [hyperkube(node=node)]
    if node:
        paths += [pause(), runtime()]
        pause_image()
    if with_kwok:
        paths.append(kwok())
    for path in paths:
        say(f"  {path}")
    say(f"build: {time.monotonic() - began:.1f} s")


def _give(archive: Path, aliases: Sequence[str]) -> None:
    print(archive)
    if Record.load().alive("containerd"):
        began = time.monotonic()
        say(f"on the node: {', '.join(load(archive, aliases))} ({time.monotonic() - began:.1f} s)")
    else:
        say("no node is up: give it to one with `load`")


def _kubectl(arguments: Sequence[str]) -> None:
    """Becomes kubectl."""
    if not (STATE / "kubectl").exists():
        raise ToolError("not up")
    os.execve(STATE / "kubectl", ["kubectl", *arguments], dict(os.environ, KUBECONFIG=str(STATE / "kubeconfig")))


if __name__ == "__main__":
    sys.exit(main())
