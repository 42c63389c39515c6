"""The store as a bucket, or a prefix in one: S3 and compatible stores, GCS, Azure. A uri is what the SDK opens.

Every object is written by one PUT, which stores make whole or not at all. Nothing here blocks: obstore does its work in
threads of its own. Failed requests are tried again for some seconds; then a refusal says what is wrong, and the caller
may try later.

Clients get presigned URLs, which the store serves by itself: MD5 and size of an upload aren't part of the signature.
A store checks Content-MD5 where the client sends it, as the SDK does; the size is not limited, and whoever has the URL
may write that one object again until it expires. It expires sooner when it was signed with credentials that do.
"""

import contextlib
import html
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from flyte_manager.blobs.paths import BadPath, ObjectTooLarge, OutsideStore, checked_path
from flyte_manager.blobs.providers import Options, provider
from flyte_manager.blobs.signed import content_md5, lifetime_of
from flyte_manager.domain.errors import Invalid, Unavailable
from flyte_manager.domain.ports import Clock, SignedUrl, Stored

LONGEST_KEY = 1024
"""Bytes of an object's name, prefix included: the least that all stores take."""

PROBE = ".flyte-manager-probe-"

Verb = Literal["read", "write", "delete", "sign", "list"]

_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "InvalidToken", "ExpiredToken"}
_METADATA = ("/latest/api/token", "/latest/meta-data/", "/computeMetadata/", "/metadata/identity/", "169.254.170.2")
"""Where obstore asks for credentials when it found no others: AWS, Google, Azure, ECS."""

_SIGNS = {
    "kind: Timeout": "it doesn't answer in time",
    "InvalidCertificate": "its TLS certificate isn't trusted here",
    "InvalidContentType": "it speaks http, not https",
}
"""What shows in obstore's debug text, and what it means."""


class StorageUnavailable(Unavailable):
    """the object store {root} can't {verb} objects now: {reason}. It is tried again; check that it runs, and that the
    storage settings name the right endpoint and region."""


class BucketMissing(StorageUnavailable):
    """the bucket or container of {root} doesn't exist: make it, or name another one in the storage settings."""


class AccessDenied(StorageUnavailable):
    """the object store {root} doesn't let {identity} {verb} objects ({reason}): give it {permission}, or use another
    key in the storage settings."""


class KeyRefused(AccessDenied):
    """the object store {root} doesn't accept {identity} ({reason}): correct key and secret in the storage settings."""


class NoCredentials(AccessDenied):
    """no credentials for the object store {root} were found ({reason}): name a key in the storage settings, or give the
    manager's pod an identity of the cloud."""


class Unfaithful(StorageUnavailable):
    """the object store {root} gave back other bytes than were written to it."""


class Unsignable(Invalid):
    """{key!r} can't be uploaded or downloaded by a signed URL of Azure: rename the file so that only letters A to Z,
    digits and - . _ ~ are in its name."""


