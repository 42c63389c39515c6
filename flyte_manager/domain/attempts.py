"""What a world tells about an attempt, and what the ledger keeps of it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum

from flyte_manager.domain.caching import CacheEntry, CacheStatus
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase


class ErrorKind(IntEnum):
    """Whose error it is (numbers as in flyteidl2.workflow.ErrorInfo.Kind)."""

    UNKNOWN = 0
    USER = 1
    SYSTEM = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed."""

    kind: ErrorKind
    code: str
    message: str
    recoverable: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt used: CPU seconds and the peak of its memory in bytes, whole process tree."""

    cpu_seconds: float = 0.0
    peak_memory: int = 0


class Presence(Enum):
    """Whether the world holds the attempt."""

    ABSENT = "absent"
    """never launched"""
    ALIVE = "alive"
    EXITED = "exited"
    VANISHED = "vanished"
    """launched once, gone without a record of its end"""


class StopReason(Enum):
    """Why the world, and not the task itself, ended the attempt."""

    ABORTED = "ABORTED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OOM"


@dataclass(frozen=True, slots=True)
class Exit:
    """How the attempt's process ended. `code` is negative for a signal, as in subprocess."""

    code: int
    started_at: datetime
    ended_at: datetime
    reason: StopReason | None = None
    usage: Usage = Usage()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling that happened to an attempt."""

    at: datetime
    message: str
    reason: str = ""
    warning: bool = False
    source: str = ""
    """the component that told it; empty = this manager"""
    count: int = 1
    gpu_fault: bytes = b""
    """flyteidl2.core.GpuFault; empty = it is about none"""


@dataclass(frozen=True, slots=True)
class Transition:
    phase: Phase
    at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt runs or ran; empty = not known (yet)."""

    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    container: str = ""
    """that runs the task"""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The world's view of one attempt, now."""

    presence: Presence
    started_at: datetime | None = None
    exit: Exit | None = None
    phase: Phase = Phase.RUNNING
    """how far an ALIVE attempt is: QUEUED, WAITING_FOR_RESOURCES, INITIALIZING or RUNNING"""
    reason: str = ""
    """why an ALIVE attempt does not run yet, in the world's words"""
    failure: Failure | None = None
    """the world's own verdict; on an ALIVE attempt: it can't go on and must be stopped"""
    transitions: tuple[Transition, ...] = ()
    """times that the world tells for phases"""
    events: tuple[Event, ...] = ()
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What the executor reports through `ledger.report`. `transitions` fills in the phases that were jumped over."""

    attempt: AttemptId
    phase: Phase
    at: datetime
    transitions: tuple[Transition, ...] = ()
    failure: Failure | None = None
    output_uri: str = ""
    report_uri: str = ""
    usage: Usage | None = None
    events: tuple[Event, ...] = ()
    reason: str = ""
    """why the attempt waits, for WAITING_FOR_RESOURCES; why it was aborted, for ABORTED"""
    place: Place | None = None
    cache_status: CacheStatus = CacheStatus.DISABLED
    """DISABLED: as it was"""
    cache_source: AttemptId | None = None
    """whose outputs these are, for a hit"""
    keep: CacheEntry | None = None
    """what the cache keeps from now on, if the report counts"""
    told: bytes = b""
    """what else another executor tells of it: see Attempt.told"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of an action, as the ledger keeps it."""

    id: AttemptId
    phase: Phase
    created_at: datetime
    transitions: tuple[Transition, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: Failure | None = None
    output_uri: str = ""
    report_uri: str = ""
    usage: Usage | None = None
    events: tuple[Event, ...] = field(default=())
    logs_available: bool = False
    place: Place | None = None
    """None where attempts have no pods, and before there is one"""
    cache_status: CacheStatus = CacheStatus.DISABLED
    cache_source: AttemptId | None = None
    """whose outputs these are, for a hit"""
    told: bytes = b""
    """flyteidl2.workflow.ActionEvent: links, log context, cluster and cache, as another executor told them"""
