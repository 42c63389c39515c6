"""What the middle of the manager asks of the worlds around it. Each port has one conformance suite in `tests/`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from flyte_manager.domain.attempts import Observation
from flyte_manager.domain.errors import Refusal
from flyte_manager.domain.ids import AttemptId, ProjectId

Clock = Callable[[], datetime]
"""Tells the time, with a time zone (UTC)."""

Wake = Callable[[AttemptId], None]
"""Called on the event loop when the world may have changed for that attempt; a hint, never the truth."""


class LaunchRefused(Refusal):
    """{problem}"""


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a world needs to start one attempt. Argument templates are filled in already."""

    attempt: AttemptId
    args: Sequence[str]
    env: Mapping[str, str]
    """the variables of this attempt; the world adds its own base environment beneath"""
    secret_files: Mapping[str, bytes] = field(default_factory=dict)
    """relative path (`group/key`) -> content, shown to the task as files"""
    cpu: float = 0.5
    memory: int = 256 << 20
    """bytes; a request, used for admission"""
    memory_limit: int = 0
    """bytes that the whole process tree may use; 0 = no limit"""
    run_seconds: float = 0.0
    """seconds that it may run; 0 = no limit"""
    notes: Sequence[str] = ()
    """lines that the world writes into the attempt's log before the task starts, as SYSTEM lines"""


class Runtime(Protocol):
    """Where attempts run. Every call may be repeated; none holds knowledge that a restart would lose."""

    async def launch(self, launch: Launch) -> None:
        """Starts the attempt unless it was started before. Raises LaunchRefused when it can never start; any other
        exception means: try again later."""

    async def observe(self, attempt: AttemptId) -> Observation:
        """What is known of the attempt now."""

    async def stop(self, attempt: AttemptId) -> None:
        """Asks the attempt to end: SIGTERM to all its processes, SIGKILL after a grace period. Returns at once; the
        wake-up tells when it is over. An attempt that was never launched never will be."""

    async def forget(self, attempt: AttemptId, results: bytes) -> None:
        """Frees what the world keeps of an ended attempt beside its log, unless the results (its `outputs.pb`) name a
        file in it: the SDK's File.from_local does not copy."""


@dataclass(frozen=True, slots=True)
class LogLine:
    at: datetime
    message: str
    system: bool = False
    """written by the world about the task, not by the task"""


class Logs(Protocol):
    """The output of attempts, kept after their end."""

    def tail(self, attempt: AttemptId, *, ended: Callable[[], Awaitable[bool]]) -> AsyncIterator[Sequence[LogLine]]:
        """Lines from the first one on, in pages; follows while `ended()` is false."""


class Blobs(Protocol):
    """Where inputs, outputs, bundles and reports lie. A uri is what tasks open: a plain absolute path, or s3://…

    Raises Invalid for a uri that lies outside the store.
    """

    def checked(self, uri: str) -> str:
        """The uri, when it is one of this store's; nothing is read. Raises an Invalid refusal."""

    def join(self, *parts: str) -> str:
        """The uri of the object at this path within the store."""

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        """The object's content, None when it isn't there. Raises TooLarge above `limit` bytes (0 = no limit)."""

    async def write(self, uri: str, content: bytes) -> None:
        """Writes the whole object, or nothing."""

    async def exists(self, uri: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A permission for one object, good for a while for everybody who has it."""

    url: str
    headers: Mapping[str, str]
    """that the client must send along"""
    expires_at: datetime


class Links(Protocol):
    """Makes the URLs by which clients, who have no way into the store, put and get single objects.

    `lifetime`: None = the default; `host`: host and port by which the client reached this manager. Raises an Invalid
    refusal for a lifetime that isn't possible. A uri outside the store is refused, at the latest when the URL is used.
    """

    async def upload(self, uri: str, *, md5: bytes, limit: int, lifetime: timedelta | None, host: str) -> SignedUrl:
        """For one PUT of a content with that MD5 (empty = any) and at most `limit` bytes (0 = no limit); what a store
        can't check before it has the object is left to whoever reads it."""

    async def download(self, uri: str, *, lifetime: timedelta | None, host: str) -> SignedUrl:
        """For GET."""


class Secrets(Protocol):
    """Gives tasks the secrets that they declare."""

    async def reveal(self, scope: ProjectId, key: str) -> bytes | None:
        """The value for tasks of that scope: the project's own, else the domain's, else the one for all; None when
        there is none."""