class ObjectStore:
    """Implements ports.Blobs and ports.Links below `url` (see providers.py). Raises BadStorage."""

    def __init__(self, url: str, options: Options, clock: Clock) -> None:
        self._provider = provider(url, options)
        self._clock = clock

    @property
    def root(self) -> str:
        return self._provider.root

    def join(self, *parts: str) -> str:
        """The uri of the object at this path; a part may hold several segments. Raises BadPath."""
        path = checked_path(*parts)
        if len(self._provider.prefix) + len(path.encode(errors="replace")) > LONGEST_KEY:
            raise BadPath(path=path[:60], problem=f"it is longer than {LONGEST_KEY} bytes, prefix included")
        if "?" in path or "#" in path:
            raise BadPath(path=path[:200], problem="the SDK can't open objects with ? or # in their names")
        return f"{self.root}/{path}"

    def checked(self, uri: str) -> str:
        """The uri, when it is one of this store's. Raises OutsideStore, BadPath."""
        inside = uri.removeprefix(f"{self.root}/")
        if inside == uri:
            raise OutsideStore(uri=uri[:200], root=self.root)
        return self.join(inside)

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        key = self._key(uri)
        with self._explained("read"):
            try:
                found = await obstore.get_async(self._provider.store, key)
            except FileNotFoundError as error:
                self._only_object_missing(error)
                return None
            # The size came with the head of the answer; its body isn't read any further then.
            if limit and found.meta["size"] > limit:
                raise ObjectTooLarge(uri=uri, limit=limit)
            return bytes(await found.bytes_async())

    async def write(self, uri: str, content: bytes) -> None:
        key = self._key(uri)
        with self._explained("write"):
            await obstore.put_async(self._provider.store, key, content, use_multipart=False)

    async def exists(self, uri: str) -> bool:
        key = self._key(uri)
        with self._explained("read"):
            try:
                # Not HEAD: its answers don't say why.
                await obstore.get_async(self._provider.store, key, options={"range": (0, 1)})
            except FileNotFoundError as error:
                self._only_object_missing(error)
                return False
            except BaseError as error:
                # The first byte of an empty object can't be had.
                if _code(str(error)) != "InvalidRange":
                    raise
            return True

    async def delete(self, uri: str) -> None:
        key = self._key(uri)
        with self._explained("delete"):
            try:
                await obstore.delete_async(self._provider.store, key)
            except FileNotFoundError as error:
                self._only_object_missing(error)

    async def stored(self, folder: str) -> AsyncIterator[Sequence[Stored]]:
        async for page in self._listed(folder):
            yield [Stored(self._uri(each["path"]), each["size"], each["last_modified"]) for each in page]

    async def remove(self, folder: str) -> None:
        """By the keys as they are: tasks give objects names that no uri of ours may have."""
        async for page in self._listed(folder):
            with self._explained("delete"):
                await obstore.delete_async(self._provider.store, [each["path"] for each in page])

    async def beginning(self, uri: str, *, limit: int) -> bytes | None:
        try:
            return await self.read(uri, limit=limit)
        except Invalid:
            return None
        except ObjectTooLarge:
            with self._explained("read"):
                return bytes(await obstore.get_range_async(self._provider.store, self._key(uri), start=0, end=limit))

    async def _listed(self, folder: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        with self._explained("list"):
            async for page in obstore.list(self._provider.store, prefix=f"{self._key(folder)}/"):
                yield page

    async def upload(
        self,
        uri: str,
        *,
        md5: bytes,
        limit: int,  # noqa: ARG002 - no part of a presigned URL
        lifetime: timedelta | None,
        host: str,  # noqa: ARG002 - the store's own host serves it
    ) -> SignedUrl:
        """Raises BadLifetime, OutsideStore, BadPath, Unsignable, AccessDenied, StorageUnavailable."""
        return await self._signed("PUT", uri, lifetime, {**self._provider.upload_headers, **content_md5(md5)})

    async def download(
        self,
        uri: str,
        *,
        lifetime: timedelta | None,
        host: str,  # noqa: ARG002 - as above
    ) -> SignedUrl:
        """Raises as upload does."""
        return await self._signed("GET", uri, lifetime, {})

    async def probe(self) -> None:
        """Writes, reads and deletes a small object. Raises StorageUnavailable, which says what is wrong."""
        uri, content = self.join(f"{PROBE}{secrets.token_hex(8)}"), secrets.token_bytes(16)
        await self.write(uri, content)
        found = await self.read(uri)
        await self.delete(uri)
        if found != content:
            raise Unfaithful(root=self.root)

    async def _signed(
        self, method: Literal["GET", "PUT"], uri: str, lifetime: timedelta | None, headers: dict[str, str]
    ) -> SignedUrl:
        good_for, key = lifetime_of(lifetime), self._key(uri)
        if self._provider.plain_names and not re.fullmatch(r"[A-Za-z0-9._~/-]+", key):
            raise Unsignable(key=key[:200])
        # Before it is signed: never later than the store says.
        expires_at = (self._clock() + good_for).replace(microsecond=0)
        with self._explained("sign"):
            url = await obstore.sign_async(self._provider.signing, method, key, good_for)
        return SignedUrl(url, headers, expires_at)

    def _key(self, uri: str) -> str:
        return self._provider.prefix + self.checked(uri).removeprefix(f"{self.root}/")

    def _uri(self, key: str) -> str:
        return f"{self.root}/{key.removeprefix(self._provider.prefix)}"

    def _only_object_missing(self, error: FileNotFoundError) -> None:
        if _code(str(error)) in _NO_BUCKET:
            raise BucketMissing(root=self.root) from None

    @contextlib.contextmanager
    def _explained(self, verb: Verb) -> Iterator[None]:
        """Tells obstore's errors in our words. Theirs are dropped: they may quote a URL with its signature."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._denied(verb, str(error)) from None
        except FileNotFoundError as error:
            if _code(str(error)) in _NO_BUCKET or verb == "write":
                raise BucketMissing(root=self.root) from None
            raise StorageUnavailable(root=self.root, verb=verb, reason=_reason(str(error))) from None
        except BaseError as error:
            if any(place in str(error) for place in _METADATA):
                raise NoCredentials(
                    root=self.root, identity=self._provider.identity, reason=_reason(str(error))
                ) from None
            raise StorageUnavailable(root=self.root, verb=verb, reason=_reason(str(error))) from None

    def _denied(self, verb: Verb, text: str) -> AccessDenied:
        kind = KeyRefused if _code(text) in _WRONG_KEY else AccessDenied
        return kind(
            root=self.root,
            verb=verb,
            identity=self._provider.identity,
            permission=self._provider.permissions[verb],
            reason=_reason(text),
        )


def _code(text: str) -> str:
    """The store's own word for what is wrong."""
    found = re.search(r"<Code>(\w{1,80})</Code>", text)
    return found.group(1) if found else ""


def _reason(text: str) -> str:
    """What the store, or the way to it, says: in one line, without URLs."""
    code = _code(text)
    if code:
        message = re.search(r"<Message>([^<]{1,400})", text)
        return f"{code}: {html.unescape(message.group(1)).strip().rstrip('.')}" if message else code
    for sign, meaning in _SIGNS.items():
        if sign in text:
            return meaning
    innermost = re.findall(r'(?:message|error): "([^"]{1,200})"', text)
    if innermost:
        return str(innermost[-1])
    first = text.partition("\n")[0]
    return re.sub(r"\w+://\S+", "…", first.rpartition(" - ")[2] or first).strip().rstrip(".:")[:300]
