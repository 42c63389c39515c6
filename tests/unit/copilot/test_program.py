"""The helper as pods start it, against a real S3 server."""

import base64
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flyteidl2.core import execution_pb2, interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2

from flyte_manager.blobs.files import PIECE, Files, ObjectMissing, TransferFailed, options_of
from flyte_manager.copilot.texts import Simple
from tests.s3 import S3Server

FILE = types_pb2.LiteralType(blob=types_pb2.BlobType(dimensionality=types_pb2.BlobType.SINGLE))
DIR = types_pb2.LiteralType(blob=types_pb2.BlobType(dimensionality=types_pb2.BlobType.MULTIPART))
INTEGER = types_pb2.LiteralType(simple=Simple.INTEGER)
SECONDS = 30.0


@pytest.fixture
def files(s3: S3Server) -> Files:
    return Files(options_of(s3.task_env))


@pytest.fixture
def root(s3: S3Server, tmp_path: Path) -> str:
    return f"s3://{s3.bucket}/copilot/{tmp_path.name}"


def started(s3: S3Server, *args: str) -> subprocess.Popen[str]:
    env = {"PATH": os.environ["PATH"], **s3.task_env}
    command = [sys.executable, "-m", "flyte_manager.copilot", *args]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def uploader(s3: S3Server, folder: Path, root: str, **kinds: types_pb2.LiteralType) -> subprocess.Popen[str]:
    """One that waits for the end of the containers."""
    entry, variable = interface_pb2.VariableEntry, interface_pb2.Variable
    outputs = interface_pb2.VariableMap(
        variables=[entry(key=name, value=variable(type=kind)) for name, kind in kinds.items()]
    )
    ready = folder.parent / "ready"
    process = started(
        s3,
        *("upload", "--folder", str(folder), "--results", f"{root}/1", "--raw", f"{root}/raw/"),
        *("--outputs", base64.b64encode(outputs.SerializeToString()).decode()),
        *("--ready", str(ready), "--seconds", "60"),
    )
    until = time.monotonic() + SECONDS
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=SECONDS)
    return process.returncode, told


def error_of(files: Files, root: str) -> execution_pb2.ContainerError:
    return execution_pb2.ErrorDocument.FromString(files.read(f"{root}/1/error.pb")).error


def test_the_upload_waits_for_the_end_and_then_writes_the_outputs(
    s3: S3Server, files: Files, root: str, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs"
    (folder / "d/deep").mkdir(parents=True)
    process = uploader(s3, folder, root, n=INTEGER, f=FILE, d=DIR)
    (folder / "n").write_text("7\n")
    (folder / "f").write_bytes(b"x" * 100)
    (folder / "d/deep/a b").write_text("a")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "")
    made = common_pb2.Outputs.FromString(files.read(f"{root}/1/outputs.pb"))
    assert {each.name for each in made.literals} == {"n", "f", "d"}
    assert made.literals[0].value.scalar.primitive.integer == 7
    assert files.read(made.literals[1].value.scalar.blob.uri) == b"x" * 100
    assert files.names(f"{root}/raw/d") == ["deep/a b"]
    with pytest.raises(ObjectMissing):
        files.read(f"{root}/1/error.pb")


def test_a_second_sigterm_does_not_disturb_it(s3: S3Server, files: Files, root: str, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    process = uploader(s3, folder, root)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0
    assert files.read(f"{root}/1/outputs.pb") == b""


def test_a_missing_output_is_told_in_error_pb(s3: S3Server, files: Files, root: str, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    process = uploader(s3, folder, root, n=INTEGER)
    process.send_signal(signal.SIGTERM)
    code, told = ended(process)
    error = error_of(files, root)
    assert code == 1
    assert error.message in told
    assert (error.code, error.origin) == ("OutputMissing", execution_pb2.ExecutionError.USER)
    assert f"without writing {folder}/n" in error.message
    with pytest.raises(ObjectMissing):
        files.read(f"{root}/1/outputs.pb")


def test_the_download_writes_the_inputs(s3: S3Server, files: Files, root: str, tmp_path: Path) -> None:
    files.write(f"{root}/data.csv", b"a,b")
    blob = literals_pb2.Blob(uri=f"{root}/data.csv", metadata=literals_pb2.BlobMetadata(type=FILE.blob))
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=blob))
    inputs = common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="f", value=literal)])
    files.write(f"{root}/inputs.pb", inputs.SerializeToString())
    folder = tmp_path / "inputs"
    common = ("--folder", str(folder), "--inputs", f"{root}/inputs.pb", "--results", f"{root}/1")
    assert ended(started(s3, "download", *common, "--layout", "NAMED_DIR")) == (0, "")
    assert (folder / "f/data.csv").read_bytes() == b"a,b"
    assert (folder / "inputs.json").exists()
    assert (folder / "f/data.csv").stat().st_mode & 0o777 == 0o666
    assert (folder / "f").stat().st_mode & 0o777 == 0o777


def test_inputs_that_are_gone_are_told_in_error_pb(s3: S3Server, files: Files, root: str, tmp_path: Path) -> None:
    common = ("--folder", str(tmp_path / "i"), "--inputs", f"{root}/inputs.pb", "--results", f"{root}/1")
    assert ended(started(s3, "download", *common))[0] == 1
    assert error_of(files, root).code == "InputMissing"


def test_files_larger_than_a_piece_come_back_whole(files: Files, root: str, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * (PIECE // (1 << 20) + 1) + b"end"
    (tmp_path / "large").write_bytes(content)
    files.upload(tmp_path / "large", f"{root}/large")
    files.download(f"{root}/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_an_empty_file_comes_back_empty(files: Files, root: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    files.upload(tmp_path / "empty", f"{root}/empty")
    files.download(f"{root}/empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_a_file_of_the_web_can_be_read(files: Files, s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="can't be read: HTTP 403"):
        files.download(f"{s3.endpoint}/{s3.bucket}/none", tmp_path / "back")


def test_a_bucket_that_is_not_there_and_a_wrong_key_are_told(s3: S3Server, root: str) -> None:
    with pytest.raises(TransferFailed, match="its bucket does not exist"):
        Files(options_of(s3.task_env)).write("s3://nowhere/x", b"")
    wrong = Files(options_of({**s3.task_env, "FLYTE_AWS_SECRET_ACCESS_KEY": "wrong"}))
    with pytest.raises(TransferFailed, match="SignatureDoesNotMatch") as caught:
        wrong.read(f"{root}/x")
    assert s3.access_key not in str(caught.value)
