"""Links to what others keep of an attempt: logs, dashboards.

The task brings its own (`links=` in the SDK, log_links in the template), the platform adds its own. Both are
templates: `{{ .podName }}` or `{{.podname}}`, as in Flyte 1 and 2. A link is shown once it renders fully: what an
attempt does not have (yet) leaves out each link that names it. Values are escaped, so that none can change where a link
leads, and only http and https links come out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, urlsplit

from flyteidl2.core import execution_pb2, tasks_pb2

from flyte_manager.domain.attempts import Attempt, Place
from flyte_manager.domain.errors import Invalid
from flyte_manager.domain.phases import Phase

PLACEHOLDERS = (
    "podName",
    "podUID",
    "namespace",
    "containerName",
    "nodeName",
    "hostname",
    "podUnixStartTime",
    "podUnixFinishTime",
    "podRFC3339StartTime",
    "podRFC3339FinishTime",
    "executionProject",
    "executionDomain",
    "executionName",
    "runName",
    "nodeID",
    "actionName",
    "generatedName",
    "taskProject",
    "taskDomain",
    "taskID",
    "taskVersion",
    "taskRetryAttempt",
)
_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_LOWER = {name.lower(): name for name in PLACEHOLDERS}
_PENDING = (Phase.QUEUED, Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING)


class BadLogLink(Invalid):
    """log link {name!r}: {problem}."""


@dataclass(frozen=True, slots=True)
class LinkTemplate:
    """A link of the platform, for every attempt."""

    name: str
    uri: str

    @classmethod
    def parse(cls, name: str, uri: str) -> Self:
        """Raises BadLogLink."""
        if not name.strip():
            raise BadLogLink(name=name, problem=f"it needs a name beside its uri {uri!r}")
        for text in (name, uri):
            _check(name, text)
        if not is_web(_PLACEHOLDER.sub("x", uri)):
            raise BadLogLink(name=name, problem=f"its uri {uri!r} is not http:// or https:// with a host")
        return cls(name, uri)

    def render(self, values: Mapping[str, str]) -> execution_pb2.TaskLog | None:
        """None while a value is missing."""
        link = execution_pb2.TaskLog(name=self.name, uri=self.uri, message_format=execution_pb2.TaskLog.JSON)
        return _rendered(link, values)


def task_logs(
    template: tasks_pb2.TaskTemplate, attempt: Attempt, platform: Sequence[LinkTemplate]
) -> Iterator[execution_pb2.TaskLog]:
    """The links that can be shown of the attempt now: the task's own, then the platform's."""
    values = _values(template, attempt)
    own = (_rendered(each, values) for each in template.metadata.log_links)
    for link in (*own, *(each.render(values) for each in platform)):
        if link is not None and _is_shown(link, attempt.phase):
            yield link


def _check(name: str, text: str) -> None:
    for found in _PLACEHOLDER.findall(text):
        if found[:1] not in (".", "$") or found[1:].lower() not in _LOWER:
            known = ", ".join(f"{{{{ .{each} }}}}" for each in PLACEHOLDERS)
            raise BadLogLink(name=name, problem=f"{{{{ {found} }}}} is no placeholder: known are {known}")
    rest = _PLACEHOLDER.sub("", text)
    if "{{" in rest or "}}" in rest:
        raise BadLogLink(name=name, problem=f"{text!r} has a brace pair without its other one")


def _is_shown(link: execution_pb2.TaskLog, phase: Phase) -> bool:
    if phase in _PENDING:
        return link.ShowWhilePending
    return not (phase.final and link.HideOnceFinished)


def _rendered(link: execution_pb2.TaskLog, values: Mapping[str, str]) -> execution_pb2.TaskLog | None:
    """The link with all values; None when one is missing, or it leads nowhere."""
    uri = _filled(link.uri, {name: quote(value, safe="") for name, value in values.items()})
    name = _filled(link.name, values)
    if uri is None or name is None or not is_web(uri):
        return None
    made = execution_pb2.TaskLog()
    made.CopyFrom(link)
    made.uri, made.name, made.ready = uri, name, True
    if not is_web(made.icon_uri) and not made.icon_uri.startswith("data:image/"):
        made.icon_uri = ""
    return made


def _filled(text: str, values: Mapping[str, str]) -> str | None:
    missing = False

    def value(match: "re.Match[str]") -> str:
        nonlocal missing
        found = match[1]
        known = values.get(_LOWER.get(found[1:].lower(), ""), "") if found[:1] in (".", "$") else ""
        missing = missing or not known
        return known

    filled = _PLACEHOLDER.sub(value, text)
    return None if missing else filled


def is_web(uri: str) -> bool:
    """Whether it is a link that a browser may follow."""
    if not uri.isprintable() or " " in uri:
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _values(template: tasks_pb2.TaskTemplate, attempt: Attempt) -> Mapping[str, str]:
    """What is known of the attempt, by placeholder; unknown = empty."""
    action, place = attempt.id.action, attempt.place or Place()
    began, ended = _began(attempt), attempt.ended_at
    return {
        "podName": place.pod,
        "podUID": place.pod_uid,
        "namespace": place.namespace,
        "containerName": place.container,
        "nodeName": place.node,
        "hostname": place.node,
        "podUnixStartTime": _unix(began),
        "podUnixFinishTime": _unix(ended),
        "podRFC3339StartTime": _rfc3339(began),
        "podRFC3339FinishTime": _rfc3339(ended),
        "executionProject": action.run.project,
        "executionDomain": action.run.domain,
        "executionName": action.run.name,
        "runName": action.run.name,
        "nodeID": action.name,
        "actionName": action.name,
        "generatedName": place.pod,
        "taskProject": template.id.project,
        "taskDomain": template.id.domain,
        "taskID": template.id.name,
        "taskVersion": template.id.version,
        "taskRetryAttempt": str(attempt.id.number - 1),
    }


def _began(attempt: Attempt) -> datetime | None:
    """When its pod got a node, where that is told: from then on there are logs."""
    times = (each.at for each in attempt.transitions if each.phase in (Phase.INITIALIZING, Phase.RUNNING))
    return next(times, attempt.started_at)


def _unix(at: datetime | None) -> str:
    return str(int(at.timestamp())) if at else ""


def _rfc3339(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if at else ""
