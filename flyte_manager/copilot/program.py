"""The two commands of the helper. Problems of the store are tried again; those of the task's data go to error.pb."""

import argparse
import base64
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyte_manager.blobs.files import Files

DOWNLOAD_SECONDS = 300.0
MARGIN = 30.0
"""seconds of the upload's time that are left for its last try"""
_LONGEST_PAUSE = 15.0


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    os.umask(0)  # the task's user may be any
    if options.command == "upload":
        Path(options.ready).touch()
        signal.sigwait({signal.SIGTERM})
        return _tried(lambda files: upload(files, options), options.seconds - MARGIN)
    return _tried(lambda files: download(files, options), DOWNLOAD_SECONDS)


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m flyte_manager.copilot", description=sys.modules[__name__].__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--folder", type=Path, required=True, help="where the files are")
    both.add_argument("--results", required=True, help="uri of the folder for outputs.pb and error.pb")
    down = commands.add_parser("download", parents=[both], help="write the inputs as files")
    down.add_argument("--inputs", required=True, help="uri of inputs.pb")
    down.add_argument("--format", choices=["JSON", "YAML", "PROTO"], default="JSON")
    down.add_argument("--layout", choices=["DIRECT", "NAMED_DIR"], default="DIRECT")
    up = commands.add_parser("upload", parents=[both], help="at SIGTERM, make outputs.pb of files")
    up.add_argument("--raw", required=True, help="uri below which files are put")
    up.add_argument("--outputs", type=base64.b64decode, required=True, help="flyteidl2.core.VariableMap in base64")
    up.add_argument("--ready", required=True, help="file that is made once SIGTERM is waited for")
    up.add_argument("--seconds", type=float, required=True, help="how long the upload may take")
    return whole


def download(files: "Files", options: argparse.Namespace) -> int:
    """Raises TransferFailed."""
    from flyteidl2.task import common_pb2

    from flyte_manager.blobs.files import ObjectMissing
    from flyte_manager.copilot.download import Download
    from flyte_manager.copilot.reports import DataProblem, report

    try:
        try:
            inputs = common_pb2.Inputs.FromString(files.read(options.inputs))
        except ObjectMissing:
            raise DataProblem("InputMissing", f"the task's inputs are not there any more: {options.inputs}") from None
        Download(files, named=options.layout == "NAMED_DIR").write(inputs, options.folder, form=options.format)
    except DataProblem as problem:
        report(files, problem, options.results)
        print(problem, file=sys.stderr)
        return 1
    return 0


def upload(files: "Files", options: argparse.Namespace) -> int:
    """Raises TransferFailed."""
    from flyteidl2.core import interface_pb2

    from flyte_manager.copilot.reports import DataProblem, report
    from flyte_manager.copilot.upload import Upload

    declared = interface_pb2.VariableMap.FromString(options.outputs)
    try:
        made = Upload(files, options.folder, options.raw.rstrip("/")).outputs(declared)
        files.write(f"{options.results}/outputs.pb", made.SerializeToString(deterministic=True))
    except DataProblem as problem:
        report(files, problem, options.results)
        print(problem, file=sys.stderr)
        return 1
    return 0


def _tried(act: "Callable[[Files], int]", seconds: float) -> int:
    """Again and again for so long, while only the store is to blame."""
    from flyte_manager.blobs.files import Files, options_of
    from flyte_manager.domain.errors import Unavailable

    files, deadline, pause = Files(options_of(os.environ)), time.monotonic() + seconds, 1.0
    while True:
        try:
            return act(files)
        except Unavailable as error:
            print(error, file=sys.stderr, flush=True)
            if time.monotonic() + pause > deadline:
                return 1
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
