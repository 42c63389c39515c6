"""The command as its user sees it: what it prints, and its exit codes."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml

from flyte_manager import __version__, cli
from flyte_manager.cli import main
from flyte_manager.config import KEYS
from flyte_manager.kubernetes import crd

PROGRAM = "import sys; from flyte_manager.cli import main; sys.exit(main())"
FREE_PORTS = [
    "--manager.runsService.port=0",
    "--manager.queueService.port=0",
    "--manager.executor.healthProbePort=0",
    "--dataDir=data",
    "--embedded.warm=false",
]
SECONDS = 30.0
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")},
    "HOME": "/nonexistent",  # whoever runs the tests may have a cluster
    "PYTHONPATH": str(Path(__file__).parents[3]),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with the working directory of the test."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running command, killed at the end if it still runs."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_banner(process: subprocess.Popen[str]) -> list[str]:
    """The lines up to the one that says ready; a process that never says so is killed, which ends the reading."""
    assert process.stdout is not None
    too_late = threading.Timer(SECONDS, process.kill)
    too_late.start()
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ready in "):
            break
    too_late.cancel()
    assert lines, "it ended without a word"
    assert lines[-1].startswith("Ready in "), lines
    return lines


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_version_tells_the_sdk_too(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked]) == 0
    assert capsys.readouterr().out.startswith(f"flyte-manager {__version__} (flyte 2.")


def test_config_show_tells_each_value_and_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("logger:\n  level: 3\n")
    monkeypatch.setenv("FLYTE_MANAGER__EMBEDDED__CPU", "2")
    assert main(["config", "show", "--server.allowedHosts", "a.example.org,b.example.org"]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [key.name for key in KEYS]
    told = {name: " ".join(rest.split()) for name, rest in rows}
    assert told["logger.level"] == "3 config.yaml:2"
    assert told["embedded.cpu"] == "2 environment FLYTE_MANAGER__EMBEDDED__CPU"
    assert told["server.allowedHosts"] == "[a.example.org, b.example.org] flag --server.allowedHosts"
    assert told["embedded.python"] == '"" default'


@pytest.mark.parametrize(
    "arguments", [["--config", "my.yaml", "config", "show"], ["config", "show", "--config=my.yaml"]]
)
def test_flags_stand_before_or_after_the_command(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.yaml").write_text("logger: {level: 2}\n")
    assert main(arguments) == 0
    assert "my.yaml:1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--manager.runService.port=1"], "did you mean manager.runsService.port?"),
        (["--logger.lev", "5"], "did you mean logger.level?"),
        (["--logger.level=loud"], "flag --logger.level: logger.level needs a whole number"),
        (["--logger.level"], "expected one argument"),
        (["-x"], "unrecognized arguments: -x"),
        (["start"], "unknown command 'start': use config show, crd, doctor, prune, version, or none"),
        (["--config", "none.yaml"], "configuration file none.yaml was not found"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("flyte-manager: ")
    assert said in told
    assert told.count("\n") == 1


def test_help_names_every_flag_and_gives_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(key.flag in told for key in KEYS)
    assert "examples:" in told


def test_a_start_serves_when_it_says_so_and_ends_on_sigterm(tmp_path: Path) -> None:
    with started(*FREE_PORTS) as process:
        lines = read_banner(process)
        for name in ("API", "Queue", "Health"):
            url = next(line.split()[1] for line in lines if line.split()[:1] == [name])
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                assert answer.status == 200
        assert any(line.strip().startswith("flyte create config --endpoint localhost:") for line in lines)
        assert any(str(tmp_path / "flyte.db") in line for line in lines)
        assert f"served by the running manager, pid {process.pid}" in run("doctor", *FREE_PORTS).stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


def test_a_taken_port_ends_the_start_in_the_words_of_the_original() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        ended = run(*FREE_PORTS, f"--manager.runsService.port={port}")
    assert ended.returncode == 1
    assert f"flyte-manager: address already in use: localhost:{port} (pid {os.getpid()}" in ended.stderr
    assert "manager.runsService.port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_broken_database_ends_the_start_in_the_words_of_the_original(tmp_path: Path) -> None:
    (tmp_path / "flyte.db").write_bytes(b"no database" * 1000)
    ended = run(*FREE_PORTS)
    assert ended.returncode == 1
    assert "flyte-manager: failed to run migrations: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_directory_that_cannot_be_made_ends_the_start_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(*FREE_PORTS, f"--dataDir={tmp_path / 'file' / 'data'}")
    assert ended.returncode == 1
    assert re.fullmatch(
        r"flyte-manager: \S+/file/\S+ can't be written \(Not a directory\): .* set dataDir .*\n", ended.stderr
    )


def test_doctor_ends_with_1_when_something_is_bad(tmp_path: Path) -> None:
    (tmp_path / "flyte.db").write_bytes(b"no database" * 1000)
    ended = run("doctor", *FREE_PORTS)
    assert ended.returncode == 1
    assert "  bad   database" in ended.stdout
    assert ended.stdout.endswith("1 to mend before the manager can serve.\n")


def test_doctor_tries_the_warm_start_and_changes_nothing(tmp_path: Path) -> None:
    ended = run("doctor", *FREE_PORTS[:-1])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "works: a task that does nothing has run" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_pods_without_a_cluster_end_the_start_in_the_words_of_the_original() -> None:
    ended = run(*FREE_PORTS, "--manager.mode=kubernetes")
    assert ended.returncode == 1
    assert ended.stderr.startswith("flyte-manager: failed to get Kubernetes config: ")
    assert "manager.kubernetes.kubeconfig" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_doctor_says_that_there_is_no_cluster_for_pods() -> None:
    ended = run("doctor", *FREE_PORTS, "--manager.mode=kubernetes")
    assert ended.returncode == 1
    assert "  bad   mode         failed to get Kubernetes config: " in ended.stdout


def test_doctor_asks_the_clusters_that_a_start_would_ask(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        (tmp_path / "kubeconfig").write_text(
            yaml.safe_dump(
                {
                    "current-context": "silent",
                    "contexts": [{"name": "silent", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{nobody.getsockname()[1]}"}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )
        if_it_can = run("doctor", *FREE_PORTS, KUBECONFIG="kubeconfig")
        it_must = run("doctor", *FREE_PORTS, "--manager.kubernetes.kubeconfig=kubeconfig")
        never = run("doctor", *FREE_PORTS, "--manager.mode=embedded", KUBECONFIG="kubeconfig")
    assert "does not answer" in if_it_can.stdout
    assert "  bad   cluster" not in if_it_can.stdout
    assert if_it_can.returncode == 0
    assert "  bad   cluster" in it_must.stdout
    assert "set storage.url" in it_must.stdout
    assert it_must.returncode == 1
    assert "silent" not in never.stdout


def test_crd_prints_the_definition_for_kubectl() -> None:
    ended = run("crd")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert yaml.safe_load(ended.stdout) == crd.definition()


def test_who_reads_only_the_first_lines_sees_no_trace() -> None:
    command = [sys.executable, "-c", PROGRAM, "config", "show"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 1


def test_a_start_serves_on_when_nobody_reads_what_it_prints() -> None:
    command = [sys.executable, "-c", PROGRAM, *FREE_PORTS]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        line = next(line for line in process.stderr if b"stdout" in line)
        assert b"stdout can't be written (Broken pipe)" in line
        process.terminate()
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 0


def test_a_start_without_any_open_file_serves() -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    ports = [f"--manager.runsService.port={port}", *FREE_PORTS[1:]]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", PROGRAM, *ports]
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        try:
            while process.poll() is None and not serves(port):
                time.sleep(0.1)
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def test_a_copy_of_a_database_is_not_served_beside_it() -> None:
    with started(*FREE_PORTS) as process:
        read_banner(process)
        with closing(sqlite3.connect("flyte.db")) as original, closing(sqlite3.connect("copy.db")) as copy:
            original.backup(copy)
        ended = run(*FREE_PORTS, "--database.sqlite.file=copy.db")
        assert ended.returncode == 1
        assert f"are in use by the manager with pid {process.pid}, whose database is a copy of this one" in ended.stderr
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    with started(*FREE_PORTS, "--database.sqlite.file=copy.db") as process:
        read_banner(process)


def serves(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_ctrl_c_ends_a_command_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_version", interrupted)
    assert main(["version"]) == 130


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_trace() -> None:
    program = """if True:
        import os, signal, sys
        class Meanwhile:
            def find_spec(self, name, path=None, target=None):
                if name == "flyte_manager.app":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Meanwhile())
        import flyte_manager.cli
        """
    ended = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, timeout=SECONDS)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")


def test_without_a_cluster_nothing_of_kubernetes_is_imported() -> None:
    program = "import sys, flyte_manager.cli; print('aiohttp' in sys.modules, 'obstore' in sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert imported.stdout == "False False\n"
