"""The manager's image, by deploy/Dockerfile and the wheels that constraints.txt pins."""

from pathlib import Path

from tests.cluster.commands import digest, replacing, say
from tests.cluster.dockerfile import dockerfile_image
from tests.cluster.places import CACHE, PROJECT
from tests.cluster.python_images import base_tree, download, python_version

MANAGER_IMAGE = "local/flyte-manager:test"
CONSTRAINTS = PROJECT / "constraints.txt"


def manager_image(name: str) -> Path:
    return dockerfile_image(name, file=PROJECT / "deploy" / "Dockerfile", context=PROJECT, wheels=_wheels())


def _wheels() -> Path:
    """All that constraints.txt pins, each with its hash checked."""
    base = base_tree()
    folder = CACHE / f"wheels-{digest(CONSTRAINTS.read_text(), python_version(base))}"
    if not folder.exists():
        say("fetching the wheels of constraints.txt ...")
        with replacing(folder) as fresh:
            download(base, fresh, "--require-hashes", "--no-deps", "--requirement", CONSTRAINTS)
    return folder
