"""Signed grants: whoever holds one may read or write one object for a while, and needs nothing else.

    grant = base64url(JSON: action, uri, expiry, md5, limit) "." base64url(HMAC-SHA256 of the first part)

The uri stands inside, not in the URL's path, so that nothing on the way can normalise it, and the grant stands in the
query, which the SDK leaves out of its error messages. The signature is checked before anything else is looked at.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from flyte_manager.domain.errors import Forbidden, Invalid
from flyte_manager.domain.ports import Clock, SignedUrl

PREFIX = "/blobs/"
"""Below it lie `read` and `write`, each with its grant in the query."""

LIFETIME_DEFAULT = timedelta(seconds=900)
LIFETIME_MAX = timedelta(hours=1)
LONGEST = 16 << 10
"""Characters of a grant."""

Verb = Literal["read", "write"]


class BadLifetime(Invalid):
    """expires_in of {seconds:g} s is not possible: ask for 1 to 3600 s (FLYTE_UPLOAD_EXPIRES_IN sets it in the SDK)."""


class NoGrant(Forbidden):
    """this URL is not signed: ask the manager for one (CreateUploadLocation, CreateDownloadLink)."""


class Malformed(Forbidden):
    """this URL's grant is malformed, so it was cut or altered: use the URL as the manager gave it, or ask for a new
    one."""


class Forged(Forbidden):
    """this URL's signature is wrong, so it was altered, or signed by another manager: ask this one for a new URL."""


class Expired(Forbidden):
    """Request has expired: this URL was good until {until}; ask the manager for a new one."""


class OtherVerb(Forbidden):
    """this URL allows to {granted} the object, not to {asked} it."""


def lifetime_of(asked: timedelta | None) -> timedelta:
    """How long a signed URL is good (None = the default). Raises BadLifetime."""
    lifetime = LIFETIME_DEFAULT if asked is None else asked
    if not timedelta(seconds=1) <= lifetime <= LIFETIME_MAX:
        raise BadLifetime(seconds=lifetime.total_seconds())
    return lifetime


def content_md5(md5: bytes) -> dict[str, str]:
    """The header by which a client repeats the MD5 that it announced."""
    return {"Content-MD5": base64.b64encode(md5).decode()} if md5 else {}


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission to read or to write one object."""

    verb: Verb
    uri: str
    expires_at: datetime
    md5: bytes = b""
    """of the only content that may be written; empty = any"""
    limit: int = 0
    """bytes that may be written at most; 0 = no limit"""


class Signer:
    """Makes and checks grants. `key`: 32 secret bytes, used for nothing else."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def expiry(self, lifetime: timedelta | None) -> datetime:
        """When a grant of that lifetime ends (None = the default). Raises BadLifetime."""
        return (self._clock() + lifetime_of(lifetime)).replace(microsecond=0)

    def url(self, grant: Grant) -> str:
        """Path and query of the URL that carries the grant."""
        fields = {
            "verb": grant.verb,
            "uri": grant.uri,
            "expires": int(grant.expires_at.timestamp()),
            "md5": grant.md5.hex(),
            "limit": grant.limit,
        }
        body = _encode(json.dumps(fields, separators=(",", ":")).encode())
        return f"{PREFIX}{grant.verb}?grant={body}.{_encode(self._signature(body))}"

    def check(self, text: str, verb: Verb) -> Grant:
        """The grant in the text. Raises NoGrant, Malformed, Forged, Expired or OtherVerb."""
        if not text:
            raise NoGrant
        body, dot, signature = text.partition(".")
        if not dot or len(text) > LONGEST or not text.isascii():
            raise Malformed
        if not hmac.compare_digest(_encode(self._signature(body)), signature):
            raise Forged
        # From here on the text is our own.
        fields = json.loads(_decode(body))
        grant = Grant(
            verb=fields["verb"],
            uri=fields["uri"],
            expires_at=datetime.fromtimestamp(fields["expires"], UTC),
            md5=bytes.fromhex(fields["md5"]),
            limit=fields["limit"],
        )
        if self._clock() >= grant.expires_at:
            raise Expired(until=f"{grant.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        if grant.verb != verb:
            raise OtherVerb(granted=grant.verb, asked=verb)
        return grant

    def _signature(self, body: str) -> bytes:
        return hmac.digest(self._key, body.encode(), hashlib.sha256)


class SignedLinks:
    """Implements ports.Links for the directory: grants that this manager serves by itself (rpc/blobs.py).

    Their host is the one that the client used, which the gate has checked; `secure`: whether it is called by https.
    """

    def __init__(self, signer: Signer, *, secure: Callable[[str], bool] = lambda _host: False) -> None:
        self._signer = signer
        self._secure = secure

    async def upload(self, uri: str, *, md5: bytes, limit: int, lifetime: timedelta | None, host: str) -> SignedUrl:
        expires_at = self._signer.expiry(lifetime)
        grant = Grant(verb="write", uri=uri, expires_at=expires_at, md5=md5, limit=limit)
        return SignedUrl(self._url(grant, host), content_md5(md5), expires_at)

    async def download(self, uri: str, *, lifetime: timedelta | None, host: str) -> SignedUrl:
        expires_at = self._signer.expiry(lifetime)
        return SignedUrl(self._url(Grant("read", uri, expires_at), host), {}, expires_at)

    def _url(self, grant: Grant, host: str) -> str:
        scheme = "https" if self._secure(host) else "http"
        return f"{scheme}://{host}{self._signer.url(grant)}"


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
