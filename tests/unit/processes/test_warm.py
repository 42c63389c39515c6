"""Real tasks of the real SDK, forked warm from the zygote and started cold: the task must not see a difference."""

import asyncio
import sysconfig
import tarfile
import venv
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from flyte._code_bundle._utils import tar_strip_file_attributes

from flyte_manager.domain.attempts import Exit
from flyte_manager.domain.ids import AttemptId
from flyte_manager.processes import forker, selftest, temporary, warm
from flyte_manager.processes.forker import Send
from tests.unit.processes.world import PYTHON, World, world

SDK = {
    "_U_EP_OVERRIDE": "localhost:9",
    "_U_INSECURE": "true",
    "_U_USE_ACTIONS": "1",
    "FLYTE_INTERNAL_EXECUTION_PROJECT": "demo",
    "FSSPEC_FILE": '{"auto_mkdir": true}',
}
HEAD = """
import asyncio, atexit, json, multiprocessing, os, sys, tempfile, threading, time
import flyte
env = flyte.TaskEnvironment("test")
"""


class Tasks:
    """Runs task modules as attempts."""

    def __init__(self, made: World, folder: Path) -> None:
        self.world = made
        self._folder = folder
        self._count = 0

    async def run(self, source: str, env: Mapping[str, str] | None = None) -> tuple[AttemptId, Exit, Path]:
        """The module needs a task `main`; returns the attempt, its exit and the folder of its outputs."""
        self._count += 1
        name, base = f"a{self._count}", self._folder / f"base{self._count}"
        outputs, bundle = base / "outputs", base / "code.tgz"
        base.mkdir()
        (base / "tasks.py").write_text(HEAD + source)
        with tarfile.open(bundle, "w:gz") as archive:
            archive.add(base / "tasks.py", "tasks.py", filter=tar_strip_file_attributes)
        (base / "inputs.pb").write_bytes(b"")
        attempt = await self.world.start(
            name, "a0", "--inputs", str(base / "inputs.pb"), "--outputs-path", str(outputs), "--version", "1",
            "--raw-data-path", str(base / "raw"), "--checkpoint-path", str(outputs / "checkpoints"),
            "--prev-checkpoint", "", "--run-name", "r1", "--name", name, "--run-base-dir", str(base),
            "--project", "demo", "--domain", "development", "--org", "local", "--tgz", str(bundle), "--dest", ".",
            "--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver",
            "mod", "tasks", "instance", "main", env={**SDK, **(env or {})},
        )  # fmt: skip
        seen = await self.world.end(attempt)
        assert seen.exit
        return attempt, seen.exit, outputs


@pytest.fixture(params=["warm", "cold"])
async def tasks(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tasks]:
    async with world(tmp_path / "attempts", warm=request.param == "warm") as made:
        assert made.processes.warm_status.split(":")[0] == request.param
        yield Tasks(made, tmp_path)


@pytest.fixture
async def warm_tasks(tmp_path: Path) -> AsyncIterator[Tasks]:
    async with world(tmp_path / "attempts", warm=True) as made:
        assert made.processes.warm_status == "warm"
        yield Tasks(made, tmp_path)


async def test_a_task_finds_its_process_as_if_fresh(tasks: Tasks) -> None:
    source = """
@env.task
async def main() -> str:
    main_module = sys.modules["__main__"]
    print(json.dumps([
        os.getcwd(), sys.argv[0], sys.path[:2], tempfile.gettempdir(), os.environ["OWN"], os.environ["TMPDIR"],
        os.getpid() == os.getsid(0), "flyte_manager" in sys.modules,
        time.strftime("%Z"), open("/proc/self/oom_score_adj").read().strip(), hasattr(main_module, "Zygote"),
        sys.stdin.read(), flyte.ctx().action.name,
    ]))
    return "done"
"""
    attempt, end, outputs = await tasks.run(source, {"OWN": "mine", "TZ": "Asia/Tokyo"})
    output = await tasks.world.output(attempt)
    folder = tasks.world.folder(attempt)
    (line,) = [line for line in output if line.startswith('["')]
    place = temporary.place(str(folder))
    assert line == (
        f'["{folder}/work", "{PYTHON.parent}/a0", [".", "{PYTHON.parent}"], "{place}", "mine", "{place}", '
        f'true, false, "JST", "500", false, "", "{attempt.action.name}"]'
    )
    assert (end.code, end.reason) == (0, None)
    assert (outputs / "outputs.pb").exists()
    assert end.usage.cpu_seconds > 0.01


