"""One manager at a time: the Lease `flyte-manager` of the namespace.

    acquire() ── free, or ours, or stale ──▶ held ── renewed every 5 s ──▶ held
        │ held by another: wait                 │ 12 s without a renewal: `held` is False, nobody reconciles;
        ▼                                       ▼ a renewal that succeeds makes it True again: nobody else was there
      log, try again                          another holds it: LeaseLost, the manager must end

A Lease is stale when this process has watched it unchanged for its whole duration (15 s): other machines' clocks are
never compared with ours. Each write carries the resourceVersion that was read, so of two that take it one fails. A
renewal counts from the moment before it was sent. The 3 s between 12 and 15 are for what is under way.

Who starts again need not wait where the old holder is proven dead. The proof is the database's lock file
(store/instance.py): one process at a time can hold it, and we do. So a Lease whose holder names the same database, the
same lock file (device and inode) and the same boot of the same kernel is taken at once; this is so after a crash, and
for a new pod on the same node with the same volume. The instance id alone proves nothing: a copied database has it
too. A clean stop gives the Lease back, and a holder that went without is waited for, 15 s at most.
"""

import asyncio
import hashlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, NoReturn

from flyte_manager.domain.errors import Unavailable, Unready
from flyte_manager.domain.ports import Clock
from flyte_manager.kubernetes import permissions
from flyte_manager.kubernetes.api_errors import TRANSIENT, AlreadyExists, ApiError, Conflict, Forbidden, NotFound
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import LEASES

log = logging.getLogger(__name__)

NAME = "flyte-manager"
DURATION_SECONDS = 15
RENEW_SECONDS = 5.0
GIVE_UP_SECONDS = 12.0
RETRY_SECONDS = 1.0
REQUEST_SECONDS = 4.0
TELL_SECONDS = 30.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Lease = dict[str, Any]


class LeaseLost(Unavailable):
    """the Lease {namespace}/{name} is held by another manager now ({holder}), so this one must end: run one manager for
    a namespace, or give this one another manager.kubernetes.namespace."""


class Unleasable(Unready):
    """the Lease {namespace}/{name}, which lets one manager at a time work in the namespace, can't be had: {words}:
    {cure}."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who this manager is, to those that wait."""

    host: str
    instance: str
    """id of the database"""
    lock: str
    """digest of what identifies the database's lock file on the running machine"""

    @classmethod
    def here(cls, instance: str, lock_file: Path, host: str = "") -> "Holder":
        """This process, which holds that lock."""
        status = lock_file.stat()
        place = f"{BOOT_ID.read_text().strip()} {status.st_dev} {status.st_ino}"
        return cls(host or socket.gethostname(), instance, hashlib.sha256(place.encode()).hexdigest()[:16])

    @property
    def identity(self) -> str:
        return f"{self.host}_{self.instance}_{self.lock}"

    def had(self, identity: str) -> bool:
        """Whether it is that of a process which held our lock, and so has ended."""
        return identity.endswith(f"_{self.instance}_{self.lock}")


