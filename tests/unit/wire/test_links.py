"""Links to logs and dashboards: they render fully or not at all, and lead to the web only."""

from dataclasses import replace
from datetime import timedelta

import pytest
from flyteidl2.core import execution_pb2, tasks_pb2

from flyte_manager.domain.attempts import Attempt, Place, Transition
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.wire.links import PLACEHOLDERS, BadLogLink, LinkTemplate, task_logs
from tests.fakes.clock import NOW
from tests.fakes.orders import action_id, task_spec

PLACE = Place("flyte", "r1-a0-0", "uid-1", "main", "node-1")
RUNNING = Attempt(
    AttemptId(action_id(), 1),
    Phase.RUNNING,
    NOW,
    transitions=(
        Transition(Phase.QUEUED, NOW),
        Transition(Phase.INITIALIZING, NOW + timedelta(seconds=1)),
        Transition(Phase.RUNNING, NOW + timedelta(seconds=2)),
    ),
    started_at=NOW + timedelta(seconds=2),
    place=PLACE,
)
ENDED = replace(RUNNING, phase=Phase.FAILED, ended_at=NOW + timedelta(seconds=9))


def shown(
    attempt: Attempt,
    *uris: str,
    own: tuple[execution_pb2.TaskLog, ...] = (),
    template: tasks_pb2.TaskTemplate | None = None,
) -> list[str]:
    asked = tasks_pb2.TaskTemplate()
    asked.CopyFrom(template or task_spec().task_template)
    asked.metadata.log_links.extend(own)
    return [each.uri for each in task_logs(asked, attempt, [LinkTemplate.parse("logs", uri) for uri in uris])]


def log(uri: str, **fields: object) -> execution_pb2.TaskLog:
    return execution_pb2.TaskLog(name="own", uri=uri, **fields)  # type: ignore[arg-type]


def test_every_placeholder_has_a_value_in_the_end_however_it_is_written() -> None:
    began, ended = NOW + timedelta(seconds=1), NOW + timedelta(seconds=9)
    told = {
        "podName": "r1-a0-0",
        "podUID": "uid-1",
        "namespace": "flyte",
        "containerName": "main",
        "nodeName": "node-1",
        "hostname": "node-1",
        "podUnixStartTime": str(int(began.timestamp())),
        "podUnixFinishTime": str(int(ended.timestamp())),
        "podRFC3339StartTime": f"{began:%Y-%m-%dT%H%%3A%M%%3A%SZ}",
        "podRFC3339FinishTime": f"{ended:%Y-%m-%dT%H%%3A%M%%3A%SZ}",
        "executionProject": "flytesnacks",
        "executionDomain": "development",
        "executionName": "r1",
        "runName": "r1",
        "nodeID": "a0",
        "actionName": "a0",
        "generatedName": "r1-a0-0",
        "taskProject": "flytesnacks",
        "taskDomain": "development",
        "taskID": "hello.main",
        "taskVersion": "v1",
        "taskRetryAttempt": "0",
    }
    assert tuple(told) == PLACEHOLDERS
    for name, value in told.items():
        for written in (f"{{{{ .{name} }}}}", f"{{{{.{name.upper()}}}}}", f"{{{{${name.lower()}}}}}"):
            assert shown(ENDED, f"https://logs.example/?q={written}&end") == [f"https://logs.example/?q={value}&end"]


def test_a_link_is_left_out_until_each_of_its_values_is_known() -> None:
    finish, pod = "https://logs.example/{{ .podUnixFinishTime }}", "https://logs.example/{{ .podName }}"
    assert shown(RUNNING, finish, pod) == ["https://logs.example/r1-a0-0"]
    assert len(shown(ENDED, finish, pod)) == 2
    assert shown(replace(ENDED, place=replace(PLACE, node="")), "https://x.example/{{.nodeName}}", pod) == [
        "https://logs.example/r1-a0-0"
    ]
    assert shown(replace(ENDED, place=None), pod, "https://x.example/{{ .runName }}") == ["https://x.example/r1"]


