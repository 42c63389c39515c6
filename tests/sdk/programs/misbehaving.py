"""Tasks that treat their process, their files and their output badly."""

import atexit
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flyte

env = flyte.TaskEnvironment(name="misbehaving")
small = flyte.TaskEnvironment(name="small", resources=flyte.Resources(memory=("200Mi", "300Mi")))

MIB = 1 << 20


def _outputs() -> Path:
    """Where this attempt's outputs.pb is going to be."""
    return Path(sys.argv[sys.argv.index("--outputs-path") + 1]) / "outputs.pb"


@env.task
def imports_what_is_not_there() -> int:
    import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401

    return 1


@env.task
def imports_what_is_no_python(folder: str) -> int:
    source = Path(folder) / "broken.py"
    source.write_text("def f(:\n")
    spec = importlib.util.spec_from_file_location("broken", source)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return 1


@env.task
def leaves_at_once() -> int:
    os._exit(3)


@env.task
def crashes() -> int:
    ctypes.string_at(0)
    return 1


@small.task
def eats_memory() -> int:
    eaten = [bytearray(os.urandom(16) * MIB) for _ in range(64)]
    return len(eaten)


@env.task
def leaves_a_daemon(folder: str) -> int:
    command = "echo $$ > daemon.pid; exec sleep 1000"
    subprocess.Popen(["sh", "-c", f"setsid sh -c '{command}' &"], cwd=folder).wait()
    while not (Path(folder) / "daemon.pid").exists():
        pass
    return 1


@env.task
def talks_a_gigabyte() -> int:
    block = (b"x" * 1023 + b"\n") * 1024
    for _ in range(1024):
        os.write(1, block)
    return 1


@env.task
def talks_binary() -> int:
    os.write(1, bytes(range(256)) * 64)
    os.write(1, b"\n")
    print("and then text", flush=True)
    return 1


@env.task
def removes_its_outputs() -> int:
    atexit.register(lambda: _outputs().unlink())
    return 1


@env.task
def cuts_its_outputs() -> tuple[int, str]:
    atexit.register(lambda: os.truncate(_outputs(), _outputs().stat().st_size // 2))
    return 1, "text"


@env.task
def writes_a_broken_error() -> int:
    atexit.register(lambda: (_outputs().parent / "error.pb").write_bytes(b"\xff\xfe not an error"))
    return 1


@env.task
def closes_its_output() -> int:
    os.close(1)
    os.close(2)
    print("nobody hears this", flush=True)
    return 1


@env.task
def says_that_it_is_done() -> int:
    sys.exit(0)


@env.task
def gives_up_in_words() -> int:
    sys.exit("there is nothing to do today")


@env.task
def asserts() -> int:
    assert os.getpid() == 1
    return 1


@env.task
def links_its_outputs_elsewhere() -> int:
    def link() -> None:
        _outputs().unlink()
        _outputs().symlink_to("/etc/hostname")

    atexit.register(link)
    return 1


@env.task
def removes_its_folder(folder: str) -> int:
    with (Path(folder) / "started").open("a") as file:
        file.write("x")
    shutil.rmtree(Path.cwd().parent)
    return 1


@env.task
def goes_well() -> int:
    return 1
