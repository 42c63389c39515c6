"""Moves objects of any bucket to files and back, in pieces: they may be larger than the memory.

A piece that fails is tried again for half a minute by obstore, alone; then the refusal says what the store said. Uris
with http:// and https:// can be read. Everything here blocks: it is for programs that do nothing else.
"""

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError

from flyte_manager.blobs.providers import AZURE_HOST, Options, Provider, provider
from flyte_manager.domain.errors import Missing, Unavailable

PIECE = 16 << 20
_MOST_PIECES = 9_000
_AT_ONCE = 4
_HTTP_SECONDS = 60.0


class ObjectMissing(Missing):
    """{uri} was not found."""


class TransferFailed(Unavailable):
    """{uri} can't be {done}: {reason}."""


def options_of(environ: Mapping[str, str]) -> Options:
    """The options that the SDK would find in these variables; obstore finds those of GCS by itself."""
    return Options(
        endpoint=environ.get("FLYTE_AWS_ENDPOINT", ""),
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "",
        access_key_id=environ.get("FLYTE_AWS_ACCESS_KEY_ID", ""),
        secret_access_key=environ.get("FLYTE_AWS_SECRET_ACCESS_KEY", ""),
        account=environ.get("AZURE_STORAGE_ACCOUNT_NAME", ""),
        account_key=environ.get("AZURE_STORAGE_ACCOUNT_KEY", ""),
    )


class Files:
    """One for all buckets that the options open."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._providers: dict[str, Provider] = {}

    def read(self, uri: str) -> bytes:
        """A small object's content. Raises ObjectMissing, TransferFailed."""
        found, key = self._place(uri)
        with _explained(uri, "read"):
            return bytes(obstore.get(found.store, key).bytes())

    def write(self, uri: str, content: bytes) -> None:
        """The whole object or nothing. Raises TransferFailed."""
        found, key = self._place(uri)
        with _explained(uri, "written"):
            obstore.put(found.store, key, content, use_multipart=False)

    def download(self, uri: str, path: Path) -> None:
        """Raises ObjectMissing, TransferFailed."""
        if urlsplit(uri).scheme in ("http", "https"):
            _fetch(uri, path)
            return
        found, key = self._place(uri)
        with _explained(uri, "read"):
            size = obstore.head(found.store, key)["size"]
            with path.open("wb") as file:
                for start in range(0, size, PIECE):
                    length = min(PIECE, size - start)
                    piece = obstore.get_range(found.store, key, start=start, length=length)
                    file.write(piece)

    def names(self, uri: str) -> list[str]:
        """Of the objects below the uri, relative to it. Raises TransferFailed."""
        found, key = self._place(uri.rstrip("/"))
        names: list[str] = []
        with _explained(uri, "listed"):
            for batch in obstore.list(found.store, prefix=f"{key}/"):
                names += [each["path"].removeprefix(f"{key}/") for each in batch]
        return sorted(names)

    def upload_all(self, given: Iterable[tuple[Path, str]]) -> None:
        """Several at once. Raises TransferFailed."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for _ in threads.map(lambda each: self.upload(*each), given):
                pass

    def upload(self, path: Path, uri: str) -> None:
        """Raises TransferFailed."""
        found, key = self._place(uri)
        piece = max(PIECE, path.stat().st_size // _MOST_PIECES + 1)
        with _explained(uri, "written"):
            obstore.put(found.store, key, path, chunk_size=piece, max_concurrency=_AT_ONCE)

    def _place(self, uri: str) -> tuple[Provider, str]:
        """Raises BadStorage."""
        parts = urlsplit(uri)
        bucket = f"{parts.scheme}://{parts.netloc}"
        # A uri may hold ? and # as parts of a name.
        key = uri.removeprefix(f"{bucket}/")
        if bucket not in self._providers:
            self._providers[bucket] = provider(bucket, _for_bucket(self._options, parts.netloc))
        return self._providers[bucket], key


def _for_bucket(options: Options, netloc: str) -> Options:
    """Without the account where the uri names one."""
    if not netloc.endswith(AZURE_HOST):
        return options
    return Options(endpoint=options.endpoint, account_key=options.account_key)


def _fetch(uri: str, path: Path) -> None:
    with _explained(uri, "read"):
        try:
            with urllib.request.urlopen(uri, timeout=_HTTP_SECONDS) as answer, path.open("wb") as file:
                while piece := answer.read(PIECE):
                    file.write(piece)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise ObjectMissing(uri=uri) from None
            raise TransferFailed(uri=uri, done="read", reason=f"HTTP {error.code} {error.reason}") from None
        except OSError as error:
            raise TransferFailed(uri=uri, done="read", reason=str(error)) from None


@contextlib.contextmanager
def _explained(uri: str, done: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        if done != "read":
            raise TransferFailed(uri=uri, done=done, reason="its bucket does not exist") from None
        raise ObjectMissing(uri=uri) from None
    except BaseError as error:
        raise TransferFailed(uri=uri, done=done, reason=_reason(str(error))) from None


def _reason(text: str) -> str:
    """What the store, or the way to it, says: in one line, without URLs."""
    message = re.search(r"<Code>(\w{1,80})</Code>(?:\s*<Message>([^<]{1,400}))?", text)
    if message:
        return f"{message[1]}: {message[2].strip().rstrip('.')}" if message[2] else message[1]
    return re.sub(r"\w+://\S+", "…", text.partition("\n")[0]).strip().rstrip(".:")[:300]
