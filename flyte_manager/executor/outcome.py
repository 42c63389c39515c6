"""How an attempt ended: exit record, `error.pb` and `outputs.pb` make the last report (sdk-contract.md §3.3).

Success is exit 0, no `error.pb`, and `outputs.pb` where the task declares outputs; never `outputs.pb` alone, because
it is written in place.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flyte_manager.domain.actions import Action
from flyte_manager.domain.attempts import (
    AttemptReport,
    ErrorKind,
    Event,
    Exit,
    Failure,
    Observation,
    Presence,
    StopReason,
    Transition,
)
from flyte_manager.domain.bounds import Bound, exceeded
from flyte_manager.domain.errors import Invalid, TooLarge
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Blobs
from flyte_manager.domain.tasks import TaskPlan
from flyte_manager.wire.data import damage
from flyte_manager.wire.updates import read_error

CHILD_ABORTED = "ActionAbortedError"
"""what a parent fails with when an action that it waits for was aborted: after an abort nothing is tried again"""

LARGEST_OUTPUTS = 256 << 20
"""bytes of outputs.pb: the manager reads it as a whole"""

ABORTED = (-6, 128 + 6)
"""exit codes of SIGABRT, of a process and as containers tell it"""

_NO_MODULE = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Reads how attempts ended. `advice`: how a package that a task lacks gets there, as a sentence's end."""

    blobs: Blobs
    advice: Callable[[str], str]

    async def report(
        self, action: Action, *, plan: TaskPlan, seen: Observation, now: datetime
    ) -> tuple[AttemptReport, bytes]:
        """The final report of an attempt that is over, and its `outputs.pb`, empty when there is none that counts."""
        prefix = action.output_prefix(action.attempt)
        exited = seen.exit
        try:
            failure, outputs = (seen.failure, b"") if seen.failure else await self._read(prefix, plan, seen)
        except (Invalid, PermissionError) as error:  # what the task left there is closed, or a link to elsewhere
            failure, outputs = _unreadable(error), b""
        timed_out = exited is not None and exited.reason is StopReason.TIMEOUT
        phase = Phase.SUCCEEDED if failure is None else Phase.TIMED_OUT if timed_out else Phase.FAILED
        report_uri = f"{prefix}/report.html"
        told = AttemptReport(
            attempt=action.attempt_id,
            phase=phase,
            at=sharpened(exited.ended_at, now) if exited else now,
            transitions=seen.transitions or (running(exited.started_at) if exited else ()),
            failure=self._with_advice(failure),
            output_uri=prefix,
            report_uri=report_uri if plan.has_report and await self._is_there(report_uri) else "",
            usage=exited.usage if exited else None,
            events=(*seen.events, *_remarks(exited, failure)),
            place=seen.place,
        )
        return told, outputs

    async def _read(self, prefix: str, plan: TaskPlan, seen: Observation) -> tuple[Failure | None, bytes]:
        """How it failed, if it did, and its outputs, which must be whole."""
        failure = await self._failure(prefix, seen, plan)
        if failure is not None or not plan.has_outputs:
            return failure, b""
        try:
            outputs = await self.blobs.read(f"{prefix}/outputs.pb", limit=LARGEST_OUTPUTS)
        except TooLarge:
            return _too_large(), b""
        if outputs is None:
            return _outputs_failure("OutputsMissing", "it wrote no outputs.pb"), b""
        problem = damage(outputs, plan.outputs)
        return (_outputs_failure("OutputsDamaged", problem), b"") if problem else (None, outputs)

    async def _is_there(self, uri: str) -> bool:
        try:
            return await self.blobs.exists(uri)
        except Invalid:  # a link to elsewhere
            return False

    async def _failure(self, prefix: str, seen: Observation, plan: TaskPlan) -> Failure | None:
        exited = seen.exit
        if exited is None or seen.presence is Presence.VANISHED:
            detail = f": {exited.detail}" if exited and exited.detail else ""
            return Failure(
                ErrorKind.SYSTEM, "ProcessVanished", f"the task's process is gone without a record of its end{detail}"
            )
        if exited.reason is not None:
            return _stopped(exited.reason, exited, plan)
        failure = await read_error(self.blobs, f"{prefix}/error.pb")
        if failure is not None:
            return replace(failure, recoverable=failure.recoverable and failure.code != CHILD_ABORTED)
        if exited.code != 0 and not await self._had_done(prefix, exited, plan):
            return _died(exited)
        return None

    async def _had_done(self, prefix: str, exited: Exit, plan: TaskPlan) -> bool:
        """Whether the SDK had done all its work when its interpreter was aborted at the exit: outputs are the last that
        it writes (docs/decisions/0012)."""
        if exited.code not in ABORTED or plan.args[:1] != ("a0",) or not plan.has_outputs:
            return False
        try:
            outputs = await self.blobs.read(f"{prefix}/outputs.pb", limit=LARGEST_OUTPUTS)
        except TooLarge:
            return False
        return outputs is not None and not damage(outputs, plan.outputs)

    def _with_advice(self, failure: Failure | None) -> Failure | None:
        """Adds how to install a module that the tasks' Python lacks."""
        match = _NO_MODULE.search(failure.message) if failure else None
        if failure is None or match is None:
            return failure
        package = match[1].partition(".")[0]
        return replace(failure, message=f"{failure.message}\n\nFlyte Manager: {self.advice(package)}.")


