"""The status of a TaskAction, made from rows."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flyte_manager.domain.actions import Action, ActionHistory, Resource
from flyte_manager.domain.attempts import Attempt, ErrorKind, Failure, Transition
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.kubernetes import status
from tests.fakes.clock import NOW
from tests.fakes.orders import action_id

BOOM = Failure(ErrorKind.USER, "ValueError", "boom")


def row(
    phase: Phase = Phase.RUNNING, *, kind: Kind = Kind.TASK, reason: str = "", failure: Failure | None = None
) -> Action:
    return Action(
        id=action_id(),
        kind=kind,
        phase=phase,
        created_at=NOW,
        state='{"phase": "PHASE_X"}',
        base_uri="/store/r1",
        reason=reason,
        failure=failure,
        started_at=NOW + timedelta(seconds=2),
        ended_at=NOW + timedelta(seconds=3) if phase.final else None,
        resource=Resource("r1-a0", "uid-1"),
    )


def attempt(number: int, *phases: Phase, failure: Failure | None = None) -> Attempt:
    transitions = tuple(Transition(each, NOW + timedelta(seconds=index)) for index, each in enumerate(phases))
    return Attempt(AttemptId(action_id(), number), phases[-1], NOW, transitions, failure=failure)


def history(action: Action, *attempts: Attempt) -> ActionHistory:
    return ActionHistory(action, attempts or (attempt(1, Phase.QUEUED, action.phase),), b"")


def upstreams_reading(found: Mapping[str, Any]) -> Phase | None:
    """The phase that the Go service takes from conditions."""
    conditions = {each["type"]: each for each in found["conditions"]}
    true = {name for name, each in conditions.items() if each["status"] == "True"}
    if "Succeeded" in true:
        return Phase.SUCCEEDED
    if "Failed" in true:
        return Phase.TIMED_OUT if conditions["Failed"]["reason"] == "TimedOut" else Phase.FAILED
    by_reason = {
        "Queued": Phase.QUEUED,
        "Initializing": Phase.INITIALIZING,
        "Executing": Phase.RUNNING,
        "Paused": Phase.PAUSED,
    }
    return by_reason.get(conditions["Progressing"]["reason"]) if "Progressing" in true else None


@pytest.mark.parametrize("phase", Phase)
def test_upstreams_reading_of_the_conditions_finds_the_phase(phase: Phase) -> None:
    nearest = {
        Phase.WAITING_FOR_RESOURCES: Phase.QUEUED,
        Phase.ABORTED: Phase.FAILED,
        Phase.RECOVERED: Phase.SUCCEEDED,
    }
    made = status.status(history(row(phase, failure=BOOM if phase is Phase.FAILED else None)))
    assert upstreams_reading(made) is nearest.get(phase, phase)
    assert status.is_final(made) is phase.final


def test_the_phases_have_the_names_that_the_readme_shows() -> None:
    phases = (Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED, Phase.TIMED_OUT)
    shown = [status.status(history(row(phase)))["phase"] for phase in phases]
    assert shown == ["Queued", "Initializing", "Running", "Succeeded", "TimedOut"]


def test_a_failed_action_tells_its_error_everywhere_one_looks() -> None:
    made = status.status(history(row(Phase.FAILED, failure=BOOM)))
    assert made["errorState"] == {"code": "ValueError", "kind": "USER", "message": "boom"}
    assert made["message"] == "ValueError: boom"
    failed = next(each for each in made["conditions"] if each["type"] == "Failed")
    assert (failed["status"], failed["reason"], failed["message"]) == ("True", "PermanentFailure", "ValueError: boom")
    assert failed["lastTransitionTime"] == "2026-11-23T09:00:03.000Z"
    assert status.ended_at(made) == NOW + timedelta(seconds=3)
    assert not status.is_success(made)


def test_an_invalid_spec_is_the_reason_and_its_words_are_the_message() -> None:
    problem = "required spec fields are empty: [taskTemplate]"
    failure = Failure(ErrorKind.USER, "InvalidSpec", problem, recoverable=False)
    made = status.status(history(row(Phase.FAILED, failure=failure)))
    assert {(each["reason"], each["message"]) for each in made["conditions"]} == {("InvalidSpec", problem)}


def test_what_can_not_have_a_row_is_refused_in_the_same_form() -> None:
    made = status.invalid("required spec fields are empty: [runName]", NOW)
    assert upstreams_reading(made) is Phase.FAILED
    assert made["phase"] == "Failed"
    assert made["errorState"]["code"] == "InvalidSpec"
    assert {each["reason"] for each in made["conditions"]} == {"InvalidSpec"}
    assert status.is_ours(made)
    assert status.is_final(made)
    assert status.mirrored(made) == ""


def test_the_history_has_all_attempts_with_their_errors() -> None:
    action = replace(row(Phase.FAILED, failure=BOOM), attempt=2)
    lost = Failure(ErrorKind.SYSTEM, "NodeLost", "the node is gone")
    made = status.status(
        history(
            action,
            attempt(1, Phase.QUEUED, Phase.RUNNING, Phase.FAILED, failure=lost),
            attempt(2, Phase.QUEUED, Phase.RUNNING, Phase.FAILED, failure=BOOM),
        )
    )
    assert [(each["phase"], each.get("message")) for each in made["phaseHistory"]] == [
        ("Queued", "attempt 1"),
        ("Running", "attempt 1"),
        ("Failed", "attempt 1: NodeLost: the node is gone"),
        ("Queued", "attempt 2"),
        ("Running", "attempt 2"),
        ("Failed", "attempt 2: ValueError: boom"),
    ]
    assert made["phaseHistory"][1]["occurredAt"] == "2026-11-23T09:00:01.000Z"
    assert made["attempts"] == 2


def test_what_waits_says_why() -> None:
    action = row(Phase.WAITING_FOR_RESOURCES, reason="0/1 nodes are available: 1 Insufficient cpu.")
    made = status.status(history(action))
    assert made["message"] == "0/1 nodes are available: 1 Insufficient cpu."
    assert made["conditions"][0]["message"] == made["message"]
    assert made["phaseHistory"][-1]["message"] == made["message"]
    assert "errorState" not in made


def test_an_attempt_that_has_no_pod_yet_names_none() -> None:
    queued = status.status(history(row(Phase.QUEUED), attempt(1, Phase.QUEUED)))
    assert "podName" not in queued
    running = status.status(history(replace(row(), attempt=2), attempt(2, Phase.QUEUED, Phase.RUNNING)))
    assert running["podName"] == "r1-a0-1"


def test_an_answered_condition_shows_its_answer() -> None:
    action = replace(row(Phase.SUCCEEDED, kind=Kind.CONDITION), value=b"\x0a\x01")
    made = status.status(ActionHistory(action, (), b""))
    assert (made["signalValue"], made["signalledAt"]) == ("CgE=", "2026-11-23T09:00:03.000Z")
    assert {each["reason"] for each in made["conditions"]} == {"Signaled"}
    assert [each["phase"] for each in made["phaseHistory"]] == ["Queued", "Paused", "Succeeded"]
    assert "podName" not in made


@pytest.mark.parametrize("text", ["x" * 100_000, "\ud800 half a character", "nul \x00", "wörter " * 9000])
def test_any_words_fit(text: str) -> None:
    made = status.status(history(row(Phase.FAILED, failure=replace(BOOM, message=text))))
    told = json.loads(json.dumps(made).encode())
    assert all(1 <= len(each["message"]) <= status.LONGEST_WORDS for each in told["conditions"])
    assert len(told["errorState"]["message"]) <= status.LONGEST_WORDS < 32768
    assert len(told["phaseHistory"][-1]["message"]) <= status.LONGEST_NOTE
    assert status.mirrored(told) == status.digest(row(Phase.FAILED, failure=replace(BOOM, message=text)))
    told["message"].encode()


def test_a_long_message_keeps_its_end_where_a_traceback_tells_the_error() -> None:
    made = status.status(
        history(row(Phase.FAILED, failure=replace(BOOM, message="Traceback\n" * 5000 + "KeyError: 7")))
    )
    assert made["message"].startswith("ValueError: Traceback")
    assert made["message"].endswith("KeyError: 7")


def test_many_attempts_keep_the_newest_history() -> None:
    attempts = [attempt(number, Phase.QUEUED, Phase.FAILED, failure=BOOM) for number in range(1, 1001)]
    made = status.status(history(replace(row(Phase.FAILED, failure=BOOM), attempt=1000), *attempts))
    assert len(made["phaseHistory"]) == status.LONGEST_HISTORY
    assert made["phaseHistory"][-1]["message"].startswith("attempt 1000")
    assert len(json.dumps(made)) < 1_000_000


def test_a_status_tells_of_which_row_it_is() -> None:
    action = row()
    made = json.loads(json.dumps(status.status(history(action))))
    assert status.mirrored(made) == status.digest(action)
    assert status.mirrored(made) != status.digest(replace(action, reason="other"))


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Succeeded"},
        {"conditions": []},
        {"message": "all is well"},
        {"recordDigest": ""},
        {"recordDigest": "0.0"},
        {"signalValue": "AA=="},
    ],
)
def test_a_status_that_others_changed_is_of_no_row(change: Mapping[str, Any]) -> None:
    assert status.mirrored({**status.status(history(row())), **change}) == ""


def test_fields_that_are_not_ours_do_not_count() -> None:
    action = row()
    made = {**status.status(history(action)), "pluginState": "AA==", "signalledBy": "somebody"}
    assert status.mirrored(made) == status.digest(action)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": Phase.QUEUED},
        {"attempt": 2},
        {"reason": "x"},
        {"failure": BOOM},
        {"state": "{}"},
        {"system_failures": 1},
        {"value": b"x"},
        {"ended_at": NOW},
    ],
)
def test_every_change_of_the_row_that_shows_changes_its_digest(change: Mapping[str, Any]) -> None:
    assert status.digest(replace(row(), **change)) != status.digest(row())


def test_a_patch_clears_what_is_no_longer_so() -> None:
    before = status.status(history(row(Phase.FAILED, failure=BOOM)))
    again = replace(row(Phase.QUEUED), attempt=2)
    after = status.status(history(again, attempt(2, Phase.QUEUED)))
    merged = {**before, **status.patch(after)["status"]}
    left = {name: value for name, value in merged.items() if value is not None}
    assert left == after
    assert "pluginState" not in status.patch(after)["status"]


@pytest.mark.parametrize(
    ("found", "final", "success"),
    [
        ({}, False, False),
        ({"conditions": [{"type": "Succeeded", "status": "True", "lastTransitionTime": "yesterday"}]}, True, True),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, True, False),
        ({"conditions": [{"type": "Progressing", "status": "True"}]}, False, False),
        ({"conditions": "damaged"}, False, False),
        ({"conditions": ["damaged", None]}, False, False),
        ({"phase": "Running"}, False, False),
    ],
)
def test_the_statuses_of_others_are_read_as_they_are(found: Mapping[str, Any], final: bool, success: bool) -> None:
    assert status.is_final(found) is final
    assert status.is_success(found) is success
    assert status.ended_at(found) is None
    assert status.mirrored(found) == ""
