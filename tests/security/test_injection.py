"""Text of a client is data everywhere: no line of the log, no page, no address to fetch, no code."""

import ast
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from google.protobuf.json_format import ParseError

import flyte_manager
from tests.managers import Manager
from tests.security.asking import (
    ASKED,
    CHILD,
    CREATE,
    NEW_ACTION,
    NEW_RUN,
    RUN,
    SCOPE,
    SPEC,
    TEMPLATE,
    Asker,
    Body,
    changed,
    leaves,
    prepared,
)

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ ")
FORGED = "2026-11-23T09:31:44.123Z ERROR rpc  forged"
BREAKS = ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x1b[2K\x1b[1A", "\x85", "\u2028", "\u2029")
MARKUP = "<script>alert(1)</script>"
BLOB = {"literals": [{"name": "x", "value": {"scalar": {"blob": {"uri": "x"}}}}]}
ADDRESSED: Sequence[tuple[str, Body]] = (
    (CREATE, {"runId": NEW_RUN, "taskSpec": SPEC, "offloadedInputData": {"uri": "x", "inputsHash": "h"}}),
    (CREATE, {"runId": NEW_RUN, "taskSpec": SPEC, "inputs": BLOB, "runSpec": {"runBaseDir": "x"}}),
    ("dataproxy.DataProxyService/UploadInputs", {"runId": NEW_RUN, "taskSpec": SPEC, "inputs": BLOB, "baseDir": "x"}),
    ("workflow.QueueService/EnqueueAction", {**CHILD, "inputUri": "x", "runOutputBase": "x"}),
    ("actions.ActionsService/Enqueue", {"action": {**CHILD, "inputUri": "x", "runOutputBase": "x"}}),
    (
        "actions.ActionsService/Enqueue",
        {
            "action": {
                "actionId": NEW_ACTION,
                "parentActionName": "a0",
                "trace": {"name": "t", "phase": "ACTION_PHASE_SUCCEEDED", "outputs": {"outputUri": "x"}},
            }
        },
    ),
)
"""requests that name places"""


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with Manager(tmp_path_factory.mktemp("injection"), {"logger.level": "5", "embedded.cpu": "1000"}) as started:
        yield started


@pytest.fixture(scope="module")
def asker(manager: Manager) -> Iterator[Asker]:
    with prepared(manager) as opened:
        yield opened


def test_no_text_of_a_client_writes_a_line_of_the_log(manager: Manager, asker: Asker) -> None:
    seen = len(manager.log)
    for number, each in enumerate(BREAKS):
        text = f"x{each}{FORGED}"
        template = {**TEMPLATE, "container": {"args": [text]}, "metadata": {"tags": {text: text}}}
        body = {"runId": {**RUN, "name": f"log{number}"}, "taskSpec": {"taskTemplate": template, "shortName": text}}
        asker.ask("workflow.RunService/CreateRun", body)
        asker.ask("workflow.RunService/AbortRun", {"runId": {**RUN, "name": f"log{number}"}, "reason": text})
        asker.ask("workflow.RunService/GetRunDetails", {"runId": {**SCOPE, "name": text}})
        asker.ask("workflow.StateService/Put", {"actionId": {"run": RUN, "name": "a0"}, "state": text})
        asker.http.post(f"{manager.url}/{httpx.QueryParams(x=text)}", headers={"user-agent": FORGED})
        asker.http.get(f"{manager.url}/blobs/read", params={"grant": text})
    written = manager.log[seen:].splitlines()
    assert any("log0" in line for line in written)
    assert not [line for line in written if line.startswith(FORGED[:24]) or not LINE.match(line)]


def test_no_answer_shows_markup_of_a_client_as_a_page(manager: Manager, asker: Asker) -> None:
    urls = [f"{manager.url}/{MARKUP}", f"{manager.url}/blobs/read?grant={MARKUP}", f"{manager.url}/blobs/{MARKUP}"]
    answers = [asker.http.get(url) for url in urls]
    answers += [asker.http.put(f"{manager.url}/blobs/write?grant={MARKUP}", content=MARKUP)]
    wrong = {"runId": {**SCOPE, "name": MARKUP}}
    answers += [asker.http.post(asker.url("workflow.RunService/GetRunDetails"), json=wrong)]
    answers += [asker.http.post(asker.url(MARKUP), json=wrong), asker.http.get(manager.url, headers={"host": MARKUP})]
    assert any(MARKUP in answer.text for answer in answers)
    for answer in answers:
        assert answer.status_code >= 400
        assert answer.headers.get("content-type", "").startswith(("application/json", "text/plain")), answer.url


def test_no_address_that_a_client_names_is_fetched(asker: Asker) -> None:
    """Every text of every good request is replaced by one of a server that waits to be called."""
    called: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.1)
        done = threading.Event()
        listener = threading.Thread(target=listen, args=(trap, called, done))
        listener.start()
        try:
            port = trap.getsockname()[1]
            urls = cycle([f"http://127.0.0.1:{port}/x.tgz", f"s3://127.0.0.1:{port}/x", f"//127.0.0.1:{port}/x"])
            for method, body in (*ADDRESSED, *(each for each in ASKED if "Abort" not in each[0])):
                for path, _ in leaves(quick(body)):
                    with suppress(ParseError):  # the name of an enum, or a time
                        asker.ask(method, changed(quick(body), path, next(urls)))
            done.wait(0.5)
            assert called == []
            socket.create_connection(("127.0.0.1", port)).close()
        finally:
            done.set()
            listener.join()
    assert called == [b""]


def listen(trap: socket.socket, called: list[bytes], done: threading.Event) -> None:
    while not done.is_set():
        with suppress(TimeoutError), closing(trap.accept()[0]) as connection:
            called.append(connection.recv(1000))


def quick(body: Body) -> Body:
    """The request with a task that ends at once."""
    ends = {"taskTemplate": {**TEMPLATE, "container": {"args": ["true"]}}}
    return {
        key: ends if value is SPEC else quick(value) if isinstance(value, dict) else value
        for key, value in body.items()
    }


def test_no_module_of_the_manager_unpickles_evaluates_or_asks_a_shell() -> None:
    found = []
    for file in Path(flyte_manager.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=names) if {name.name for name in names} & {"pickle", "marshal", "shelve", "dill"}:
                    found.append((file.name, node.lineno))
                case ast.ImportFrom(module="pickle" | "marshal" | "shelve" | "dill"):
                    found.append((file.name, node.lineno))
                case ast.Call(func=ast.Name(id="eval" | "exec" | "compile")):
                    found.append((file.name, node.lineno))
                case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen")):
                    found.append((file.name, node.lineno))
                case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load" | "unsafe_load")):
                    found.append((file.name, node.lineno))
                case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                    found.append((file.name, node.value.lineno))
    assert found == []
