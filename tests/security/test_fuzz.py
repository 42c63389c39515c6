"""Requests that nobody would think of, to every method by every protocol: none is a fault of ours, none tells secrets.

The same ones each time. `FUZZ_EXAMPLES=500 .venv/bin/pytest tests/security/test_fuzz.py` sends more, others each time.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.managers import Manager
from tests.security.asking import SCOPE, SERVED, prepared
from tests.security.fuzzing.making import broken, documents, messages, targets
from tests.security.fuzzing.wires import Answer, Send, Wires

ASKED_FOR_MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))
METHODS = sorted(SERVED, key=lambda method: ("Abort" in method, method))  # what ends the prepared run comes last
FAULTS = ("internal", "unknown", "data_loss")
OURS = ("Traceback", 'File "', ".py", "sqlite", "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "[SQL", "sqlalchemy")
"""what no answer contains, unless the request did"""

FAULTS_IN_THE_LOG = ("failed, id", "Traceback", "tried again", "ERROR", "Exception")


def fuzzed(examples: int) -> settings:
    return settings(
        max_examples=ASKED_FOR_MORE or examples,
        derandomize=not ASKED_FOR_MORE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with Manager(tmp_path_factory.mktemp("fuzz"), {"embedded.cpu": "1000"}) as started:
        yield started


@pytest.fixture(scope="module")
def wires(manager: Manager) -> Iterator[Wires]:
    with prepared(manager), closing(Wires(manager)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def alive(manager: Manager) -> Iterator[None]:
    """After each test the manager is as well as before."""
    seen = len(manager.log)
    yield
    assert manager.serves()
    assert not [line for line in manager.log[seen:].splitlines() if any(fault in line for fault in FAULTS_IN_THE_LOG)]


def sent(manager: Manager, send: Send, method: str, body: bytes) -> Answer:
    answer = send(method, body)
    assert answer.code not in FAULTS, f"{method}: {answer}"
    assert not answer.code.startswith("http 5"), f"{method}: {answer}"
    asked = body.decode("utf-8", "replace")
    text = answer.text.replace(str(manager.data / "blobs"), "")  # where the store is, clients know anyway
    told = [word for word in (*OURS, str(manager.folder)) if word in text and word not in asked]
    assert not told, f"{method} tells {told}: {answer}"
    return answer


@pytest.mark.parametrize("method", METHODS)
def test_no_message_is_a_fault_by_any_protocol(manager: Manager, wires: Wires, method: str) -> None:
    @fuzzed(12)
    @given(messages(method), st.sampled_from(["connect", "grpc", "grpc-web"]))
    def check(message: Message, road: str) -> None:
        sent(manager, wires.messages[road], method, message.SerializeToString())

    check()


@pytest.mark.parametrize("method", METHODS)
def test_no_bytes_are_a_fault_by_any_protocol(manager: Manager, wires: Wires, method: str) -> None:
    @fuzzed(8)
    @given(broken(method), st.sampled_from(sorted(wires.messages)))
    def check(body: bytes, road: str) -> None:
        sent(manager, wires.messages[road], method, body)

    check()


@pytest.mark.parametrize("method", METHODS)
def test_no_json_is_a_fault(manager: Manager, wires: Wires, method: str) -> None:
    @fuzzed(8)
    @given(documents(method), st.sampled_from(sorted(wires.documents)))
    def check(body: bytes, road: str) -> None:
        sent(manager, wires.documents[road], method, body)

    check()


def test_no_altered_url_is_a_fault_or_opens_another_file(manager: Manager) -> None:
    asked = {**SCOPE, "filename": "f", "filenameRoot": "fuzzed"}
    told = manager.call("dataproxy.DataProxyService/CreateUploadLocation", asked).json()
    url = urlsplit(told["signedUrl"])
    before = files(manager)

    @fuzzed(200)
    @given(targets(f"{url.path}?{url.query}"), st.sampled_from(["PUT", "GET", "HEAD"]))
    def check(target: bytes, verb: str) -> None:
        with socket.create_connection(("127.0.0.1", manager.ports["api"]), timeout=20) as connection:
            head = f" HTTP/1.1\r\nhost: {manager.endpoint}\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
            connection.sendall(verb.encode() + b" " + target + head.encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4")), answer[:200]
        assert not any(word.encode() in answer for word in OURS), answer

    check()
    assert files(manager) - before <= {Path(told["nativeUrl"])}
    assert httpx.put(told["signedUrl"], content=b"ok", trust_env=False).status_code == httpx.codes.OK
    assert files(manager) - before == {Path(told["nativeUrl"])}


def files(manager: Manager) -> set[Path]:
    return {path for path in manager.folder.rglob("*") if path.is_file() and "attempts" not in path.parts}
