"""Who we are for the API server: what goes into the Authorization header, and the client certificate.

Files are read again when they change, because tokens and certificates rotate. A file that can't be read any more, or
is in the middle of being replaced, leaves what was read before.
"""

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flyte_manager.domain.errors import Unready

log = logging.getLogger(__name__)

REREAD_SECONDS = 60.0


class NoKubernetes(Unready):
    """failed to get Kubernetes config: {problem}"""


class Content(Protocol):
    """Bytes that may change while we run."""

    def read(self, *, refresh: bool = False) -> bytes:
        """Raises NoKubernetes when there never were any. `refresh`: not from memory."""


@dataclass(frozen=True, slots=True)
class Inline:
    """Content of the kubeconfig itself."""

    content: bytes = field(repr=False)

    def read(self, *, refresh: bool = False) -> bytes:  # noqa: ARG002
        return self.content


class FromFile:
    """Content of a file, read when it has changed, and each minute. `what` it is, for people."""

    def __init__(self, path: Path, what: str, *, elapsed: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._what = what
        self._elapsed = elapsed
        self._seen: tuple[int, int, int] | None = None
        self._read_at = float("-inf")
        self._content: bytes | None = None

    def read(self, *, refresh: bool = False) -> bytes:
        try:
            status = self.path.stat()
            seen = status.st_ino, status.st_mtime_ns, status.st_size
            old = self._elapsed() - self._read_at >= REREAD_SECONDS
            if self._content is None or seen != self._seen or old or refresh:
                content = self.path.read_bytes()
                if not content.strip():
                    raise NoKubernetes(problem=f"{self._what} {self.path} is empty: write it anew")
                self._content, self._seen, self._read_at = content, seen, self._elapsed()
        except (OSError, NoKubernetes) as error:
            if self._content is None:
                raise self._unread(error) from None
            if self._seen is not None:
                log.warning("%s, what it held before is used on", self._unread(error))
            self._seen = None
        return self._content

    def _unread(self, error: OSError | NoKubernetes) -> NoKubernetes:
        if isinstance(error, NoKubernetes):
            return error
        why = error.strerror or type(error).__name__
        return NoKubernetes(problem=f"{self._what} {self.path} can't be read ({why}): mend the path or its permissions")


@dataclass(frozen=True, slots=True)
class Pair:
    """A client certificate and its key, PEM."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where a client certificate and its key come from."""

    certificate: Content
    key: Content

    def pair(self) -> Pair:
        return Pair(self.certificate.read(), self.key.read())


class Credentials(Protocol):
    async def header(self, *, refresh: bool = False) -> str | None:
        """For Authorization; None: without. `refresh`: the last one was refused. Raises NoKubernetes."""

    def pair(self) -> Pair | None:
        """The client certificate, as of the last `header`. Raises NoKubernetes."""


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """Nobody, or who the client certificate says."""

    certificate: Certificate | None = None

    async def header(self, *, refresh: bool = False) -> str | None:  # noqa: ARG002
        return None

    def pair(self) -> Pair | None:
        return self.certificate.pair() if self.certificate else None


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. `what` it is, for people."""

    token: Content = field(repr=False)
    what: str
    certificate: Certificate | None = None

    async def header(self, *, refresh: bool = False) -> str | None:
        return bearer(self.token.read(refresh=refresh), self.what)

    def pair(self) -> Pair | None:
        return self.certificate.pair() if self.certificate else None


@dataclass(frozen=True, slots=True)
class Password:
    """A user's name and password."""

    user: str
    password: str = field(repr=False)
    certificate: Certificate | None = None

    async def header(self, *, refresh: bool = False) -> str | None:  # noqa: ARG002
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    def pair(self) -> Pair | None:
        return self.certificate.pair() if self.certificate else None


def bearer(token: bytes, what: str) -> str:
    """Raises NoKubernetes for what can't stand in a header."""
    token = token.strip()
    if not token or any(not 33 <= byte <= 126 for byte in token):
        raise NoKubernetes(problem=f"{what} is no token (it is empty, or has blanks or strange letters): write it anew")
    return f"Bearer {token.decode('ascii')}"
