"""Names of things, and the rules that they keep.

`org` is stored and echoed but never part of a key (DESIGN.md §4.4): the SDK derives it from the endpoint's host, so one
run is addressed with several of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flyte_manager.domain.errors import IllegalName, NotGiven

ROOT = "a0"
"""Name of every run's root action; the SDK relies on it."""

DOMAINS: Mapping[str, str] = {"development": "development", "staging": "staging", "production": "production"}
"""id -> name, unless the configuration has others"""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_RULE = "a DNS label: 1 to 63 of a-z, 0-9 and -, no - at the ends"
_RUN = re.compile(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?")
_TASK_RULE = "1 to 255 printable characters"
_LONGEST_TASK = _LONGEST_ORG = 255
_ACTION = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class ProjectId:
    """A project within one of the domains; the scope of runs, tasks and secrets."""

    project: str
    domain: str
    org: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RunId:
    """One run."""

    project: str
    domain: str
    name: str
    org: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.project}/{self.domain}/{self.name}"


@dataclass(frozen=True, slots=True)
class ActionId:
    """One action; its name is unique within its run only, because the SDK derives the same names in every run."""

    run: RunId
    name: str

    def __str__(self) -> str:
        return f"{self.run}/{self.name}"


@dataclass(frozen=True, slots=True)
class AttemptId:
    """One try of an action, counted from 1."""

    action: ActionId
    number: int

    def __str__(self) -> str:
        return f"{self.action}/{self.number}"


def check_scope(project: str, domain: str) -> None:
    """Raises NotGiven, IllegalName. Whether they exist, `ledger.projects` knows."""
    check_project(project)
    check_domain(domain)


def check_project(project: str) -> None:
    _check(_LABEL, "project", project, _LABEL_RULE)


def check_domain(domain: str) -> None:
    _check(_LABEL, "domain", domain, _LABEL_RULE)


def check_org(org: str) -> None:
    """It may be empty."""
    if len(org) > _LONGEST_ORG or not org.isprintable():
        raise IllegalName(kind="org", name=org[:80], rule="up to 255 printable characters")


def check_run_name(name: str) -> None:
    """Upstream's rule: a DNS-1035 label of at most 30 characters."""
    _check(_RUN, "run name", name, "1 to 30 of a-z, 0-9 and -, a letter first, no - at the end")


def check_action_name(name: str) -> None:
    _check(_ACTION, "action name", name, "1 to 63 letters, digits, -, _ and ., a letter or digit at the ends")


def check_task(kind: str, text: str) -> None:
    """`kind` is "task name" or "task version"; both are texts of the user's."""
    if not text:
        raise NotGiven(field=kind)
    if len(text) > _LONGEST_TASK or not text.isprintable():
        raise IllegalName(kind=kind, name=text[:80], rule=_TASK_RULE)


def check_run(run: RunId) -> None:
    check_scope(run.project, run.domain)
    check_run_name(run.name)
    check_org(run.org)


def check_action(action: ActionId) -> None:
    check_run(action.run)
    check_action_name(action.name)


def _check(pattern: re.Pattern[str], kind: str, name: str, rule: str) -> None:
    if not name:
        raise NotGiven(field=kind)
    if not pattern.fullmatch(name):
        raise IllegalName(kind=kind, name=name[:80], rule=rule)
