"""The labels by which pods and TaskActions are found again, and what they say."""

from collections.abc import Mapping

from flyte_manager.domain.ids import ActionId, AttemptId, RunId

MANAGED = "flyte.org/managed"
PROJECT = "flyte.org/project"
DOMAIN = "flyte.org/domain"
RUN = "flyte.org/run"
ACTION = "flyte.org/action"
ATTEMPT = "flyte.org/attempt"
"""counted from 1"""

MANAGED_SELECTOR = f"{MANAGED}=true"
PRIMARY_CONTAINER = "primary_container_name"
"""annotation of a pod: the container whose end is the attempt's end"""

NOTES = "flyte.org/notes"
"""annotation of a pod: lines for the beginning of its log"""


def of_action(action: ActionId) -> dict[str, str]:
    run = action.run
    return {PROJECT: run.project, DOMAIN: run.domain, RUN: run.name, ACTION: action.name}


def of_attempt(attempt: AttemptId) -> dict[str, str]:
    return {MANAGED: "true", **of_action(attempt.action), ATTEMPT: str(attempt.number)}


def selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())


def attempt_of(labels: Mapping[str, str]) -> AttemptId | None:
    """None for what was not made for an attempt."""
    names = [labels.get(label, "") for label in (PROJECT, DOMAIN, RUN, ACTION)]
    number = labels.get(ATTEMPT, "")
    if not all(names) or not (number.isascii() and number.isdigit()) or int(number) < 1:
        return None
    project, domain, run, action = names
    return AttemptId(ActionId(RunId(project, domain, run), action), int(number))
