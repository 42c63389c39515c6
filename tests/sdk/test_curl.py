"""Plain HTTP and JSON, without the SDK: what docs/curl.md and the original README tell people to type."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.managers import Manager, eventually, run_of

PAGE = Path(__file__).parents[2] / "docs" / "curl.md"
USUAL_PORTS = {"8090": "api", "8089": "queue", "8081": "health"}
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCOPE = {"project": "flytesnacks", "domain": "development"}
OPTIONS = {"-H": "headers", "-d": "data"}


def run_id(name: str) -> dict[str, str]:
    return {**SCOPE, "name": name}


def action_id(run: str, name: str = "a0") -> dict[str, object]:
    return {"run": run_id(run), "name": name}


def ask(manager: Manager, method: str, body: object, *, port: str = "api") -> dict[str, Any]:
    answer = manager.call(method, body, port=port)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def start(manager: Manager, name: str, *args: str) -> dict[str, Any]:
    return dict(ask(manager, "workflow.RunService/CreateRun", run_of(name, *args))["run"]["action"])


def details(manager: Manager, run: str, action: str = "a0") -> dict[str, Any]:
    return dict(ask(manager, "workflow.RunService/GetActionDetails", {"actionId": action_id(run, action)})["details"])


def phase(manager: Manager, run: str, action: str = "a0") -> str:
    return str(details(manager, run, action)["status"]["phase"]).removeprefix("ACTION_PHASE_")


def until(manager: Manager, wanted: str, run: str, action: str = "a0") -> None:
    eventually(lambda: phase(manager, run, action) == wanted, what=f"{run}/{action} {wanted}")


def state(manager: Manager, run: str, action: str = "a0") -> dict[str, Any]:
    found = ask(manager, "workflow.StateService/Get", {"actionId": action_id(run, action)})
    assert found["status"] == {"message": "state retrieved successfully"}
    return dict(json.loads(found["state"]))


def enqueue(manager: Manager, run: str, name: str, *args: str) -> None:
    spec = run_of(run, *args)["taskSpec"]
    body = {"actionId": action_id(run, name), "parentActionName": "a0", "task": {"spec": spec}}
    assert ask(manager, "workflow.QueueService/EnqueueAction", body, port="queue") == {}


def curl(manager: Manager, words: list[str]) -> httpx.Response:
    """Does what this command line asks for."""
    assert words[:2] == ["curl", "-s"]
    url, *options = words[2:]
    for usual, name in USUAL_PORTS.items():
        url = url.replace(f"localhost:{usual}/", f"localhost:{manager.ports[name]}/")
    given = {OPTIONS[option]: value for option, value in zip(options[::2], options[1::2], strict=True)}
    if not given:
        return httpx.get(url, trust_env=False)
    kind, _, value = given["headers"].partition(": ")
    return httpx.post(url, content=given["data"], headers={kind: value}, trust_env=False)


def lines_of(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.split(r"\n(?=curl )", block.strip())]


def test_every_line_of_the_page_works_as_it_stands(tmp_path: Path) -> None:
    blocks = [lines_of(block) for block in BLOCK.findall(PAGE.read_text())]
    *working, wrong = blocks
    methods = set()
    with Manager(tmp_path) as fresh:
        for words in (line for block in working for line in block):
            answer = curl(fresh, words)
            assert answer.status_code == 200, f"{words[2]}: {answer.text}"
            methods.add(words[2].rpartition("/")[2])
        assert phase(fresh, "hello") == phase(fresh, "hello", "child") == "ABORTED"
        (line,) = wrong
        answer = curl(fresh, line)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    assert answer.json()["message"].startswith("run 'nobody' was not found in flytesnacks/development: ")
    runs = {"CreateRun", "GetRun", "GetRunDetails", "ListRuns", "AbortRun"}
    queue = {"EnqueueAction", "AbortQueuedAction", "AbortQueuedRun"}
    others = {"ListProjects", "ListDomains", "JsonValuesToLiterals"}
    assert methods == {"healthz", "readyz", "Get", "Put", *runs, *queue, *others}


@pytest.mark.parametrize("path", ["healthz", "readyz"])
@pytest.mark.parametrize("port", ["api", "queue", "health"])
def test_each_port_tells_its_health(manager: Manager, port: str, path: str) -> None:
    answer = httpx.get(f"http://localhost:{manager.ports[port]}/{path}", trust_env=False)
    assert (answer.status_code, answer.text) == (200, "OK")


def test_the_health_port_serves_nothing_else(manager: Manager) -> None:
    assert manager.call("workflow.RunService/ListRuns", {}, port="health").status_code == 404


def test_a_plain_command_runs_with_its_arguments_filled_in_and_its_output_kept(manager: Manager) -> None:
    script = "echo $0 $1; echo attempt $FLYTE_ATTEMPT_NUMBER of $RUN_NAME"
    root = start(manager, "plain", "sh", "-c", script, "{{.runName}}", "{{.actionName}}")
    assert root["id"] == action_id("plain")
    assert root["status"]["phase"] == "ACTION_PHASE_QUEUED"
    until(manager, "SUCCEEDED", "plain")
    log = next(manager.data.glob("attempts/flytesnacks/development/plain/a0/1/log*")).read_text()
    assert "plain a0" in log
    assert "attempt 0 of plain" in log


def test_a_command_that_fails_is_shown_with_its_exit_code(manager: Manager) -> None:
    start(manager, "failing", "sh", "-c", "exit 3")
    until(manager, "FAILED", "failing")
    assert "exit code 3" in details(manager, "failing")["errorInfo"]["message"]


@pytest.mark.parametrize("port", ["api", "queue"])
def test_all_services_answer_on_both_ports(manager: Manager, port: str) -> None:
    for method in (
        "workflow.RunService/ListRuns",
        "project.ProjectService/ListProjects",
        "auth.IdentityService/UserInfo",
    ):
        ask(manager, method, {}, port=port)


def test_get_run_is_another_name_of_get_run_details(manager: Manager) -> None:
    start(manager, "named", "true")
    until(manager, "SUCCEEDED", "named")
    asked = {"runId": run_id("named")}
    found = ask(manager, "workflow.RunService/GetRun", asked)
    assert found == ask(manager, "workflow.RunService/GetRunDetails", asked)
    assert found["details"]["action"]["id"] == action_id("named")
    assert found["details"]["action"]["task"]["taskTemplate"]["container"]["args"] == ["true"]
    shown = [
        each["phase"].removeprefix("ACTION_PHASE_")
        for each in found["details"]["action"]["attempts"][0]["phaseTransitions"]
    ]
    assert shown == ["QUEUED", "INITIALIZING", "RUNNING", "SUCCEEDED"]


def test_the_same_run_again_is_the_same_and_another_under_its_name_is_refused(manager: Manager) -> None:
    first = start(manager, "twice", "sleep", "30")
    assert start(manager, "twice", "sleep", "30")["id"] == first["id"]
    other = manager.call("workflow.RunService/CreateRun", run_of("twice", "sleep", "31"))
    assert (other.status_code, other.json()["code"]) == (409, "already_exists")
    assert "choose another name" in other.json()["message"]


def test_a_run_without_a_name_gets_one(manager: Manager) -> None:
    body = {**run_of("unused", "true"), "projectId": {"name": "flytesnacks", "domain": "development"}}
    del body["runId"]
    names = [
        ask(manager, "workflow.RunService/CreateRun", body)["run"]["action"]["id"]["run"]["name"] for _ in range(2)
    ]
    assert len(set(names)) == 2
    assert all(1 <= len(name) <= 30 for name in names)


def test_runs_are_listed_newest_first_in_pages(manager: Manager) -> None:
    names = [f"listed{number}" for number in range(3)]
    for name in names:
        ask(manager, "workflow.RunService/CreateRun", run_of(name, "true", project="listing"))
    found: list[str] = []
    token = ""
    while len(found) < len(names):
        scope = {"name": "listing", "domain": "development"}
        request = {"limit": 1, "token": token}
        page = ask(manager, "workflow.RunService/ListRuns", {"projectId": scope, "request": request})
        found += [run["action"]["id"]["run"]["name"] for run in page["runs"]]
        token = page.get("token", "")
    assert (found, token) == (names[::-1], "")


def test_abort_run_ends_the_run_and_its_processes(manager: Manager, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    start(manager, "ended", "sh", "-c", f"echo $$ > {mark}; sleep 60")
    eventually(lambda: mark.exists() and mark.read_text().endswith("\n"), what="the task's mark")
    asked = {"runId": run_id("ended"), "reason": "enough"}
    for _ in range(2):
        assert ask(manager, "workflow.RunService/AbortRun", asked) == {}
    assert phase(manager, "ended") == "ABORTED"
    assert details(manager, "ended")["abortInfo"]["reason"] == "enough"
    pid = int(mark.read_text())
    eventually(lambda: pid not in manager.processes(), what="the end of the task's process")


def test_a_state_that_was_put_is_the_state_that_is_got(manager: Manager) -> None:
    start(manager, "stated", "sleep", "60")
    until(manager, "RUNNING", "stated")
    assert state(manager, "stated")["phase"] == "PHASE_RUNNING"
    document = {"phase": "PHASE_RUNNING", "note": "half way"}
    asked = {"actionId": action_id("stated"), "state": json.dumps(document)}
    told = ask(manager, "workflow.StateService/Put", asked)
    assert told == {"actionId": action_id("stated"), "status": {"message": "state updated successfully"}}
    assert state(manager, "stated") == document
    assert manager.rows("SELECT name, phase, state FROM actions WHERE run = 'stated'") == [
        ("a0", "RUNNING", json.dumps(document))
    ]


def test_a_final_phase_that_was_put_ends_the_action_and_its_process(manager: Manager, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    start(manager, "told", "sh", "-c", f"echo $$ > {mark}; sleep 60")
    eventually(lambda: mark.exists() and mark.read_text().endswith("\n"), what="the task's mark")
    until(manager, "RUNNING", "told")
    asked = {"actionId": action_id("told"), "state": json.dumps({"phase": "PHASE_SUCCEEDED"})}
    ask(manager, "workflow.StateService/Put", asked)
    assert phase(manager, "told") == "SUCCEEDED"
    pid = int(mark.read_text())
    eventually(lambda: pid not in manager.processes(), what="the end of the task's process")


def test_a_queued_action_runs_below_its_parent_and_can_be_aborted(manager: Manager) -> None:
    start(manager, "queueing", "sleep", "60")
    until(manager, "RUNNING", "queueing")
    enqueue(manager, "queueing", "quick", "true")
    enqueue(manager, "queueing", "slow", "sleep", "60")
    enqueue(manager, "queueing", "slow", "sleep", "60")
    until(manager, "SUCCEEDED", "queueing", "quick")
    until(manager, "RUNNING", "queueing", "slow")
    asked = {"actionId": action_id("queueing", "slow"), "reason": "not needed"}
    assert ask(manager, "workflow.QueueService/AbortQueuedAction", asked, port="queue") == {}
    until(manager, "ABORTED", "queueing", "slow")
    assert phase(manager, "queueing") == "RUNNING"
    assert details(manager, "queueing", "slow")["metadata"]["parent"] == "a0"


def test_abort_queued_run_ends_every_action_of_the_run(manager: Manager) -> None:
    start(manager, "dropped", "sleep", "60")
    enqueue(manager, "dropped", "child", "sleep", "60")
    assert ask(manager, "workflow.QueueService/AbortQueuedRun", {"runId": run_id("dropped")}, port="queue") == {}
    assert phase(manager, "dropped") == phase(manager, "dropped", "child") == "ABORTED"
