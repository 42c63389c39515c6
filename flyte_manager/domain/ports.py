"""What the middle of the manager asks of the worlds around it. Each port has one conformance suite in `tests/`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from flyte_manager.domain.actions import Action, ActionHistory, Resource, Run
from flyte_manager.domain.attempts import Observation
from flyte_manager.domain.catalog import KnownSecret, SecretName
from flyte_manager.domain.errors import Refusal, Unavailable
from flyte_manager.domain.ids import ActionId, AttemptId, ProjectId

Clock = Callable[[], datetime]
"""Tells the time, with a time zone (UTC)."""

Wake = Callable[[AttemptId], None]
"""Called on the event loop when the world may have changed for that attempt; a hint, never the truth."""


class LaunchRefused(Refusal):
    """{problem}"""


class LaunchDelayed(Unavailable):
    """{problem}"""


class Unsettled(Unavailable):
    """{problem}"""


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where the world itself keeps a secret's value: name of a Kubernetes Secret, and the key of its data."""

    name: str
    key: str


SecretValue = bytes | SecretReference
"""The value, or for a world that knows where it lies only the place."""


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a world needs to start one attempt. Argument templates are filled in already."""

    attempt: AttemptId
    args: Sequence[str]
    env: Mapping[str, str]
    """the variables of this attempt; the world adds its own base environment beneath"""
    secret_env: Mapping[str, SecretValue] = field(default_factory=dict)
    """variable -> value"""
    secret_files: Mapping[str, SecretValue] = field(default_factory=dict)
    """relative path (`group/key`) -> content, shown to the task as files"""
    cpu: float = 0.5
    memory: int = 256 << 20
    """bytes; a request, used for admission"""
    memory_limit: int = 0
    """bytes that the whole process tree may use; 0 = no limit"""
    run_seconds: float = 0.0
    """seconds that it may run; 0 = no limit. A world of pods leaves it to the executor to count them"""
    notes: Sequence[str] = ()
    """lines that the world writes into the attempt's log before the task starts, as SYSTEM lines"""
    template: bytes = b""
    """flyteidl2.core.TaskTemplate: images, resources and pod for a world that runs containers"""
    values: Mapping[str, str] = field(default_factory=dict)
    """of the argument templates, for the containers of a pod that the template brings"""
    resource: Resource | None = None
    """the owner of what is started"""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    interruptible: bool = False
    """may run where machines are taken away at any time"""
    service_account: str = ""
    input_uri: str = ""
    """of inputs.pb"""
    output_prefix: str = ""
    """the folder in which the attempt writes outputs.pb, error.pb, report.html"""


class Runtime(Protocol):
    """Where attempts run. Every call may be repeated; none holds knowledge that a restart would lose."""

    async def launch(self, launch: Launch) -> None:
        """Starts the attempt unless it was started before. Raises LaunchRefused when it can never start, LaunchDelayed
        when it must wait for room; any other exception means: try again later."""

    async def observe(self, attempt: AttemptId, *, begun: bool = False) -> Observation:
        """What is known of the attempt now. `begun`: its row says that it was started, which tells "gone" from "never
        there" where nothing else does."""

    async def stop(self, attempt: AttemptId) -> None:
        """Asks the attempt to end: SIGTERM to all its processes, SIGKILL after a grace period. Returns at once; the
        wake-up tells when it is over. One that was never launched is not launched afterwards: its action is final."""

    async def settle(self, attempt: AttemptId) -> None:
        """Keeps what must outlive an ended attempt: its log. Called before the next attempt starts, and once the action
        is final. Raises Unsettled when that takes longer."""

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

    async def delete(self, uri: str) -> None:
        """Deletes the object; one that isn't there is fine."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it lies in a store."""

    uri: str
    size: int
    modified_at: datetime


class Trees(Protocol):
    """Whole folders of a store. A folder is a uri, without a slash at its end."""

    @property
    def root(self) -> str: ...

    def stored(self, folder: str) -> AsyncIterator[Sequence[Stored]]:
        """All that lies below the folder, in pages; nothing where there is none."""

    async def remove(self, folder: str) -> None:
        """Takes away all that lies below the folder; one that isn't there is fine."""

    async def beginning(self, uri: str, *, limit: int) -> bytes | None:
        """At most so many bytes of an object; None when it isn't there, or can't be by its name."""


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

    async def give(self, scope: ProjectId, key: str) -> SecretValue | None:
        """The one for tasks of that scope: the project's own, else the domain's, else the one for all; None when
        there is none."""


class SecretKeeper(Secrets, Protocol):
    """Where secrets are kept. Values come in; but for tasks none goes out."""

    async def create(self, name: SecretName, value: bytes, *, kind: int = 0) -> None:
        """Raises an Exists refusal."""

    async def update(self, name: SecretName, value: bytes, *, kind: int = 0) -> None:
        """Replaces value and type. Raises a Missing refusal."""

    async def delete(self, name: SecretName) -> None:
        """Raises a Missing refusal."""

    async def get(self, name: SecretName) -> KnownSecret:
        """What is known of the secret but its value. Raises a Missing refusal."""

    async def page(self, scope: SecretName, *, limit: int, offset: int) -> Sequence[KnownSecret]:
        """One more than `limit`, by name, of all that tasks in the scope can see."""


class Standing(Enum):
    """Whether an action's resource is there."""

    NEVER_MADE = "never made"
    STANDS = "stands"
    DELETED = "deleted"
    """made once, and deleted by somebody else"""


@dataclass(frozen=True, slots=True)
class FoundAction:
    """A resource that somebody else made, as an order to run an action."""

    resource: Resource
    id: ActionId
    parent: str = ""
    condition: bytes = b""
    """flyteidl2.workflow.ConditionAction of a condition, else empty"""
    template: bytes = b""
    """flyteidl2.core.TaskTemplate of a task"""
    short_name: str = ""
    group: str = ""
    cache_key: str = ""
    input_uri: str = ""
    base_uri: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    interruptible: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    """what is wrong with it: it can't be run"""


class TaskActions(Protocol):
    """The resources by which actions are seen, and ordered, outside. Level-based: every call may be repeated."""

    async def standing(self, action: Action) -> Standing:
        """Never DELETED unless a live look at the world, not a cache, says so."""

    async def make(self, action: Action, run: Run, *, spec: bytes, parent: Resource | None) -> Resource:
        """Makes the action's resource, or takes the one of that action that is there. `spec`: flyteidl2.task.TaskSpec
        of a task, ConditionAction of a condition; `parent`: its owner. Raises LaunchRefused when it can never be."""

    def known(self, action: ActionId) -> Resource | None:
        """The action's resource, as far as is known here."""

    def shows(self, action: Action) -> bool:
        """Whether the resource tells what the row tells, as far as is known here."""

    async def show(self, history: ActionHistory) -> None:
        """Makes the resource's status tell what the rows tell. One that is gone is no error."""

    def tell(self, resource: Resource, reason: str, message: str, *, warning: bool) -> None:
        """Records an event beside the resource, sooner or later. `reason`: one word in CamelCase."""

    def found(self, action: ActionId) -> FoundAction | None:
        """What somebody else ordered under that name: for an action without a row."""

    async def refuse(self, found: FoundAction, problem: str) -> None:
        """Says in the resource's status why it can't even have a row."""
