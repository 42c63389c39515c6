"""What the Kubernetes API refuses, as classes named like its reasons, in the server's own words."""

# ruff: noqa: N818

import re
from collections.abc import Mapping
from typing import Any

from flyte_manager.domain.errors import Unavailable


class ApiError(Exception):
    """The API server refused a request. `words`: its message; `reason`: its word for the kind of refusal."""

    def __init__(self, *, status: int, words: str, reason: str = "") -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.reason = reason


class Unauthorized(ApiError):
    """The credentials are not accepted."""


class Forbidden(ApiError):
    """The credentials don't allow it, or a quota or policy of the namespace."""

    def __str__(self) -> str:
        return f"{self.words}: {self.rule}" if self.rule else self.words

    @property
    def quota(self) -> bool:
        """Whether a quota is used up, so that it may be allowed later."""
        return "exceeded quota" in self.words

    @property
    def rule(self) -> str:
        """The rule that is needed, in words; empty when it is no matter of permissions."""
        found = _RBAC.search(self.words)
        if found is None:
            return ""
        where = f" in namespace {found['namespace']!r}" if found["namespace"] else ""
        group = found["group"] or "the core group"
        return (
            f"the manager needs permission to {found['verb']} {found['resource']} of {group}{where}: add that rule to "
            "its Role (deploy/ has all of them)"
        )


class NotFound(ApiError):
    """There is no such object, or no such kind of objects."""

    @property
    def kind_known(self) -> bool:
        """Whether the server serves that kind, so that it is the object that is missing: a server that just began, or
        another one in its place, may answer 404 to everything, which says nothing about the object."""
        return self.reason == "NotFound"


class AlreadyExists(ApiError):
    """An object of that name exists."""


class Conflict(ApiError):
    """The object has changed since it was read, or is another one."""


class Expired(ApiError):
    """The version or the list is too old: list anew."""


class Invalid(ApiError):
    """The object can never be accepted: it is wrong, or too large."""


class Throttled(Unavailable):
    """the Kubernetes API server asks to wait, and did nothing: {words}"""

    def __init__(self, *, words: str, retry_after: float = 0.0) -> None:
        super().__init__(words=words)
        self.retry_after = retry_after


class ServerTrouble(Unavailable):
    """the Kubernetes API server has trouble: {words}. It is tried again."""


class Unreachable(Unavailable):
    """the Kubernetes API server {server} can't be reached: {problem}. It is tried again; `kubectl get --raw /readyz`
    tells whether it runs."""


TRANSIENT = (Unreachable, Throttled, ServerTrouble)
"""What goes away by itself."""

_RBAC = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_KINDS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: Invalid,
    422: Invalid,
}


def error_of(status: int, found: Mapping[str, Any], *, retry_after: float = 0.0) -> ApiError | Unavailable:
    """The error that stands for an answer. `found`: the Status object of the answer."""
    words, reason = str(found.get("message") or f"HTTP status {status}"), str(found.get("reason") or "")
    if status >= 500 and status != 503:
        return ServerTrouble(words=words)
    if status in (429, 503):
        return Throttled(words=words, retry_after=retry_after or _asked_delay(found))
    kind = AlreadyExists if reason == "AlreadyExists" else _KINDS.get(status, ApiError)
    return kind(status=status, words=words, reason=reason)


def _asked_delay(found: Mapping[str, Any]) -> float:
    details = found.get("details") or {}
    seconds = details.get("retryAfterSeconds", 0)
    return float(seconds) if isinstance(seconds, int | float) else 0.0