class ManagerLease:
    """`elapsed`: seconds of a clock that goes on while the machine sleeps (CLOCK_BOOTTIME)."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        holder: Holder,
        clock: Clock,
        elapsed: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._holder = holder
        self._clock = clock
        self._elapsed = elapsed
        self._sleep = sleep
        self._lease: Lease = {}
        """as we wrote it last; empty: not ours"""
        self._held_until = float("-inf")
        self._seen = ("", 0.0)
        """resourceVersion of another's Lease, and since when it has stood so"""
        self._told_at = float("-inf")
        self.waits_for = "has not been asked for yet"
        """why it is not held, as last seen; completes "the Lease …" """

    @property
    def held(self) -> bool:
        """Whether this manager, and no other, may change the world now. Ask before each reconcile."""
        return self._elapsed() < self._held_until

    def __str__(self) -> str:
        return f"{self._namespace}/{NAME}"

    async def acquire(self) -> None:
        """Waits until the Lease is ours. Raises Unleasable."""
        while True:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    other = await self._try_to_take()
            except (*TRANSIENT, TimeoutError) as error:
                self._tell(f"can't be had yet: {_words(error)}")
            except ApiError as error:
                raise Unleasable(
                    namespace=self._namespace, name=NAME, words=error.words, cure=self._cure(error)
                ) from error
            else:
                if not other:
                    return
                self._tell(f"is held by {other}; it is ours once that manager ends, {DURATION_SECONDS} s later at most")
            await self._sleep(RETRY_SECONDS)

    async def hold(self) -> NoReturn:
        """Renews the Lease until it is cancelled. Raises LeaseLost as soon as somebody else has it."""
        self._told_at = float("-inf")
        pause = RENEW_SECONDS
        while True:
            await self._sleep(pause)
            was_held = self.held
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    await self._renew()
            except (*TRANSIENT, TimeoutError, ApiError) as error:
                meanwhile = "work goes on for now" if self.held else "nothing is started or stopped until it is"
                self._tell(f"could not be renewed ({_words(error)}); {meanwhile}")
                pause = RETRY_SECONDS
            else:
                pause = RENEW_SECONDS
                if not was_held:
                    log.warning("the Lease %s/%s is renewed: work goes on", self._namespace, NAME)
                self._told_at = float("-inf")

    async def release(self) -> None:
        """Gives it back, so that the next manager need not wait. Call it when nothing works on the world any more."""
        if not self._lease:
            return
        self._lease, self._held_until = {}, float("-inf")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                found = await self._read()  # the last renewal may have been cut off
                if found is not None and _holder_of(found) == self._holder.identity:
                    spec = found["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.update(LEASES, found | {"spec": spec})
        except (*TRANSIENT, TimeoutError, ApiError) as error:
            log.warning("the Lease %s/%s was not given back: %s", self._namespace, NAME, _words(error))

    async def _try_to_take(self) -> str:
        """Who has it; empty: we do now."""
        found = await self._read()
        if found is not None and not self._may_take(found):
            return _holder_of(found)
        try:
            await self._write(found)
        except (AlreadyExists, Conflict):
            return "another manager, which was faster"
        return ""

    def _may_take(self, found: Lease) -> bool:
        holder, version, now = _holder_of(found), found["metadata"]["resourceVersion"], self._elapsed()
        if not holder or self._holder.had(holder):
            return True
        if version != self._seen[0]:
            self._seen = (version, now)
        duration: int = found["spec"].get("leaseDurationSeconds") or DURATION_SECONDS
        return now - self._seen[1] >= duration

    async def _renew(self) -> None:
        try:
            await self._write(self._lease)
        except (NotFound, Conflict):
            # Deleted, or changed since: by another manager, a hand, or a write of ours whose answer got lost.
            found = await self._read()
            if found is not None and _holder_of(found) != self._holder.identity:
                self._lease, self._held_until = {}, float("-inf")
                raise LeaseLost(namespace=self._namespace, name=NAME, holder=_holder_of(found) or "nobody") from None
            await self._write(found)

    async def _read(self) -> Lease | None:
        try:
            return await self._client.get(LEASES, NAME, namespace=self._namespace)
        except NotFound:
            return None

    async def _write(self, found: Lease | None) -> None:
        """Creates it, or replaces the found one, with us as the holder."""
        sent_at = self._elapsed()
        if found is None:
            lease: Lease = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": NAME, "namespace": self._namespace},
                "spec": self._spec({}),
            }
            self._lease = await self._client.create(LEASES, lease)
        else:
            self._lease = await self._client.update(LEASES, found | {"spec": self._spec(found.get("spec") or {})})
        self._held_until = sent_at + GIVE_UP_SECONDS

    def _spec(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What it says once it is ours, or still ours."""
        now = f"{self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        spec = {**found, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}
        if found.get("holderIdentity") != self._holder.identity:
            turns = found.get("leaseTransitions", -1) + 1
            spec |= {"holderIdentity": self._holder.identity, "acquireTime": now, "leaseTransitions": turns}
        return spec

    def _tell(self, what: str) -> None:
        """The first time, and every 30 s."""
        self.waits_for = what
        now = self._elapsed()
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            log.warning("the Lease %s/%s %s", self._namespace, NAME, what)

    def _cure(self, error: ApiError) -> str:
        if isinstance(error, Forbidden):
            rule = permissions.rule_text(LEASES.group, LEASES.plural)
            return f"let the manager's Role in namespace {self._namespace} have the rule {rule}"
        if isinstance(error, NotFound):
            return f"`kubectl create namespace {self._namespace}`, or set manager.kubernetes.namespace"
        return "`flyte-manager doctor` looks at all that a start needs"


def _holder_of(lease: Lease) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _words(error: BaseException) -> str:
    return str(error) or "no answer in time"
