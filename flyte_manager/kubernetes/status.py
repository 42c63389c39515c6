"""The status of a TaskAction, made from the rows of its action. Pure.

    rows ─▶ status(history) ─▶ patch(…) ─▶ API server ─▶ what lies there ─▶ mirrored(…) == digest(action)?

`recordDigest` is written along: a digest of the row, and one of all the other fields written. As long as nobody changed
one of them, it tells which state of the row the object shows; that holds over restarts of either side.

Conditions carry the Go executor's reasons, so that its own reading of them (Succeeded, else Failed, else the reason of
Progressing) finds the action's phase. It has no reading for Aborted, which it takes for FAILED.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from flyte_manager.domain.actions import Action, ActionHistory, Resource
from flyte_manager.domain.attempts import Attempt, Failure, Transition
from flyte_manager.domain.phases import Kind, Phase

Status = dict[str, Any]

INVALID_SPEC = "InvalidSpec"
"""code of a failure: what was asked for can't be run"""

NAMES = {
    Phase.QUEUED: "Queued",
    Phase.WAITING_FOR_RESOURCES: "WaitingForResources",
    Phase.INITIALIZING: "Initializing",
    Phase.RUNNING: "Running",
    Phase.SUCCEEDED: "Succeeded",
    Phase.FAILED: "Failed",
    Phase.ABORTED: "Aborted",
    Phase.TIMED_OUT: "TimedOut",
    Phase.PAUSED: "Paused",
    Phase.RECOVERED: "Recovered",
}
_REASONS = {
    Phase.QUEUED: "Queued",
    Phase.WAITING_FOR_RESOURCES: "Queued",
    Phase.INITIALIZING: "Initializing",
    Phase.RUNNING: "Executing",
    Phase.SUCCEEDED: "Completed",
    Phase.FAILED: "PermanentFailure",
    Phase.ABORTED: "Aborted",
    Phase.TIMED_OUT: "TimedOut",
    Phase.PAUSED: "Paused",
    Phase.RECOVERED: "Completed",
}
_GOOD = (Phase.SUCCEEDED, Phase.RECOVERED)
_FINAL_NAMES = frozenset(name for phase, name in NAMES.items() if phase.final)

_DIGEST = "recordDigest"
_WRITTEN = (
    "phase",
    "message",
    "podName",
    "attempts",
    "systemFailures",
    "cacheStatus",
    "conditions",
    "phaseHistory",
    "errorState",
    "stateJson",
    "signalValue",
    "signalledAt",
)
"""the fields that are ours; others of the status are left as they are"""

LONGEST_HISTORY = 200
"""entries; the oldest go first"""
LONGEST_NOTE = 512
"""characters of a message, where it is not the one place for the error's own words"""
LONGEST_WORDS = 16_000
"""characters of those; the schema takes twice as many, but the whole object must fit into etcd"""


def status(history: ActionHistory) -> Status:
    """All that the rows say, as the status of the action's TaskAction."""
    action = history.action
    said = _said(action)
    return _sealed(
        digest(action),
        {
            "phase": NAMES[action.phase],
            "message": _cut(said, LONGEST_NOTE),
            "podName": _pod_name(history),
            "attempts": action.attempt,
            "systemFailures": action.system_failures,
            "cacheStatus": action.cache_status.value,
            "conditions": _conditions(action, said),
            "phaseHistory": list(_phase_history(history))[-LONGEST_HISTORY:],
            "errorState": _error_state(action.failure),
            "stateJson": _cut(action.state, LONGEST_WORDS),
            "signalValue": base64.b64encode(action.value).decode(),
            "signalledAt": _time(action.ended_at) if action.value and action.ended_at else "",
        },
    )


def invalid(problem: str, at: datetime) -> Status:
    """The status of an order that can't even have a row."""
    entry = {"phase": NAMES[Phase.FAILED], "occurredAt": _time(at), "message": _cut(problem, LONGEST_NOTE)}
    return _sealed(
        "",
        {
            "phase": NAMES[Phase.FAILED],
            "message": _cut(problem, LONGEST_NOTE),
            "conditions": _ended(INVALID_SPEC, problem, at, good=False),
            "phaseHistory": [entry],
            "errorState": {"code": INVALID_SPEC, "kind": "USER", "message": _cut(problem, LONGEST_WORDS)},
        },
    )


def patch(new: Status) -> Status:
    """The merge patch that makes these the status, and clears what an earlier one said beyond them."""
    return {"status": {**dict.fromkeys(_WRITTEN), **new}}


def digest(action: Action) -> str:
    """Differs whenever the status made from the action differs."""
    failure = action.failure
    told = (
        action.kind,
        action.phase,
        action.state,
        action.attempt,
        action.system_failures,
        action.reason,
        (failure.kind, failure.code, failure.message) if failure else None,
        action.value,
        action.created_at,
        action.started_at,
        action.ended_at,
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:24]


def mirrored(found: Mapping[str, Any]) -> str:
    """The digest of the row that this status was made from; empty when it is not one of ours, or was changed since."""
    row, _, seal = str(found.get(_DIGEST) or "").partition(".")
    return row if seal == _seal(row, found) else ""


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether this manager wrote the status, whatever was done to it since."""
    return bool(found.get(_DIGEST))


def is_final(found: Mapping[str, Any]) -> bool:
    """Whether the status says that the action has ended; the Go executor's has no phase, only conditions."""
    if phase := found.get("phase"):
        return phase in _FINAL_NAMES
    return _end(found) is not None


