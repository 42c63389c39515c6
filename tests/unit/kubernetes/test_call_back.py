"""The doctor's pod: what it says of the way to the manager, run as the program that it is, and how its end is read."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flyte_manager.kubernetes.call_back import judge, pod


class Answering(BaseHTTPRequestHandler):
    """Answers as its path says: /STATUS/BODY."""

    def do_GET(self) -> None:
        _, status, body = self.path.split("/")
        self.send_response(int(status))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as serving:
        thread = Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def ended(message: str = "", **told: object) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": {"terminated": {"message": message, **told}}}]}}


def run(url: str, folder: Path) -> str:
    """The container's program, here; the line that it leaves."""
    python, flag, program, address = pod(url, image="any", image_pull_secrets=())["spec"]["containers"][0]["command"]
    assert (python, flag) == ("python3", "-c")
    file = folder / "termination-log"
    subprocess.run(
        [sys.executable, flag, program.replace("/dev/termination-log", str(file)), address], check=True, timeout=30
    )
    return file.read_text()


@pytest.mark.parametrize(
    ("path", "verdict", "said"),
    [
        ("200/OK", "ok", "was answered"),
        ("503/down", "failed", "isn't well"),
        ("404/OK", "failed", "something else than a manager answers"),
        ("200/hello", "failed", "something else than a manager answers"),
    ],
)
def test_an_answer_is_told_from_that_of_a_stranger(path: str, verdict: str, said: str, tmp_path: Path) -> None:
    with server() as address:
        judged = judge(ended(run(f"http://{address}/{path}", tmp_path)), address)
    assert (judged.verdict, said in judged.text, address in judged.text) == (verdict, True, True)


def test_nothing_at_the_port_is_told_from_a_name_that_nobody_knows(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # without listening
        closed = f"127.0.0.1:{bound.getsockname()[1]}"
        assert judge(ended(run(f"http://{closed}/", tmp_path)), closed).verdict == "refused"
    judged = judge(ended(run("http://nobody.invalid:1/", tmp_path)), "nobody.invalid:1")
    assert "pods can't resolve the name in nobody.invalid:1" in judged.text
    assert "manager.kubernetes.taskEndpoint" in judged.text


def test_an_image_that_cannot_be_pulled_names_the_setting() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    judged = judge({"status": {"phase": "Pending", "containerStatuses": [{"state": waiting}]}}, "h:1")
    assert judged.verdict == "failed"
    assert "ErrImagePull: no such image" in judged.text
    assert "manager.kubernetes.helperImage" in judged.text


def test_a_pod_that_waits_for_a_node_says_so_in_the_schedulers_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    judged = judge({"status": {"phase": "Pending", "conditions": [condition]}}, "h:1")
    assert (judged.verdict, judged.text) == ("waiting", "Unschedulable: 0/3 nodes")


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"status": {"phase": "Failed", "reason": "DeadlineExceeded"}}, "DeadlineExceeded"),
        (ended(reason="ContainerCannotRun", message="exec: no python3"), "exec: no python3"),
        (ended(reason="OOMKilled"), "OOMKilled"),
    ],
)
def test_a_pod_that_ends_without_an_answer_says_why(seen: dict[str, Any], said: str) -> None:
    judged = judge(seen, "h:1")
    assert (judged.verdict, said in judged.text) == ("failed", True)


def test_a_pod_without_a_status_yet_is_waited_for() -> None:
    assert judge({}, "h:1").verdict == "waiting"
