"""Every decision of domain/lifecycle.py, as tables: every phase x every observation, report and other event.

`python -m tests.decisions` (`make docs`) writes the tables of docs/lifecycle.md anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from flyte_manager.domain import lifecycle
from flyte_manager.domain.actions import Action, Budget
from flyte_manager.domain.attempts import (
    Attempt,
    AttemptReport,
    ErrorKind,
    Failure,
    Observation,
    Presence,
    Transition,
)
from flyte_manager.domain.bounds import UNBOUNDED, Allowance, Bound, Left
from flyte_manager.domain.ids import ROOT, ActionId, RunId
from flyte_manager.domain.lifecycle import NO_RETRIES, Change, Do, Step
from flyte_manager.domain.phases import FINAL, ROAD, Kind, Phase
from tests.fakes.clock import NOW

DOCUMENT = Path(__file__).parents[1] / "docs" / "lifecycle.md"
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end of what `make docs` makes -->\n"

TASK_PHASES = (*ROAD, *sorted(FINAL))
RETRY = Budget(retries=1)
USER = Failure(ErrorKind.USER, "ValueError", "no")
GIVEN_UP = Failure(ErrorKind.SYSTEM, "ImagePullBackOff", "no such image")
REACHED = Left(end=0.0, allowance=Allowance(Bound.DEADLINE, 60))
BACKOFF = Left(start=5.0)

OBSERVATIONS: Mapping[str, tuple[Observation, Left]] = {
    "never started": (Observation(Presence.ABSENT), UNBOUNDED),
    "never started, in a backoff": (Observation(Presence.ABSENT), BACKOFF),
    **{f"alive, {phase.name}": (Observation(Presence.ALIVE, phase=phase), UNBOUNDED) for phase in ROAD},
    "alive, given up by its world": (Observation(Presence.ALIVE, failure=GIVEN_UP), UNBOUNDED),
    "ended": (Observation(Presence.EXITED), UNBOUNDED),
    "vanished": (Observation(Presence.VANISHED), UNBOUNDED),
    "never started, a bound is reached": (Observation(Presence.ABSENT), REACHED),
    "alive, a bound is reached": (Observation(Presence.ALIVE), REACHED),
    "ended, a bound is reached": (Observation(Presence.EXITED), REACHED),
}
STEPS = {
    Do.NOTHING: "-",
    Do.LAUNCH: "launch",
    Do.STOP: "stop",
    Do.WAIT: "wait",
    Do.REPORT_PROGRESS: "report progress",
    Do.REPORT_END: "report the end",
    Do.EXPIRE: "report TIMED_OUT, stop",
}


def task(phase: Phase) -> Action:
    """In its first attempt."""
    action = Action(ActionId(RunId("p", "d", "r"), ROOT), Kind.TASK, phase, NOW, base_uri="/r")
    return replace(action, ended_at=NOW) if phase.final else action


def attempt_of(action: Action) -> Attempt:
    """Its present one, which has gone all the way."""
    walked = tuple(Transition(phase, NOW) for phase in ROAD if phase < action.phase)
    began = NOW if action.phase >= Phase.RUNNING else None
    return replace(
        lifecycle.new_attempt(action, action.attempt, NOW),
        phase=action.phase,
        transitions=(*walked, Transition(action.phase, NOW)),
        started_at=began,
        ended_at=action.ended_at,
        logs_available=began is not None,
    )


def report(told: Phase, phase: Phase, budget: Budget = NO_RETRIES) -> Change:
    action = task(phase)
    failure = USER if told in (Phase.FAILED, Phase.TIMED_OUT) else None
    report = AttemptReport(action.attempt_id, told, NOW, failure=failure)
    return lifecycle.report(action, attempt_of(action), report, budget)


EVENTS: Mapping[str, Callable[[Phase], Change]] = {
    **{f"{told.name} is reported": partial(report, told) for told in TASK_PHASES},
    "FAILED is reported, tries are left": partial(report, Phase.FAILED, budget=RETRY),
    "TIMED_OUT is reported, tries are left": partial(report, Phase.TIMED_OUT, budget=RETRY),
    "it is aborted": lambda phase: lifecycle.abort(task(phase), attempt_of(task(phase)), reason="", at=NOW),
}


def tables() -> str:
    steps = [
        (seen, [_step(lifecycle.step(task(phase), *observed)) for phase in TASK_PHASES])
        for seen, observed in OBSERVATIONS.items()
    ]
    changes = [(event, [_change(phase, make(phase)) for phase in TASK_PHASES]) for event, make in EVENTS.items()]
    again = _change(Phase.FAILED, lifecycle.again(task(Phase.FAILED), NOW))
    return "\n".join(
        [
            "## What the executor does",
            "",
            "A task's row is in a phase, its present attempt is observed: `lifecycle.step`.",
            "",
            *_table("observed", steps),
            "",
            "## What becomes of a row",
            "",
            "`lifecycle.report` and `lifecycle.abort`; (2) is the next attempt, - changes nothing but events.",
            "",
            *_table("event", changes),
            "",
            f"A final phase has one way out, `lifecycle.again` ({again}): a task that was FAILED, TIMED_OUT or ABORTED",
            "before its parent's present attempt began runs again when that attempt enqueues it. In the same way a",
            "condition is asked again (`ask_again`), and a FAILED trace is replaced.",
            "",
        ]
    )


def _step(step: Step) -> str:
    return STEPS[step.do]


def _change(before: Phase, change: Change) -> str:
    if change.action is None or (change.action.phase is before and change.action.attempt == 1):
        return "-"
    return change.action.phase.name + (f" ({change.action.attempt})" if change.action.attempt > 1 else "")


def _table(corner: str, rows: Sequence[tuple[str, Sequence[str]]]) -> Iterable[str]:
    """Phases that are equal in all rows share a column."""
    columns = [tuple(cells[place] for _, cells in rows) for place in range(len(TASK_PHASES))]
    shared = [list(each) for _, each in groupby(range(len(TASK_PHASES)), key=lambda place: columns[place])]
    heads = [", ".join(TASK_PHASES[place].name for place in places) for places in shared]
    yield f"| {corner} | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for name, cells in rows:
        yield f"| {name} | {' | '.join(cells[places[0]] for places in shared)} |"


def document(text: str) -> str:
    """The document with its tables as they must be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables() + "\n" + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
