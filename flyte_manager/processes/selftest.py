"""One real no-op through a fresh zygote: the SDK's private names that warm starts lean on may change with any release.

It is an attempt like any other, in a temporary folder: module, inputs and outputs lie in its working directory. A leaf
task never calls the backend, so none is needed; the endpoint that it is given doesn't exist.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flyte_manager.processes import folder as disk
from flyte_manager.processes import frames
from flyte_manager.processes.forker import Send

SECONDS = 30.0
_MODULE = """
import flyte

env = flyte.TaskEnvironment("self-test")


@env.task
async def main() -> None: ...
"""


async def run_no_op(send: Send, env: Mapping[str, str]) -> str:
    """Returns "" when it ended well and wrote its outputs, else what it said last."""
    with tempfile.TemporaryDirectory(prefix="flyte-self-test-") as path:
        folder = Path(path)
        order = _order(folder, env)
        try:
            async with asyncio.timeout(SECONDS + 5):
                answer = await send(order)
                if "shepherd" not in answer:
                    return f"the self-test could not be started: {answer}"
                await _end_of(int(str(answer["shepherd"])))
        except (OSError, ValueError) as error:
            return f"the self-test failed: {error or type(error).__name__}"
        return _judge(folder)


def _order(folder: Path, env: Mapping[str, str]) -> disk.Order:
    work = folder / disk.WORK
    work.mkdir()
    (work / "self_test.py").write_text(_MODULE)
    (work / "inputs.pb").write_bytes(b"")
    argv = ["a0", "--inputs", str(work / "inputs.pb"), "--outputs-path", str(work), "--version", "1"]
    argv += ["--raw-data-path", str(work), "--run-base-dir", str(work), "--name", "a0", "--run-name", "self-test"]
    argv += ["--project", "self-test", "--domain", "development", "--org", "local"]
    argv += ["--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver"]
    argv += ["mod", "self_test", "instance", "main"]
    own = {
        "_U_EP_OVERRIDE": "localhost:9",
        "_U_INSECURE": "true",
        "_U_USE_ACTIONS": "1",
        "FLYTE_INTERNAL_EXECUTION_PROJECT": "self-test",
        "FSSPEC_FILE": '{"auto_mkdir": true}',
    }
    return disk.Order(folder=str(folder), argv=argv, env={**env, **own}, run_seconds=SECONDS, grace_seconds=1.0)


def _judge(folder: Path) -> str:
    record = disk.read_record(str(folder))
    work = folder / disk.WORK
    if record and record.code == 0 and (work / "outputs.pb").exists() and not (work / "error.pb").exists():
        return ""
    said = [found[2] for line in (folder / disk.LOG).read_bytes().split(b"\n") if (found := frames.parse(line))]
    code = record.code if record else "unknown"
    return f"the self-test failed with code {code}: {' | '.join(said[-3:])[-400:] or 'it said nothing'}"


async def _end_of(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
