"""The Kubernetes API over HTTP: one session, a limit of requests a second, answers as plain dictionaries.

Every unary call has a deadline. What may go well at another try (429, 503 and the like, a connection that breaks) is
tried again a few times, where repeating does no harm: not `create`, whose caller knows what AlreadyExists means. What
is left is raised: an ApiError in the server's own words, or Unreachable.
"""

import asyncio
import json
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from flyte_manager.domain.errors import Unavailable
from flyte_manager.kubernetes import access as cluster_access
from flyte_manager.kubernetes.access import Access
from flyte_manager.kubernetes.api_errors import (
    TRANSIENT,
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    ServerTrouble,
    Throttled,
    Unreachable,
    error_of,
)
from flyte_manager.kubernetes.resources import PODS, Resource

log = logging.getLogger(__name__)

Object = Mapping[str, Any]

PAGE = 500
"""Objects in one answer to a list."""

UNARY_SECONDS = 30.0
CONNECT_SECONDS = 10.0
TRIES = 4
LONGEST_WAIT_SECONDS = 10.0
LONGEST_LINE = 16 << 20
"""Bytes of one event of a watch: etcd takes objects of 1.5 MiB, which JSON may make longer."""

_PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Patch = Literal["merge", "strategic", "json", "apply"]


class Client:
    """`qps` and `burst`: requests a second on the average, and at once. Use it as an async context manager."""

    def __init__(self, access: Access, *, qps: float = 100.0, burst: int = 200) -> None:
        self.access = access
        self.requests: Counter[tuple[str, str]] = Counter()
        """(verb, plural) -> how many were sent"""
        self._limit = _Limit(qps, burst)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | Literal[True] = True

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=100, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 18)
        self._tls = cluster_access.tls(self.access) or True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self, resource: Resource, name: str, *, namespace: str = "", subresource: str = "", metadata_only: bool = False
    ) -> dict[str, Any]:
        accept = METADATA_ONLY if metadata_only else ""
        return await self._ask(
            "get", resource, resource.path(namespace, name, subresource), accept=accept, repeatable=True
        )

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> list[dict[str, Any]]:
        """All objects, by pages."""
        found: list[dict[str, Any]] = []
        async for page, _ in self.pages(
            resource, namespace=namespace, selector=selector, fields=fields, metadata_only=metadata_only
        ):
            found += page
        return found

    async def pages(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[tuple[Sequence[dict[str, Any]], str]]:
        """Pages of objects, each with the version of the list. Raises Expired when the list got too old while it was
        read: the caller begins anew."""
        more = ""
        while True:
            query = _query(limit=str(PAGE), labelSelector=selector, fieldSelector=fields)
            if more:
                query["continue"] = more
            answer = await self._ask(
                "list",
                resource,
                resource.path(namespace),
                query=query,
                accept=METADATA_LIST if metadata_only else "",
                repeatable=True,
            )
            metadata = answer.get("metadata") or {}
            yield answer.get("items") or [], str(metadata.get("resourceVersion", ""))
            more = metadata.get("continue", "")
            if not more:
                return

    async def create(
        self, resource: Resource, document: Object, *, namespace: str = "", metadata_only: bool = False
    ) -> dict[str, Any]:
        """The namespace is the document's own unless another is given."""
        namespace = namespace or str((document.get("metadata") or {}).get("namespace", ""))
        return await self._ask(
            "create",
            resource,
            resource.path(namespace),
            body=document,
            accept=METADATA_ONLY if metadata_only else "",
        )

    async def update(self, resource: Resource, document: Object, *, metadata_only: bool = False) -> dict[str, Any]:
        """Replaces the object. Raises Conflict when its resourceVersion is no longer the present one."""
        metadata = document["metadata"]
        return await self._ask(
            "update",
            resource,
            resource.path(str(metadata.get("namespace", "")), metadata["name"]),
            method="PUT",
            body=document,
            accept=METADATA_ONLY if metadata_only else "",
        )

    async def patch(
        self,
        resource: Resource,
        name: str,
        document: Object,
        *,
        namespace: str = "",
        subresource: str = "",
        kind: Patch = "merge",
        metadata_only: bool = False,
    ) -> dict[str, Any]:
        query = {"fieldManager": "flyte-manager", "force": "true"} if kind == "apply" else {}
        return await self._ask(
            "patch",
            resource,
            resource.path(namespace, name, subresource),
            query=query,
            body=document,
            content=_PATCHES[kind],
            accept=METADATA_ONLY if metadata_only else "",
            repeatable=kind != "json",
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan", ""] = "",
    ) -> None:
        """Only the object with that uid and version, where they are given (else Conflict)."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid or resource_version:
            options["preconditions"] = _query(uid=uid, resourceVersion=resource_version)
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation:
            options["propagationPolicy"] = propagation
        await self._ask(
            "delete", resource, resource.path(namespace, name), method="DELETE", body=options, repeatable=True
        )

    async def watch(
        self,
        resource: Resource,
        *,
        version: str,
        seconds: int,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        """Events after that version, bookmarks among them, until the server ends it, after `seconds` at the latest.
        Raises Expired when the version is too old, Unreachable when nothing was heard for longer than that."""
        query = _query(
            watch="1",
            resourceVersion=version,
            allowWatchBookmarks="true",
            timeoutSeconds=str(seconds),
            labelSelector=selector,
            fieldSelector=fields,
        )
        path = resource.path(namespace)
        try:
            async with (
                asyncio.timeout(seconds + UNARY_SECONDS),
                self._send("watch", resource, path, query=query) as got,
            ):
                async for line in _lines(got.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise error_of(int(event["object"].get("code", 500)), event["object"])
                    yield event
        except TimeoutError:
            raise Unreachable(server=self.access.server, problem="a watch fell silent") from None

    @asynccontextmanager
    async def open_log(
        self,
        pod: str,
        container: str,
        *,
        namespace: str,
        follow: bool = False,
        timestamps: bool = False,
        since: datetime | None = None,
        limit_bytes: int = 0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The log of a container, in pieces as they come. `since`: whole seconds count."""
        query = _query(
            container=container,
            follow="true" if follow else "",
            timestamps="true" if timestamps else "",
            sinceTime=f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if since else "",
            limitBytes=str(limit_bytes) if limit_bytes else "",
        )
        async with self._send("log", PODS, PODS.path(namespace, pod, "log"), query=query) as response:
            yield self._pieces(response)

    async def version(self) -> str:
        """Of the server, as v1.34.4."""
        resource = Resource("", "", "version", "Info", namespaced=False)
        answer = await self._ask("get", resource, "/version", repeatable=True)
        return str(answer.get("gitVersion", ""))

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(server=self.access.server, problem=_told(error)) from error

    async def _ask(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        method: str = "",
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
        accept: str = "",
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """One unary call."""
        for turn in range(1, TRIES + 1):
            try:
                async with (
                    asyncio.timeout(UNARY_SECONDS),
                    self._send(
                        verb, resource, path, method=method, query=query, body=body, content=content, accept=accept
                    ) as response,
                ):
                    answer: dict[str, Any] = json.loads(await response.read())
                    return answer
            except TimeoutError:
                trouble: Unavailable = Unreachable(server=self.access.server, problem="no answer in time")
                wait = 0.0
            except Throttled as error:
                trouble, wait = error, error.retry_after
            except (ServerTrouble, Unreachable) as error:
                trouble, wait = error, 0.0
            # a throttled request was not carried out, so that it may be repeated whatever it is
            if turn == TRIES or not (repeatable or isinstance(trouble, Throttled)):
                raise trouble
            await asyncio.sleep(min(max(wait, 0.2 * 2**turn * (0.5 + random.random())), LONGEST_WAIT_SECONDS))
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _send(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        method: str = "",
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
        accept: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head, when it is a good one."""
        if self._session is None:
            raise RuntimeError("the client is not open")
        await self._limit.take()
        self.requests[verb, resource.plural] += 1
        method = method or {"create": "POST", "patch": "PATCH"}.get(verb, "GET")
        headers = {"Accept": f"{accept}, application/json" if accept else "application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), content
        if verb == "log":
            headers["Accept"] = "*/*"
        try:
            response = await self._with_credentials(method, path, query=query, headers=headers, data=data)
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(server=self.access.server, problem=_told(error)) from error
        try:
            if response.status >= 300:
                raise error_of(response.status, _status(await response.read()), retry_after=_retry_after(response))
            yield response
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise Unreachable(server=self.access.server, problem=_told(error)) from error
        finally:
            response.close()

    async def _with_credentials(
        self, method: str, path: str, *, query: Mapping[str, str] | None, headers: dict[str, str], data: bytes | None
    ) -> aiohttp.ClientResponse:
        """Sends it, and once more with fresh credentials when they were refused."""
        assert self._session is not None
        for fresh in (False, True):
            authorization = await self.access.credentials.header(refresh=fresh)
            if fresh:
                self._tls = cluster_access.tls(self.access) or True
            if authorization:
                headers["Authorization"] = authorization
            response = await self._session.request(
                method,
                f"{self.access.server}{path}",
                params=query or None,
                data=data,
                headers=headers,
                ssl=self._tls,
                proxy=self.access.proxy or None,
                server_hostname=self.access.tls_server_name or None,
                allow_redirects=False,
            )
            if response.status != 401 or fresh:
                return response
            response.close()
        raise AssertionError("unreachable")


class _Limit:
    """A token bucket, as client-go has it."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps = qps
        self._burst = max(float(burst), 1.0)
        self._tokens = self._burst
        self._at = time.monotonic()

    async def take(self) -> None:
        if not self._qps:
            return
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps)
        self._at = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._qps)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to LONGEST_LINE; aiohttp's own reading ends at its buffer's size."""
    parts: list[bytes] = []
    size = 0
    async for piece in stream.iter_any():
        *ended, rest = piece.split(b"\n")
        for line in ended:
            parts.append(line)
            if whole := b"".join(parts):
                yield whole
            parts, size = [], 0
        if rest:
            parts.append(rest)
            size += len(rest)
            if size > LONGEST_LINE:
                raise ApiError(status=500, words="an event of a watch is longer than any object can be")


def _query(**given: str) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


def _status(content: bytes) -> Object:
    """The Status object that the server answered, or one made of what else it said."""
    try:
        found = json.loads(content)
    except ValueError:
        return {"message": content[:500].decode(errors="replace")}
    return found if isinstance(found, dict) else {"message": str(found)[:500]}


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


__all__ = [
    "TRANSIENT",
    "AlreadyExists",
    "ApiError",
    "Client",
    "Conflict",
    "Expired",
    "Forbidden",
    "Invalid",
    "NotFound",
    "Object",
    "Patch",
    "ServerTrouble",
    "Throttled",
    "Unreachable",
]