def is_success(found: Mapping[str, Any]) -> bool:
    end = _end(found)
    return end is not None and end["type"] == "Succeeded"


def ended_at(found: Mapping[str, Any]) -> datetime | None:
    """When the action ended, by the status; None when it doesn't tell."""
    end = _end(found)
    try:
        at = datetime.fromisoformat(str(end.get("lastTransitionTime"))) if end else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at


def _end(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition that says that the action has ended."""
    ends = (each for each in _told(found) if each.get("type") in ("Succeeded", "Failed"))
    return next((each for each in ends if each.get("status") == "True"), None)


def _told(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    conditions = found.get("conditions")
    if isinstance(conditions, list):
        yield from (each for each in conditions if isinstance(each, Mapping))


def _sealed(row: str, fields: Status) -> Status:
    """Without what is empty, which a status never shows, but with numbers."""
    shown = {name: value for name, value in fields.items() if value or isinstance(value, int)}
    return {**shown, _DIGEST: f"{row}.{_seal(row, shown)}"}


def _seal(row: str, found: Mapping[str, Any]) -> str:
    content = [row, {name: found[name] for name in _WRITTEN if found.get(name) is not None}]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:24]


def _conditions(action: Action, said: str) -> list[Status]:
    reason = _REASONS[action.phase]
    if action.failure and action.failure.code == INVALID_SPEC:
        reason = INVALID_SPEC
    if action.kind is Kind.CONDITION and action.phase is Phase.SUCCEEDED:
        reason = "Signaled"
    if not action.final:
        return [_condition("Progressing", True, reason=reason, words=said, since=action.created_at)]
    return _ended(reason, said, action.ended_at or action.created_at, good=action.phase in _GOOD)


def _ended(reason: str, said: str, at: datetime, *, good: bool) -> list[Status]:
    note = _cut(said, LONGEST_NOTE)
    return [
        _condition("Progressing", False, reason=reason, words=note, since=at),
        _condition("Succeeded", good, reason=reason, words=note, since=at),
        _condition("Failed", not good, reason=reason, words=note if good else said, since=at),
    ]


def _condition(kind: str, holds: bool, *, reason: str, words: str, since: datetime) -> Status:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": _cut(words, LONGEST_WORDS),
        "lastTransitionTime": _time(since),
    }


def _phase_history(history: ActionHistory) -> Iterator[Status]:
    """All phases of all attempts; of a condition, which has no attempts, those that its row tells."""
    action = history.action
    if not history.attempts:
        yield _entry(Phase.QUEUED, action.created_at)
        if action.kind is Kind.CONDITION and action.started_at:
            yield _entry(Phase.PAUSED, action.started_at, "" if action.final else _said(action))
        if action.final:
            yield _entry(action.phase, action.ended_at or action.created_at, _said(action))
        return
    several = len(history.attempts) > 1
    for attempt in history.attempts:
        *before, last = attempt.transitions or (Transition(attempt.phase, attempt.created_at),)
        prefix = f"attempt {attempt.id.number}" if several else ""
        for each in before:
            yield _entry(each.phase, each.at, prefix)
        said = _said(action) if attempt.id.number == action.attempt else _failure_words(attempt.failure)
        yield _entry(last.phase, last.at, ": ".join(each for each in (prefix, said) if each))


def _entry(phase: Phase, at: datetime, message: str = "") -> Status:
    entry = {"phase": NAMES[phase], "occurredAt": _time(at)}
    return {**entry, "message": _cut(message, LONGEST_NOTE)} if message else entry


def _said(action: Action) -> str:
    """Why the action is in its phase."""
    return _failure_words(action.failure) or action.reason


def _failure_words(failure: Failure | None) -> str:
    if failure is None:
        return ""
    named = not failure.code or failure.code == INVALID_SPEC or failure.message.startswith(failure.code)
    return failure.message if named else f"{failure.code}: {failure.message}"


def _error_state(failure: Failure | None) -> Status:
    if failure is None:
        return {}
    kind = failure.kind.name if failure.kind else ""
    return {"code": _clean(failure.code), "kind": kind, "message": _cut(failure.message, LONGEST_WORDS)}


def pod_name(resource: Resource, number: int) -> str:
    """The name of an attempt's pod."""
    return f"{resource.name}-{number - 1}"


def _pod_name(history: ActionHistory) -> str:
    """Once there is one: an attempt that only waits for its turn has none."""
    action = history.action
    if action.kind is not Kind.TASK or action.resource is None:
        return ""
    attempt: Attempt | None = history.attempts[-1] if history.attempts else None
    seen = {each.phase for each in attempt.transitions} if attempt else set()
    started = seen & {Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING, Phase.RUNNING}
    return pod_name(action.resource, action.attempt) if started else ""


def _cut(text: str, longest: int) -> str:
    """Without its middle when it is too long: a traceback ends with what it is about."""
    if len(text) <= longest:
        return _clean(text)
    head = longest // 4
    return _clean(f"{text[:head]}\n[…]\n{text[head + 5 - longest :]}")


def _clean(text: str) -> str:
    """Without halves of characters, which the API server would replace."""
    return text.encode(errors="replace").decode()


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
