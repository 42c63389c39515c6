"""Signed URLs, as plain HTTP.

    PUT       /blobs/write?grant=…   streams the body into the store: 200, also when the same content comes again
    GET, HEAD /blobs/read?grant=…    streams the object out of it

What a task wrote is shown in a sandbox without this page's origin: its scripts run, but the gate refuses their requests
(Origin: null). Everything but pages is offered as a download. Errors are sentences in plain text.
"""

import base64
import binascii
import logging
import os
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, quote

from flyte_manager.blobs.directory import Directory, DiskFull
from flyte_manager.blobs.signed import PREFIX, Grant, Signer, Verb
from flyte_manager.domain.errors import Exists, Forbidden, Invalid, Missing, Refusal, TooLarge
from flyte_manager.rpc.asgi import Receive, Scope, Send, answer, header_values
from flyte_manager.rpc.routes import Route

log = logging.getLogger(__name__)

_STATUS: dict[type[BaseException], int] = {
    DiskFull: 507,
    Forbidden: 403,
    Missing: 404,
    Invalid: 400,
    Exists: 409,
    TooLarge: 413,
}

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".gz": "application/gzip",
    ".tgz": "application/gzip",
}
_SHOWN = (".html", ".txt", ".json")


class ObjectGone(Missing):
    """the object of this URL is gone from the manager's store: ask for a new URL, that tells why."""


class OtherMd5(Invalid):
    """the header Content-MD5 {found!r} is not the MD5 {expected!r} that this URL was made for: upload the file as it
    was when the URL was asked for."""


class BadLength(Invalid):
    """the header Content-Length {found!r} is not a number."""


class UploadTooLarge(TooLarge):
    """the body's {found} bytes are more than the {limit} that this URL was made for."""


class _DisconnectedError(Exception):
    """The client went away in the middle of its upload."""


class BlobRoutes:
    """Serves what the signer granted."""

    def __init__(self, signer: Signer, directory: Directory) -> None:
        self._signer = signer
        self._directory = directory

    def routes(self) -> list[Route]:
        return [
            Route(frozenset({"PUT"}), f"{PREFIX}write", self.write),
            Route(frozenset({"GET", "HEAD"}), f"{PREFIX}read", self.read),
        ]

    async def write(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            grant = self._grant(scope, "write")
            _check_headers(scope, grant)
            await self._directory.receive(grant.uri, _body(receive), limit=grant.limit, md5=grant.md5)
        except _DisconnectedError:
            return
        except Refusal as refusal:
            await _refuse(send, refusal)
        else:
            await answer(send, 200, b"")

    async def read(self, scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            grant = self._grant(scope, "read")
            found = await self._directory.opened(grant.uri)
            if found is None:
                raise ObjectGone
        except Refusal as refusal:
            await _refuse(send, refusal)
            return
        try:
            headers = _headers(grant.uri, found.size)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] == "GET":
                async for piece in found.pieces():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            found.close()

    def _grant(self, scope: Scope, verb: Verb) -> Grant:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return self._signer.check("".join(query.get("grant", [])[:1]), verb)


def _check_headers(scope: Scope, grant: Grant) -> None:
    """Refuses, before the body is read, what can't be right."""
    for value in header_values(scope, b"content-md5"):
        if grant.md5 and _decoded(value) != grant.md5:
            expected = base64.b64encode(grant.md5).decode()
            raise OtherMd5(found=value.decode("latin-1")[:60], expected=expected)
    for value in header_values(scope, b"content-length"):
        if not value.isdigit():
            raise BadLength(found=value.decode("latin-1")[:60])
        if grant.limit and int(value) > grant.limit:
            raise UploadTooLarge(found=int(value), limit=grant.limit)


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _headers(uri: str, size: int) -> list[tuple[bytes, bytes]]:
    name = os.path.basename(uri)
    suffix = os.path.splitext(name)[1].lower()
    shown = "inline" if suffix in _SHOWN else "attachment"
    headers = {
        "content-type": _KINDS.get(suffix, "application/octet-stream"),
        "content-length": str(size),
        "content-disposition": f"{shown}; filename*=UTF-8''{quote(name, safe='')}",
        "content-security-policy": "sandbox allow-scripts",
        "x-content-type-options": "nosniff",
        # The URL is a permission: no other site may learn it, no cache may keep what it gives.
        "referrer-policy": "no-referrer",
        "cache-control": "private, no-store",
    }
    return [(key.encode(), value.encode()) for key, value in headers.items()]


async def _refuse(send: Send, refusal: Refusal) -> None:
    status = next(_STATUS[kind] for kind in type(refusal).__mro__ if kind in _STATUS)
    if status >= 500:
        log.warning("%s", refusal)
    await answer(send, status, f"{refusal}\n".encode())
