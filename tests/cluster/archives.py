"""Image archives as `docker save` writes them, which containerd imports, from trees of files."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.binaries import pause
from tests.cluster.commands import run
from tests.cluster.places import CACHE, PAUSE_IMAGE


def write_layer(path: Path, tree: Path, *members: str) -> None:
    """A layer's tar, the same for the same tree."""
    names = members or (".",)
    run("tar", "-C", tree, "--sort=name", "--mtime=@0", "--numeric-owner", "-cf", path, *names)


def write_archive(path: Path, names: Sequence[str], layers: Sequence[Path], config: Mapping[str, object]) -> None:
    """`config`: Env, Entrypoint, Cmd, User, WorkingDir, as the image format has them."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    entries, digests = [], []
    fresh = path.with_suffix(".part")
    with tarfile.open(fresh, "w") as archive:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        for layer in layers:
            with layer.open("rb") as file:
                value = hashlib.file_digest(file, "sha256").hexdigest()
            digests.append(f"sha256:{value}")
            entries.append(f"{value}/layer.tar")
            archive.add(layer, entries[-1])
        text = json.dumps(
            {
                "architecture": machine,
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": digests},
            }
        ).encode()
        config_name = f"{hashlib.sha256(text).hexdigest()}.json"
        add(config_name, text)
        manifest = [{"Config": config_name, "RepoTags": list(names), "Layers": entries}]
        add("manifest.json", json.dumps(manifest).encode())
    fresh.rename(path)


def pause_image() -> Path:
    binary = pause()
    path = CACHE / "images" / f"{binary.parent.name}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        layer = path.with_suffix(".layer")
        write_layer(layer, binary.parent, "pause")
        write_archive(path, [PAUSE_IMAGE], [layer], {"Entrypoint": ["/pause"]})
        layer.unlink()
    return path