def test_values_are_escaped_so_that_no_name_changes_where_a_link_leads() -> None:
    template = task_spec("x/../../?a=b#c @evil").task_template
    link = "https://logs.example/{{ .taskID }}/end"
    assert shown(ENDED, link, template=template) == ["https://logs.example/x%2F..%2F..%2F%3Fa%3Db%23c%20%40evil/end"]


def test_links_of_the_task_come_first_and_keep_what_they_say() -> None:
    own = log(
        "https://wandb.example/{{.actionName}}/{{.podName}}",
        icon_uri="https://wandb.example/icon.png",
        link_type=execution_pb2.TaskLog.DASHBOARD,
    )
    template = task_spec().task_template
    template.metadata.log_links.append(own)
    first, second = task_logs(template, RUNNING, [LinkTemplate("Logs of {{ .podName }}", "https://logs.example/a")])
    assert (first.name, first.uri) == ("own", "https://wandb.example/a0/r1-a0-0")
    assert (first.icon_uri, first.link_type) == ("https://wandb.example/icon.png", execution_pb2.TaskLog.DASHBOARD)
    assert (second.name, second.uri, second.ready) == ("Logs of r1-a0-0", "https://logs.example/a", True)


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "/relative",
        "https://",
        "",
        "https://a b/",
        "java\nscript:x",
        "https://[::1",
        "https://x.example/{{.nobodyKnows}}",
        "https://x.example/{{podName}}",
        "{{.podName}}://x.example/",
    ],
)
def test_a_tasks_link_that_leads_to_no_web_page_or_names_something_unknown_is_left_out(uri: str) -> None:
    assert shown(ENDED, own=(log(uri), log("https://good.example/"))) == ["https://good.example/"]


def test_an_icon_that_is_no_picture_is_left_out() -> None:
    template = task_spec().task_template
    for icon in ("javascript:x", "data:image/png;base64,AA", "data:text/html,x"):
        template.metadata.log_links.append(log("https://x.example/", icon_uri=icon))
    icons = [each.icon_uri for each in task_logs(template, RUNNING, [])]
    assert icons == ["", "data:image/png;base64,AA", ""]


def test_before_it_runs_and_after_its_end_only_links_that_are_for_then_are_shown() -> None:
    early = log("https://early.example/", ShowWhilePending=True)
    live = log("https://live.example/", HideOnceFinished=True)
    plain = log("https://plain.example/")
    for phase in (Phase.QUEUED, Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING):
        assert shown(replace(RUNNING, phase=phase), own=(early, live, plain)) == ["https://early.example/"]
    assert len(shown(RUNNING, own=(early, live, plain))) == 3
    assert shown(ENDED, own=(early, live, plain)) == ["https://early.example/", "https://plain.example/"]


@pytest.mark.parametrize(
    ("name", "uri", "words"),
    [
        ("", "https://x.example/", "needs a name"),
        ("logs", "https://x.example/{{ .pod }}", "{{ .pod }} is no placeholder: known are {{ .podName }}, "),
        ("logs", "https://x.example/{{ podName }}", "{{ podName }} is no placeholder"),
        ("of {{ .podNam }}", "https://x.example/", "{{ .podNam }} is no placeholder"),
        ("logs", "https://x.example/{{ .podName }", "without its other one"),
        ("logs", "https://x.example/.podName }}", "without its other one"),
        ("logs", "ftp://x.example/", "is not http:// or https:// with a host"),
        ("logs", "x.example/{{ .podName }}", "is not http:// or https:// with a host"),
        ("logs", "{{ .hostname }}/logs", "is not http:// or https:// with a host"),
    ],
)
def test_a_template_that_could_never_render_is_refused_in_words(name: str, uri: str, words: str) -> None:
    with pytest.raises(BadLogLink) as refusal:
        LinkTemplate.parse(name, uri)
    assert words in str(refusal.value)