async def test_a_raised_error_becomes_error_pb_and_exit_code_0(tasks: Tasks) -> None:
    attempt, end, outputs = await tasks.run("@env.task\nasync def main() -> None: raise ValueError('as expected')")
    assert end.code == 0, await tasks.world.output(attempt)
    assert b"as expected" in (outputs / "error.pb").read_bytes()


async def test_exit_codes_and_deaths_are_told(tasks: Tasks) -> None:
    for ending, code in (("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)):
        _, end, _ = await tasks.run(f"@env.task\nasync def main() -> None: {ending}")
        assert end.code == code


async def test_what_the_task_registered_for_its_end_runs(tasks: Tasks) -> None:
    source = """
def later():
    time.sleep(0.2)
    print("thread is done")

@env.task
async def main() -> None:
    atexit.register(print, "registered")
    threading.Thread(target=later).start()
"""
    attempt, end, _ = await tasks.run(source)
    assert end.code == 0
    assert (await tasks.world.output(attempt))[-2:] == ["thread is done", "registered"]


async def test_multiprocessing_works_in_all_its_ways(tasks: Tasks) -> None:
    source = """
def double(x: int) -> int:
    return 2 * x

@env.task
async def main() -> None:
    for way in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(way).Pool(1) as pool:
            print(way, pool.map(double, [1, 2]))
"""
    attempt, end, outputs = await tasks.run(source)
    output = await tasks.world.output(attempt)
    assert (outputs / "outputs.pb").exists(), output
    assert [line for line in output if line.endswith("[2, 4]")] == [
        "fork [2, 4]",
        "spawn [2, 4]",
        "forkserver [2, 4]",
    ]
    assert end.code == 0


async def test_the_log_level_is_the_attempts_own(tasks: Tasks) -> None:
    source = "@env.task\nasync def main() -> None: ..."
    attempt, _, _ = await tasks.run(source, {"LOG_LEVEL": "40"})
    assert await tasks.world.output(attempt) == []
    attempt, _, _ = await tasks.run(source, {"LOG_LEVEL": "10"})
    assert len(await tasks.world.output(attempt)) > 20


async def test_output_is_seen_while_the_task_runs(tasks: Tasks) -> None:
    source = "@env.task\nasync def main() -> None:\n    print('early')\n    time.sleep(0.7)"
    attempt, end, _ = await tasks.run(source)
    (early,) = [line for line in await tasks.world.lines(attempt) if line.message == "early"]
    assert (end.ended_at - early.at).total_seconds() >= 0.6


async def test_variables_that_count_only_at_the_start_make_the_attempt_cold(warm_tasks: Tasks) -> None:
    source = "@env.task\nasync def main() -> None: print(sys.flags.hash_randomization, sys.flags.optimize)"
    attempt, _, _ = await warm_tasks.run(source, {"PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "1"})
    assert "0 1" in await warm_tasks.world.output(attempt)
    attempt, _, _ = await warm_tasks.run(source)
    assert "1 0" in await warm_tasks.world.output(attempt)


async def test_a_task_finds_the_configuration_of_the_repository_around_it(tasks: Tasks, tmp_path: Path) -> None:
    source = """
from flyte.config._reader import resolve_config_path

@env.task
async def main() -> None: print("found", resolve_config_path())
"""
    attempt, _, _ = await tasks.run(source)
    assert "found None" in await tasks.world.output(attempt)
    await (await asyncio.create_subprocess_exec("git", "init", "--quiet", tmp_path)).wait()
    (tmp_path / ".flyte").mkdir()
    (tmp_path / ".flyte" / "config.yaml").write_text("admin: {}\n")
    attempt, _, _ = await tasks.run(source)
    assert f"found {tmp_path / '.flyte' / 'config.yaml'}" in await tasks.world.output(attempt)


async def test_a_task_knows_its_own_environments_only(tasks: Tasks) -> None:
    source = """
from flyte._environment import list_loaded_environments

@env.task
async def main() -> None: print([each.name for each in list_loaded_environments()])
"""
    attempt, _, _ = await tasks.run(source)
    assert "['test']" in await tasks.world.output(attempt)


async def test_a_warm_task_that_asks_nothing_makes_no_client(warm_tasks: Tasks) -> None:
    source = """
@env.task
async def main() -> None:
    print("made", "_made" in vars(flyte._initialize._init_config.client))
"""
    attempt, _, _ = await warm_tasks.run(source)
    assert "made False" in await warm_tasks.world.output(attempt)


async def test_a_warm_task_finds_its_code_and_nothing_that_comes_of_fetching_and_compiling_it(
    warm_tasks: Tasks,
) -> None:
    source = """
@env.task
async def main() -> None: print(os.listdir("."), sys.dont_write_bytecode)
"""
    attempt, _, _ = await warm_tasks.run(source)
    assert "['tasks.py'] False" in await warm_tasks.world.output(attempt)


async def test_a_module_from_outside_of_the_bundle_is_compiled_once_for_all(warm_tasks: Tasks, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "library.py").touch()
    source = f"""
sys.path.append({str(tmp_path / "elsewhere")!r})
import library

@env.task
async def main() -> None: print("kept", os.path.exists(library.__cached__))
"""
    attempt, _, _ = await warm_tasks.run(source)
    assert "kept True" in await warm_tasks.world.output(attempt)


async def test_a_warm_task_without_children_starts_no_controller_for_them(warm_tasks: Tasks) -> None:
    source = """
@env.task
async def main() -> None: print(sorted(thread.name for thread in threading.enumerate()))
"""
    attempt, end, _ = await warm_tasks.run(source)
    output = await warm_tasks.world.output(attempt)
    assert not [line for line in output if "ControllerThread" in line or "never awaited" in line]
    assert [line for line in output if "MainThread" in line]
    assert end.code == 0


@pytest.mark.parametrize(
    "name", ["PYTHONPATH", "LD_PRELOAD", "MALLOC_ARENA_MAX", "SSL_CERT_FILE", "FLYTE_IO_BATCH_SIZE"]
)
def test_variables_that_count_only_at_the_start_are_known(name: str) -> None:
    assert warm.only_counts_at_start(name)
    assert not warm.only_counts_at_start("MY_" + name)


async def test_an_interpreter_without_the_sdk_starts_cold_and_says_why(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    async with world(tmp_path / "attempts", warm=True, python=tmp_path / "venv" / "bin" / "python") as made:
        assert made.processes.warm_status.startswith("cold: ")
        assert "No module named 'flyte'" in made.processes.warm_status
        attempt = await made.shell("a0", "echo works")
        await made.end(attempt)
        assert await made.output(attempt) == ["works"]
        attempt = await made.start("a1", "a0", "--help")
        seen = await made.end(attempt)
        assert seen.exit
        assert seen.exit.code == 1
        assert "flyte" in "".join(await made.output(attempt))


async def test_libraries_that_leave_threads_mean_cold_and_no_more_than_a_line_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    (packages / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (packages / "sitecustomize.py").write_text(
        "import sys, threading\nif sys.orig_argv[-1] == 'warm':\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    async with world(tmp_path / "attempts", warm=True, python=tmp_path / "venv" / "bin" / "python") as made:
        assert made.processes.warm_status == "cold: threads live after the imports: python"
    assert [record.getMessage().partition(":")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "tasks start cold, each imports the SDK anew"
    ]


async def test_a_failed_self_test_means_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_MODULE", "raise RuntimeError('the SDK has changed')")
    async with world(tmp_path / "attempts", warm=True) as made:
        assert made.processes.warm_status.startswith("cold: the self-test failed with code ")
        assert made.processes.zygote_pid
        await made.end(await made.shell("a0", "true"))


async def test_without_any_interpreter_nothing_starts(tmp_path: Path) -> None:
    async def untried(_: Send) -> str:
        return ""

    failing = forker.Forker(python=tmp_path / "none", env={}, warm=True, self_test=untried)
    with pytest.raises(forker.ZygoteFailed, match=r"embedded\.python"):
        await failing.start()
    await failing.stop()
