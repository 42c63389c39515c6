"""The Kubernetes API over HTTP: one session, a limit of requests a second, answers as plain dictionaries.

Every unary call has a deadline, which begins when its turn has come and its credentials are there. What may go well at
another try (429, 503 and the like, a connection that breaks) is tried again a few times, where repeating does no harm:
not `create`, whose caller knows what AlreadyExists means. What is left is raised: an ApiError in the server's own
words, or Unreachable. Watches and logs have connections of their own, however many: they keep no unary call waiting.
"""

import asyncio
import io
import json
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from flyte_manager import __version__
from flyte_manager.domain.errors import Unavailable
from flyte_manager.kubernetes import access as cluster_access
from flyte_manager.kubernetes.access import Access, NoKubernetes
from flyte_manager.kubernetes.answers import decoded, lines, mapping, retry_after, status
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
from flyte_manager.kubernetes.connections import Sockets, proxy_of, told
from flyte_manager.kubernetes.resources import PODS, Resource

log = logging.getLogger(__name__)

Object = Mapping[str, Any]

PAGE = 500
"""Objects in one answer to a list."""

UNARY_SECONDS = 30.0
CONNECT_SECONDS = 10.0
UNARY_AT_ONCE = 64
IN_ONE_PIECE = 1 << 20
"""Bytes; larger bodies are sent in pieces, so that the loop goes on meanwhile."""

TRIES = 4
LONGEST_WAIT_SECONDS = 10.0

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
    """`qps` and `burst`: requests a second on the average (0: no limit), and at once; `seconds`: for a unary call. Use
    it as an async context manager."""

    def __init__(self, access: Access, *, qps: float = 100.0, burst: int = 200, seconds: float = UNARY_SECONDS) -> None:
        self.access = access
        self.requests: Counter[tuple[str, str]] = Counter()
        """(verb, plural) -> how many were sent"""
        self._limit = _Limit(qps, burst)
        self._slots = asyncio.Semaphore(UNARY_AT_ONCE)
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None
        self._proxy, self._proxy_headers = proxy_of(access.proxy)
        self._sockets = Sockets()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, socket_factory=self._sockets.make)
        headers = {"User-Agent": f"flyte-manager/{__version__}"}
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=1 << 18)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            await self._sockets.end()

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
        """All objects, by pages; from the start when the list got too old meanwhile."""
        for turn in range(1, TRIES + 1):
            found: list[dict[str, Any]] = []
            pages = self.pages(
                resource, namespace=namespace, selector=selector, fields=fields, metadata_only=metadata_only
            )
            try:
                async for page, _ in pages:
                    found += page
                return found
            except Expired:
                if turn == TRIES:
                    raise
        raise AssertionError("unreachable")

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
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events after that version, bookmarks among them, until the server ends it, after `seconds` at the latest.
        Raises Expired when the version is too old, Unreachable when it is not over long after that. `opened` is called
        when the server has begun to answer."""
        query = _query(
            watch="1",
            resourceVersion=version,
            allowWatchBookmarks="true",
            timeoutSeconds=str(seconds),
            labelSelector=selector,
            fieldSelector=fields,
        )
        path = resource.path(namespace)
        async with self._send("watch", resource, path, query=query, seconds=seconds + self._seconds) as response:
            opened()
            async with aclosing(lines(self._pieces(response))) as answered:
                async for line in answered:
                    event = decoded(line)
                    if event.get("type") == "ERROR":
                        found = mapping(event.get("object"))
                        raise error_of(int(found.get("code") or 500), found)
                    yield event

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
        while True:
            with self._reaching():
                piece = await response.content.readany()
            if not piece:
                return
            yield piece

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Around what waits for the server."""
        try:
            yield
        except (aiohttp.ClientError, OSError, NoKubernetes) as error:
            raise Unreachable(server=self.access.server, problem=told(error)) from error

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
                    self._slots,
                    self._send(
                        verb,
                        resource,
                        path,
                        method=method,
                        query=query,
                        body=body,
                        content=content,
                        accept=accept,
                        seconds=self._seconds,
                    ) as response,
                ):
                    with self._reaching():
                        answer = await response.read()
                    return decoded(answer)
            except Throttled as error:
                trouble: Unavailable = error
                wait = error.retry_after
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
        seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head, when it is a good one. `seconds`: for all of it."""
        await self._limit.take()
        self.requests[verb, resource.plural] += 1
        method = method or {"create": "POST", "patch": "PATCH"}.get(verb, "GET")
        headers = {"Accept": f"{accept}, application/json" if accept else "application/json"}
        data = b""
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), content
        if verb == "log":
            headers["Accept"] = "*/*"
        response = await self._with_credentials(method, path, query=query, headers=headers, data=data, seconds=seconds)
        try:
            if response.status >= 300:
                with self._reaching():
                    answer = await response.read()
                raise error_of(response.status, status(answer), retry_after=retry_after(response))
            yield response
        finally:
            # one that was not read to its end: TLS would else wait for the server's farewell, after our own end too
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

    async def _with_credentials(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        headers: dict[str, str],
        data: bytes,
        seconds: float | None,
    ) -> aiohttp.ClientResponse:
        """Sends it, and once more with fresh credentials when they were refused."""
        if self._session is None:
            raise RuntimeError("the client is not open")
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        if not self.access.server.startswith("https:"):
            headers |= self._proxy_headers  # no tunnel: the proxy reads the request itself
        for fresh in (False, True):
            with self._reaching():
                authorization = await self.access.credentials.header(refresh=fresh)
                # made of certificates that rotate, or that came with the header
                context = cluster_access.tls(self.access) or True
            if authorization:
                headers["Authorization"] = authorization
            with self._reaching():
                async with asyncio.timeout(self._seconds):
                    response = await self._session.request(
                        method,
                        f"{self.access.server}{path}",
                        params=query or None,
                        data=io.BytesIO(data) if len(data) > IN_ONE_PIECE else data or None,
                        headers=headers,
                        ssl=context,
                        proxy=self._proxy,
                        proxy_headers=self._proxy_headers,
                        server_hostname=self.access.tls_server_name or None,
                        allow_redirects=False,
                        timeout=timeout,
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
            try:
                await asyncio.sleep(-self._tokens / self._qps)
            except asyncio.CancelledError:
                self._tokens += 1
                raise


def _query(**given: str) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


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