def install_into(interpreter: str) -> Callable[[str], str]:
    """The advice where tasks run in that Python."""

    def advice(package: str) -> str:
        return (
            f"the tasks run in {interpreter}, which lacks it (images are not built here). Add it with "
            f"`{shlex.quote(interpreter)} -m pip install {package}` (its package may be called otherwise), or start "
            "the manager in an environment that has it. A module of your own comes with `flyte run --copy-style all`"
        )

    return advice


def add_to_image(package: str) -> str:
    """The advice where tasks run in images."""
    return (
        f"the task's image lacks it. Name one that has {package}, or add it to the image: "
        f'flyte.Image.from_debian_base().with_pip_packages("{package}"), built and pushed by the SDK\'s local builder. '
        "A module of your own comes with `flyte run --copy-style all`"
    )


def sharpened(told: datetime, now: datetime) -> datetime:
    """A world that tells whole seconds cuts them off: what it tells of just now happened now."""
    just_now = told.microsecond == 0 and timedelta(0) <= now - told < timedelta(seconds=2)
    return now if just_now else told


def running(started_at: datetime) -> tuple[Transition, ...]:
    """The transitions of an attempt whose process started then."""
    return Transition(Phase.INITIALIZING, started_at), Transition(Phase.RUNNING, started_at)


def _stopped(reason: StopReason, exited: Exit, plan: TaskPlan) -> Failure:
    match reason:
        case StopReason.OUT_OF_MEMORY:
            peak = exited.usage.peak_memory >> 20
            limit = plan.memory_limit >> 20
            message = f"the task used {peak} MiB of memory, its limit is {limit} MiB: raise resources.memory"
            return Failure(ErrorKind.USER, "OOM", message)
        case StopReason.TIMEOUT:
            allowance = next((each for each in plan.bounds if each.bound is Bound.MAX_RUNTIME), None)
            return exceeded(allowance) if allowance else _stopped_by_pod(exited)
        case StopReason.ABORTED:
            return Failure(ErrorKind.SYSTEM, "Interrupted", "the task was told to stop from outside this manager")


def _stopped_by_pod(exited: Exit) -> Failure:
    """A limit that the task's own pod template sets."""
    message = "the task ran longer than it may"
    detail = f": {exited.detail}" if exited.detail else ""
    return Failure(ErrorKind.USER, Bound.MAX_RUNTIME.value, f"{message}{detail}")


def _too_large() -> Failure:
    message = (
        f"its outputs.pb holds more than {LARGEST_OUTPUTS >> 20} MiB: return what is large as flyte.io.File, Dir or "
        "DataFrame"
    )
    return Failure(ErrorKind.USER, "OutputsTooLarge", message, recoverable=False)


def _unreadable(error: Exception) -> Failure:
    message = f"what the task wrote at its end can't be read: {error}"
    return Failure(ErrorKind.USER, "OutputsUnreadable", message)


def _outputs_failure(code: str, problem: str) -> Failure:
    cause = "did it call sys.exit, or remove or overwrite files of its attempt, or was the disk full?"
    return Failure(ErrorKind.SYSTEM, code, f"the task ended well, but {problem}: {cause}")


def _remarks(exited: Exit | None, failure: Failure | None) -> Iterator[Event]:
    if exited is not None and exited.code and failure is None:
        message = "its process was aborted at its exit, after all its outputs were written (docs/decisions/0012)"
        yield Event(exited.ended_at, message, reason="AbortedAtExit", warning=True)


def _died(exited: Exit) -> Failure:
    if exited.code < 0:
        message = f"the task's process was killed by signal {-exited.code}"
        if exited.code == -9:
            message += " (often the kernel, for want of memory: give it less to do or the machine more)"
    else:
        message = f"the task's process ended with exit code {exited.code} and wrote no error"
    detail = f": {exited.detail}" if exited.detail else ""
    return Failure(ErrorKind.USER, "ProcessDied", f"{message}{detail}; see its log")
