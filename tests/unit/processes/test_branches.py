"""Tasks whose libraries were imported beforehand, and those where that would be seen, so that it isn't done."""

import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_manager.domain.ids import AttemptId
from flyte_manager.processes import branches, linux
from flyte_manager.processes.environment import listed_environment
from flyte_manager.processes.sharing import kind_of
from tests.unit.processes.world import World, eventually, world

SDK = {
    "_U_EP_OVERRIDE": "localhost:9",
    "_U_INSECURE": "true",
    "_U_USE_ACTIONS": "1",
    "FLYTE_INTERNAL_EXECUTION_PROJECT": "demo",
    "FSSPEC_FILE": '{"auto_mkdir": true}',
}
TASK = """
import os, sys, time
import flyte
{before}
import library

env = flyte.TaskEnvironment("test")
OWN = os.getpid()

@env.task
async def main() -> None:
    print("imported", "here" if library.pid == os.getpid() else "beforehand", "code", OWN == os.getpid())
    {inside}
"""
ROUNDS = 6


class Shop:
    """Runs attempts of one kind, with a library of the interpreter that the test writes."""

    def __init__(self, made: World, libraries: Path, folder: Path) -> None:
        self.world = made
        self.libraries = libraries
        self._folder = folder
        self._count = 0

    def stock(self, library: str, *, before: str = "", inside: str = "", bundle: str = "code") -> None:
        (self.libraries / "library.py").write_text(f"import os\npid = os.getpid()\n{textwrap.dedent(library)}")
        self.pack(bundle, before=before, inside=inside)

    def pack(self, bundle: str, *, before: str = "", inside: str = "") -> None:
        (self._folder / "tasks.py").write_text(TASK.format(before=before, inside=inside))
        with tarfile.open(self._folder / f"{bundle}.tgz", "w:gz") as archive:
            archive.add(self._folder / "tasks.py", "tasks.py")

    async def start(self, bundle: str = "code", **more: object) -> AttemptId:
        self._count += 1
        name, base = f"a{self._count}", self._folder / "base"
        (base / name).mkdir(parents=True)
        (base / name / "inputs.pb").write_bytes(b"")
        return await self.world.start(
            name, "a0", "--inputs", str(base / name / "inputs.pb"), "--outputs-path", str(base / name / "1"),
            "--version", "1", "--raw-data-path", str(base / name / "raw"), "--run-name", "r1", "--name", name,
            "--run-base-dir", str(base), "--project", "demo", "--domain", "development", "--org", "local",
            "--tgz", str(self._folder / f"{bundle}.tgz"), "--dest", ".",
            "--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver",
            "mod", "tasks", "instance", "main", env={**SDK, "RUN_NAME": "r1", "ACTION_NAME": name}, **more,
        )  # fmt: skip

    async def run(self, bundle: str = "code", **more: object) -> str:
        """Its output, without what the SDK says."""
        attempt = await self.start(bundle, **more)
        seen = await self.world.end(attempt)
        output = [line for line in await self.world.output(attempt) if not line.startswith("[flyte]")]
        assert seen.exit
        assert seen.exit.code == 0, output
        return "\n".join(output)

    def branches(self) -> list[int]:
        zygote = self.world.processes.zygote_pid
        assert zygote
        return [pid for pid in linux.children(zygote) if linux.name_of(pid) == "branch"]

    async def until_beforehand(self, bundle: str = "code") -> None:
        async def found() -> bool:
            return "beforehand" in await self.run(bundle)

        await eventually(found)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    env = {**listed_environment(os.environ, ()), "PYTHONPATH": str(libraries), "PYTHONDONTWRITEBYTECODE": "1"}
    async with world(tmp_path / "attempts", warm=True, base_env=env) as made:
        assert made.processes.warm_status == "warm"
        yield Shop(made, libraries, tmp_path)


async def test_later_tasks_find_their_libraries_imported_and_run_their_own_code(shop: Shop) -> None:
    shop.stock("")
    assert await shop.run() == "imported here code True"
    await shop.until_beforehand()
    assert await shop.run() == "imported beforehand code True"


async def test_a_task_with_a_secret_imports_for_itself(shop: Shop) -> None:
    shop.stock("")
    await shop.until_beforehand()
    assert "imported here" in await shop.run(secret_env={"PASSWORD": b"x"})


