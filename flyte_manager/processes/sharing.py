"""Which attempts may find libraries imported by the others of their kind (branches.py does it).

A kind: one code bundle, one task, one environment, apart from what names the attempt. Attempts with secrets have none:
a secret must not stay in a process that outlives its task.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from flyte_manager.processes.folder import ATTEMPT_VARIABLES

_ATTEMPT_OPTIONS = {
    "--inputs", "--outputs-path", "--raw-data-path", "--checkpoint-path", "--prev-checkpoint",
    "--run-base-dir", "--run-name", "--name", "--run-start-time",
}  # fmt: skip


def kind_of(argv: Sequence[str], env: Mapping[str, str], *, secret: bool) -> str:
    """A short name of the kind; empty for an attempt that shares nothing."""
    if secret or "--tgz" not in argv:
        return ""
    words = [word for before, word in zip(("", *argv), argv, strict=False) if before not in _ATTEMPT_OPTIONS]
    kept = {name: value for name, value in env.items() if name not in ATTEMPT_VARIABLES}
    return hashlib.sha256(json.dumps([words, kept], sort_keys=True).encode()).hexdigest()[:16]
