"""What tasks take and give: files, folders, data frames, reports, secrets."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.managers import Manager
from tests.sdk.user import User

pytestmark = pytest.mark.sdk
API_KEY, CERTIFICATE = "very-secret-key", "very-secret-certificate"


@pytest.fixture(scope="module")
def secrets(user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("secret") / "certificate"
    file.write_text(CERTIFICATE)
    user.flyte("create", "secret", "api-key", "--value", API_KEY)
    user.flyte("create", "secret", "certificate", "--from-file", file)


def test_files_folders_and_data_frames_go_in_and_come_out(user: User, tmp_path: Path) -> None:
    output = user.python("files.py", tmp_path).output
    assert "file HELLO" in output
    assert "dir in [('one.txt', 1), ('three.txt', 3)]" in output
    assert "dir out ['x', 'yy']" in output
    assert "frame out [0, 1, 4]" in output
    assert "frame in 4" in output


def test_data_frames_and_folders_go_from_task_to_task(user: User) -> None:
    assert user.run("data.pipeline")["outputs"] == [[0 + 1 + 4 + 9, 3]]


def test_a_report_can_be_read_after_the_run(user: User) -> None:
    run = user.run("data.reports")["name"]
    assert "<h1>All is well</h1>" in user.python("read_report.py", run).output


@pytest.mark.usefixtures("secrets")
def test_a_task_gets_its_secrets_as_variable_and_as_file(user: User) -> None:
    assert user.run("data.knows")["outputs"] == [
        [hashlib.sha256(value.encode()).hexdigest() for value in (API_KEY, CERTIFICATE)]
    ]


@pytest.mark.usefixtures("secrets")
def test_a_task_that_declares_no_secrets_gets_none(user: User) -> None:
    assert user.run("data.knows_nothing")["outputs"] == [[]]


@pytest.mark.usefixtures("secrets")
def test_values_of_secrets_lie_nowhere_in_the_open(user: User, manager: Manager) -> None:
    user.run("data.knows")
    shown = user.get("secret")
    assert {"api-key", "certificate"} <= {secret["id"]["name"] for secret in shown}
    written = b"".join(
        Path(folder, name).read_bytes()
        for folder, _, names in os.walk(manager.folder)
        for name in names
        if not folder.startswith(str(manager.folder / "user"))
    )
    assert API_KEY.encode() not in written
    assert CERTIFICATE.encode() not in written


def test_a_secret_that_is_missing_fails_the_action_with_the_cure(user: User) -> None:
    run = user.run("data.lacks_a_secret")
    assert run["phase"] == "failed"
    assert "flyte create secret no-such-secret" in run["error"]