@pytest.mark.parametrize(
    "library",
    [
        "print('hello')",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
        "import uuid\nidentity = uuid.uuid4()",
        "import random\nlot = random.random()",
        "run = os.environ.get('RUN_NAME')",
        "everything = dict(os.environ)",
        "import socket\nserver = socket.socket()",
        "import signal\nsignal.signal(signal.SIGUSR2, signal.SIG_IGN)",
        "import subprocess\nchild = subprocess.Popen(['sleep', '5'])",
        "if __import__('sys').argv[0].endswith('zygote.py'): raise RuntimeError('not today')",
    ],
)
async def test_a_library_whose_import_would_be_seen_is_imported_by_each_task(
    shop: Shop, library: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop.stock(library)
    first = await shop.run()
    for _ in range(ROUNDS):
        assert await shop.run() == first
    assert "imported here" in first
    await eventually(lambda: "import their libraries each" in caplog.text)
    assert not shop.branches()


@pytest.mark.parametrize(
    "before",
    [
        "os.environ['OMP_NUM_THREADS'] = '1'",
        "sys.meta_path.insert(0, type('Hook', (), {'find_spec': staticmethod(lambda *_: None)}))",
        "sys.path.append('/somewhere/else')",
    ],
)
async def test_code_that_changes_how_things_are_imported_keeps_its_imports(shop: Shop, before: str) -> None:
    shop.stock("", before=before)
    for _ in range(ROUNDS):
        assert "imported here" in await shop.run()
    assert not shop.branches()


async def test_tasks_outlive_their_branch_and_later_ones_import_for_themselves(shop: Shop, tmp_path: Path) -> None:
    shop.stock("", inside=f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)")
    (tmp_path / "go").touch()
    await shop.until_beforehand()
    (tmp_path / "go").unlink()
    attempt = await shop.start()
    (branch,) = shop.branches()
    os.kill(branch, signal.SIGKILL)
    await eventually(lambda: not shop.branches())
    (tmp_path / "go").touch()
    seen = await shop.world.end(attempt)
    assert seen.exit
    assert (seen.exit.code, seen.exit.detail) == (0, "")
    assert "imported here" in await shop.run()


async def test_four_branches_are_kept(shop: Shop) -> None:
    for number in range(branches.MOST + 1):
        shop.stock("", bundle=f"code{number}")
        await shop.until_beforehand(f"code{number}")
    assert len(shop.branches()) == branches.MOST
    assert "beforehand" in await shop.run("code1")


async def test_tasks_of_a_branch_that_has_to_go_run_on(shop: Shop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    shop.stock("", inside=f"while not os.path.exists({str(go)!r}): time.sleep(0.01)")
    go.touch()
    await shop.until_beforehand()
    go.unlink()
    attempts = [await shop.start() for _ in range(3)]
    (first,) = shop.branches()
    os.kill(first, signal.SIGSTOP)  # it goes as slowly as can be
    for number in range(branches.MOST):
        shop.pack(f"code{number}")
        await shop.until_beforehand(f"code{number}")
    os.kill(first, signal.SIGCONT)
    await eventually(lambda: not linux.birth(first))
    go.touch()
    for attempt in attempts:
        seen = await shop.world.end(attempt)
        assert seen.exit
        assert (seen.exit.code, seen.exit.detail) == (0, "")
        assert "imported beforehand" in "".join(await shop.world.output(attempt))


async def test_branches_end_with_their_zygote(shop: Shop) -> None:
    shop.stock("")
    await shop.until_beforehand()
    (branch,) = shop.branches()
    assert shop.world.processes.zygote_pid
    os.kill(shop.world.processes.zygote_pid, signal.SIGKILL)
    await eventually(lambda: not linux.birth(branch))
    assert "imported here" in await shop.run()


def test_a_branch_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "sleepy.py").write_text("import time\ntime.sleep(60)")
    script = f"""
import select, sys, time
sys.path.insert(0, {str(tmp_path)!r})
from flyte_manager.processes import branches, linux
from flyte_manager.processes.folder import Order
branches.IMPORT_SECONDS = 0.3
all = branches.Branches(None)
all._wanted["k"] = {{"sleepy": {str(tmp_path / "sleepy.py")!r}}}
assert not all.take(Order("", [], {{}}, kind="k"), b"", None)
(pid,) = all.pids()
time.sleep(all.seconds_left())
all.attend(set())
time.sleep(0.2)
assert list(linux.reap()) == [pid]
all.ended(pid)
assert all.seconds_left() is None
assert not all.take(Order("", [], {{}}, kind="k"), b"", None) and not all.pids()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "they take more than 0.3 s" in done.stderr


def test_a_kind_leaves_out_what_names_the_attempt() -> None:
    argv = ["a0", "--name", "x", "--inputs", "/x", "--tgz", "/code.tgz", "mod", "tasks", "instance", "main"]
    kind = kind_of(argv, {"ACTION_NAME": "x", "MODE": "1"}, secret=False)
    assert kind == kind_of([*argv[:2], "y", *argv[3:]], {"ACTION_NAME": "y", "MODE": "1"}, secret=False) != ""
    assert kind != kind_of(argv, {"ACTION_NAME": "x", "MODE": "2"}, secret=False)
    assert kind != kind_of([*argv[:-1], "other"], {"ACTION_NAME": "x", "MODE": "1"}, secret=False)
    assert kind != kind_of([*argv[:6], "/new.tgz", *argv[7:]], {"ACTION_NAME": "x", "MODE": "1"}, secret=False)


def test_a_secret_and_a_task_without_a_bundle_have_no_kind() -> None:
    assert kind_of(["a0", "--tgz", "/code.tgz"], {}, secret=True) == ""
    assert kind_of(["a0", "mod", "tasks"], {}, secret=False) == ""
