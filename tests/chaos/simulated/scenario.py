"""What one seed plays: trees of calls, how each attempt ends, who aborts what and when, and when the manager dies."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.task import common_pb2

from flyte_manager.domain.phases import Kind

HANGING_SECONDS = 1e6
"""it ends when it is told to, or not at all; its run is aborted"""


class Ending(Enum):
    """What becomes of an attempt."""

    GOOD = "exits with 0 and its outputs"
    EXIT_ONE = "exits with 1"
    RECOVERABLE = "writes an error that may be tried again"
    FATAL = "writes an error that must not be tried again"
    VANISHED = "is gone without a record"
    OUT_OF_MEMORY = "is killed for its memory"
    NO_OUTPUTS = "exits with 0 and wrote no outputs"


_ENDINGS = [*[Ending.GOOD] * 7, *Ending]


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one attempt: what it does of its own before it calls, and how it ends when its calls went well."""

    seconds: float
    ending: Ending


@dataclass(slots=True)
class Call:
    """One action and what it calls."""

    name: str
    kind: Kind
    retries: int = 0
    backoff: int = 0
    cpu: int = 1
    timeout: int = 0
    """seconds, of a condition"""
    cache_key: str = ""
    """calls with the same one are equal: they share their outputs"""
    serialized: bool = False
    """equal calls wait for each other"""
    max_runtime: int = 0
    queued_timeout: int = 0
    deadline: int = 0
    """seconds; 0 = no bound"""
    fates: list[Fate] = field(default_factory=list)
    """of the attempts in order; those after the last one end well at once"""
    calls: "list[Call]" = field(default_factory=list)
    together: bool = True
    """it enqueues all its calls before it waits for the first one"""
    forgiving: bool = False
    """it ends well though a call of its own failed"""

    def fate(self, attempt: int) -> Fate:
        return self.fates[attempt - 1] if attempt <= len(self.fates) else Fate(0.1, Ending.GOOD)

    def all(self) -> "Iterator[Call]":
        yield self
        for call in self.calls:
            yield from call.all()


@dataclass(frozen=True, slots=True)
class Abort:
    at: float
    run: str
    action: str
    """"" = the run"""


@dataclass(frozen=True, slots=True)
class Outage:
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Meddling:
    """Somebody else reports that a live attempt has failed."""

    at: float
    run: str
    action: str


@dataclass(frozen=True, slots=True)
class Scenario:
    runs: dict[str, Call]
    cpu: float
    aborts: tuple[Abort, ...]
    signals: tuple[Abort, ...]
    """answers to conditions"""
    outages: tuple[Outage, ...]
    meddlings: tuple[Meddling, ...]

    def call(self, run: str, action: str) -> Call:
        return next(each for each in self.runs[run].all() if each.name == action)


OUTPUTS = common_pb2.Outputs(
    literals=[
        common_pb2.NamedLiteral(
            name="o0",
            value=literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=1))),
        )
    ]
).SerializeToString()
"""of every attempt that ends well"""


def scenario(random: Random) -> Scenario:
    runs = {
        f"r{number}": _task(random, "a0", depth=0, left=[random.randint(1, 6)]) for number in (1, 2)[: _few(random)]
    }
    known = [(run, call) for run, root in runs.items() for call in root.all()]
    aborted = random.sample(known, min(len(known), random.choice((0, 0, 0, 1, 1, 2))))
    conditions = [(run, call) for run, call in known if call.kind is Kind.CONDITION and random.random() < 0.7]
    hanging = [run for run, call in known if any(fate.seconds >= HANGING_SECONDS for fate in call.fates)]
    meddled = [each for each in known if random.random() < 0.05]
    return Scenario(
        runs=runs,
        cpu=random.choice((1, 2, 4)),
        aborts=(
            *(Abort(random.uniform(0, 30), run, "" if random.random() < 0.5 else call.name) for run, call in aborted),
            *(Abort(random.uniform(60, 90), run, "") for run in dict.fromkeys(hanging)),
        ),
        signals=tuple(Abort(random.uniform(0, 60), run, call.name) for run, call in conditions),
        outages=tuple(_outages(random)),
        meddlings=tuple(Meddling(random.uniform(0, 30), run, call.name) for run, call in meddled),
    )


def error_document(ending: Ending, code: str = "Simulated") -> bytes:
    kind = execution_pb2.ContainerError
    chosen = kind.RECOVERABLE if ending is Ending.RECOVERABLE else kind.NON_RECOVERABLE
    error = kind(code=code, message=ending.value, kind=chosen, origin=execution_pb2.ExecutionError.USER)
    return execution_pb2.ErrorDocument(error=error).SerializeToString()


def _few(random: Random) -> int:
    return random.choice((1, 1, 2))


def _task(random: Random, name: str, *, depth: int, left: list[int]) -> Call:
    call = Call(
        name,
        Kind.TASK,
        retries=random.choice((0, 0, 1, 2)),
        backoff=random.choice((0, 0, 2)),
        cpu=random.choice((1, 1, 2)),
        cache_key=random.choice(("k1", "k2")) if random.random() < 0.2 else "",
        serialized=random.random() < 0.5,
        max_runtime=_bound(random, 1, 20),
        queued_timeout=_bound(random, 1, 30),
        deadline=_bound(random, 5, 60),
        together=random.random() < 0.6,
        forgiving=random.random() < 0.2,
    )
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        call.fates.append(Fate(_seconds(random), random.choice(_ENDINGS)))
    wanted = random.randint(0, 3) if depth else random.randint(1, 4)
    while depth < 3 and wanted and left[0]:
        wanted, left[0] = wanted - 1, left[0] - 1
        below = f"{name}x{len(call.calls)}"
        if random.random() < 0.2:
            call.calls.append(Call(below, Kind.CONDITION, timeout=random.randint(1, 40)))
        elif random.random() < 0.15:
            call.calls.append(Call(below, Kind.TRACE))
        else:
            call.calls.append(_task(random, below, depth=depth + 1, left=left))
    return call


def _bound(random: Random, least: int, most: int) -> int:
    return random.randint(least, most) if random.random() < 0.1 else 0


def _seconds(random: Random) -> float:
    if random.random() < 0.05:
        return HANGING_SECONDS
    return random.choice((0.0, random.uniform(0, 0.2), random.uniform(0, 15)))


def _outages(random: Random) -> Iterator[Outage]:
    at = 0.0
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        at += random.choice((random.uniform(0, 0.5), random.uniform(0, 25)))
        seconds = random.choice((0.0, random.uniform(0, 12)))
        yield Outage(at, seconds)
        at += seconds
