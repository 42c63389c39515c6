"""How the made-up API server of tests/fakes/kubernetes_api.py answers over HTTP."""

import asyncio
import base64
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import web

from tests.fakes.kubernetes_objects import (
    KINDS,
    Change,
    Matcher,
    Object,
    Objects,
    Refused,
    copied,
    field_matcher,
    full_name,
    label_matcher,
)

LogPiece = bytes | tuple[datetime, bytes] | None
"""whole lines; None at the end of a list: nothing more comes"""

REVIEWS = "selfsubjectaccessreviews"
USER = "system:serviceaccount:flyte:flyte-manager"
VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.4", "platform": "linux/amd64"}

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)/"
    r"(?:namespaces/(?P<namespace>[^/]+)/(?!status$|finalize$))?"
    r"(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MERGES = ("application/merge-patch+json", "application/strategic-merge-patch+json")


class Request(NamedTuple):
    verb: str
    """get, list, watch, create, update, patch, delete"""
    plural: str
    """with its subresource: `taskactions/status`, `pods/log`"""
    name: str
    query: Mapping[str, str]


class _Place(NamedTuple):
    plural: str
    namespace: str
    name: str
    sub: str
    group: str


@dataclass
class Failure:
    """An answer that a test ordered. Without one: the request is done, its answer is lost."""

    verb: str
    plural: str
    name: str
    refused: Refused | None
    times: int | None
    headers: Mapping[str, str] = field(default_factory=dict)

    def fits(self, request: Request) -> bool:
        wanted = (self.verb, self.plural, self.name)
        return self.times != 0 and all(want in ("*", have) for want, have in zip(wanted, request[:3], strict=True))


class Answers:
    """State that tests change, and the answers that follow from it."""

    def __init__(self, objects: Objects) -> None:
        self.requests: list[Request] = []
        self.authorizations: list[str] = []
        """the Authorization header of each request"""
        self.token = ""
        """when set: who doesn't bring it as a bearer token gets 401"""
        self.logs: dict[str, bytes | list[LogPiece]] = {}
        """by pod, or by pod/container; what is appended to a list reaches those that follow"""
        self.watching: Counter[str] = Counter()
        """watches that are open, by plural"""
        self.missing: set[str] = set()
        """resources whose definition is not installed"""
        self.denied: set[str] = set()
        """`verb plural[/subresource]`: 403, and `allowed: false` in access reviews"""
        self._objects = objects
        self._pages: dict[str, tuple[int, list[Object]]] = {}
        self._failures: list[Failure] = []
        self._delay = 0.0
        self._watch_length: int | None = None
        self._bookmarks = 0
        self._streams: set[asyncio.Transport] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        place, asked = _read(request)
        self.requests.append(asked)
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self._delay:
            await asyncio.sleep(self._delay)
        failure = next((each for each in self._failures if each.fits(asked)), None)
        if failure is not None and failure.times is not None:
            failure.times -= 1
        if failure is not None and failure.refused is not None:
            return _status(failure.refused, failure.headers)
        try:
            answer = await self._answer(request, place, asked)
        except Refused as refused:
            answer = _status(refused)
        except ConnectionResetError:
            answer = web.Response()
        if failure is not None and request.transport is not None:
            request.transport.abort()
            await asyncio.Event().wait()  # until we are cancelled, because the connection is gone
        return answer

    async def _answer(self, request: web.BaseRequest, place: _Place | None, asked: Request) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        if request.path == "/version":
            return web.json_response(VERSION)
        if request.path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        if place is None or place.plural in self.missing or place.plural not in (*KINDS, REVIEWS):
            return web.Response(status=404, text="404 page not found\n")
        if f"{asked.verb} {asked.plural}" in self.denied:
            raise _forbidden(asked, place)
        if place.plural == REVIEWS:
            return self._review(await request.json())
        if place.sub == "log":
            return await self._log(request, place)
        if asked.verb == "watch":
            return await self._watch(request, place)
        if asked.verb == "list":
            return self._list(request, place)
        found, code = await self._change(request, place, asked.verb)
        shown = _metadata_only(found) if _wants_metadata(request) and found["kind"] != "Status" else found
        return web.json_response(shown, status=code)

    async def _change(self, request: web.BaseRequest, place: _Place, verb: str) -> tuple[Object, int]:
        plural, namespace, name, status = place.plural, place.namespace, place.name, place.sub == "status"
        if verb == "get":
            return self._objects.require(plural, name, namespace), 200
        text = await request.text()
        document = json.loads(text) if text else {}
        if verb == "delete":
            # As a real server: with a body, what the query says is not looked at.
            return self._delete(place, document if text else _delete_options(request.query)), 200
        if verb == "create":
            if plural == "pods":
                document["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
            elif plural == "taskactions":
                document.pop("status", None)
            return self._objects.create(plural, document, namespace), 201
        if verb == "patch":
            if request.content_type not in _MERGES:
                raise Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
            return self._objects.patch(plural, name, document, namespace, status=status), 200
        return self._objects.replace(plural, name, document, namespace, status=status), 200

    def _delete(self, place: _Place, options: Mapping[str, Any]) -> Object:
        left = self._objects.delete(place.plural, place.name, place.namespace, options)
        if place.plural == "pods" or "deletionTimestamp" in left["metadata"]:
            return left
        details = {"name": place.name, "kind": place.plural, "uid": left["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _review(self, review: Object) -> web.Response:
        asked = review["spec"]["resourceAttributes"]
        sub = f"/{asked['subresource']}" if asked.get("subresource") else ""
        allowed = f"{asked['verb']} {asked['resource']}{sub}" not in self.denied
        return web.json_response({**review, "status": {"allowed": allowed}}, status=201)

    def _list(self, request: web.BaseRequest, place: _Place) -> web.Response:
        token = request.query.get("continue", "")
        if token:
            if token not in self._pages:
                text = "The provided continue parameter is too old to display a consistent list result."
                raise Refused(410, "Expired", text)
            version, found = self._pages[token]
        else:
            matches = _matcher(request.query)
            version = self._objects.version
            found = [each for each in self._objects.of(place.plural, place.namespace) if matches(each)]
        limit = int(request.query.get("limit") or 0) or len(found)
        metadata: Object = {"resourceVersion": str(version)}
        if found[limit:]:
            metadata["continue"] = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()
            metadata["remainingItemCount"] = len(found) - limit
            self._pages[metadata["continue"]] = version, found[limit:]
        api_version, kind = KINDS[place.plural]
        listed: Object = {"apiVersion": api_version, "kind": f"{kind}List", "metadata": metadata}
        if _wants_metadata(request):
            listed |= {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList"}
            listed["items"] = [_metadata_only(each) for each in found[:limit]]
        elif place.plural in ("taskactions",):
            listed["items"] = found[:limit]
        else:  # lists of built-in kinds don't repeat these
            hidden = ("apiVersion", "kind")
            listed["items"] = [{key: each[key] for key in each if key not in hidden} for each in found[:limit]]
        return web.json_response(listed)

    async def _watch(self, request: web.BaseRequest, place: _Place) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        changed, transport = asyncio.Event(), request.transport
        assert isinstance(transport, asyncio.Transport)
        self._streams.add(transport)
        self._objects.listeners.add(changed)
        self.watching[place.plural] += 1
        try:
            await response.prepare(request)
            await self._send_events(request, place, response, changed)
            await response.write_eof()
        finally:
            self.watching[place.plural] -= 1
            self._objects.listeners.discard(changed)
            self._streams.discard(transport)
        return response

    async def _send_events(
        self, request: web.BaseRequest, place: _Place, response: web.StreamResponse, changed: asyncio.Event
    ) -> None:
        """Until the watch has to end."""
        query, matches = request.query, _matcher(request.query)
        ends_at = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        bookmarks = self._bookmarks if query.get("allowWatchBookmarks") in ("1", "true") else None
        since, sent = int(query.get("resourceVersion") or 0), 0
        if 0 < since < self._objects.oldest:
            text = f"too old resource version: {since} ({self._objects.oldest})"
            await response.write(_line("ERROR", _status_object(Refused(410, "Expired", text))))
            return
        if not since:
            since = self._objects.version
            present = [each for each in self._objects.of(place.plural, place.namespace) if matches(each)]
            waiting: list[tuple[str, Object]] = [("ADDED", each) for each in present]
        else:
            waiting = []
        at = _after(self._objects.history, since)
        while True:
            changed.clear()
            history = self._objects.history
            for change in history[at:]:
                waiting += _event(change, place, matches)
            at = len(history)
            for kind, document in waiting:
                await response.write(_line(kind, _metadata_only(document) if _wants_metadata(request) else document))
                sent += 1
                if self._watch_length is not None and sent >= self._watch_length:
                    return
            waiting = []
            left = ends_at - time.monotonic()
            if bookmarks is not None and (bookmarks < self._bookmarks or left <= 0):
                bookmarks = self._bookmarks
                await response.write(_line("BOOKMARK", self._bookmark(place)))
            if left <= 0:
                return
            if at == len(self._objects.history):
                try:
                    await asyncio.wait_for(changed.wait(), left)
                except TimeoutError:
                    continue

    def _bookmark(self, place: _Place) -> Object:
        api_version, kind = KINDS[place.plural]
        metadata = {"resourceVersion": str(self._objects.version), "creationTimestamp": None}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata}

    async def _log(self, request: web.BaseRequest, place: _Place) -> web.StreamResponse:
        pod = self._objects.require("pods", place.name, place.namespace)
        pieces = self._log_of(pod, request.query.get("container", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._streams.add(transport)
        try:
            await response.prepare(request)
            await self._send_log(request, place, response, pieces)
            await response.write_eof()
        finally:
            self._streams.discard(transport)
        return response

    def _log_of(self, pod: Object, container: str) -> bytes | list[LogPiece]:
        name = pod["metadata"]["name"]
        spec = pod.get("spec") or {}
        known = [each["name"] for part in ("initContainers", "containers") for each in spec.get(part) or ()]
        main = [each["name"] for each in spec.get("containers") or ()]
        if not container and len(main) > 1:
            text = f"a container name must be specified for pod {name}, choose one of: {main}"
            raise Refused(400, "BadRequest", text)
        container = container or next(iter(main), "")
        if known and container not in known:
            raise Refused(400, "BadRequest", f"container {container} is not valid for pod {name}")
        for key in (f"{name}/{container}", name):
            if key in self.logs:
                return self.logs[key]
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        for each in statuses:
            waiting = (each.get("state") or {}).get("waiting")
            if each.get("name") == container and waiting is not None:
                text = f'container "{container}" in pod "{name}" is waiting to start: {waiting.get("reason", "")}'
                raise Refused(400, "BadRequest", text)
        return b""

    async def _send_log(
        self, request: web.BaseRequest, place: _Place, response: web.StreamResponse, pieces: bytes | list[LogPiece]
    ) -> None:
        query = request.query
        pod = self._objects.require("pods", place.name, place.namespace)
        born = _time(pod["metadata"]["creationTimestamp"])
        since = _time(query["sinceTime"]) if query.get("sinceTime") else None
        left = int(query.get("limitBytes") or 0) or None
        given: list[LogPiece] = [pieces, None] if isinstance(pieces, bytes) else pieces
        at = 0
        while True:
            while at < len(given):
                piece = given[at]
                at += 1
                if piece is None:
                    return
                when, text = piece if isinstance(piece, tuple) else (born, piece)
                if since is not None and when < since:
                    continue
                written = _timed(text, when) if query.get("timestamps") == "true" else text
                await response.write(written[:left])
                if left is not None:
                    left -= len(written)
                    if left <= 0:
                        return
            current = self._objects.find("pods", place.name, place.namespace)
            ended = current is None or (current.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if ended or query.get("follow") != "true":
                return
            await asyncio.sleep(0.005)


def _read(request: web.BaseRequest) -> tuple[_Place | None, Request]:
    found = _PATH.fullmatch(request.path)
    query = dict(request.query)
    if found is None:
        return None, Request("get", request.path, "", query)
    parts = {key: value or "" for key, value in found.groupdict().items()}
    place = _Place(parts["plural"], parts["namespace"], parts["name"], parts["sub"], parts["group"])
    verb = _VERBS.get(request.method, "get" if place.name else "list")
    if verb == "list" and query.get("watch") in ("1", "true"):
        verb = "watch"
    return place, Request(verb, f"{place.plural}/{place.sub}" if place.sub else place.plural, place.name, query)


def _delete_options(query: Mapping[str, str]) -> Object:
    options: Object = {key: query[key] for key in ("propagationPolicy",) if key in query}
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    return options


def _matcher(query: Mapping[str, str]) -> Matcher:
    labels = label_matcher(query.get("labelSelector", ""))
    fields = field_matcher(query.get("fieldSelector", ""))
    return lambda each: labels(each) and fields(each)


def _after(history: list[Change], version: int) -> int:
    """Where the changes after that version begin."""
    at = len(history)
    while at and history[at - 1].version > version:
        at -= 1
    return at


def _event(change: Change, place: _Place, matches: Matcher) -> Iterator[tuple[str, Object]]:
    """What a watch shows of a change: an object that matches no longer is deleted for it."""
    if change.plural != place.plural:
        return
    if place.namespace and change.last["metadata"].get("namespace", "") != place.namespace:
        return
    was = change.before is not None and matches(change.before)
    now = change.after is not None and matches(change.after)
    if now:
        yield ("MODIFIED" if was else "ADDED"), change.last
    elif was:
        yield "DELETED", change.last


def _line(kind: str, document: Object) -> bytes:
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"


def _wants_metadata(request: web.BaseRequest) -> bool:
    return "as=PartialObjectMetadata" in request.headers.get("Accept", "").replace(" ", "")


def _metadata_only(document: Object) -> Object:
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": copied(document["metadata"])}


def _forbidden(asked: Request, place: _Place) -> Refused:
    group = KINDS.get(place.plural, ("authorization.k8s.io/v1", ""))[0].rpartition("/")[0]
    named = f' "{asked.name}"' if asked.name else ""
    where = f' in the namespace "{place.namespace}"' if place.namespace else " at the cluster scope"
    what = full_name(place.plural) if place.plural in KINDS else place.plural
    return Refused(
        403,
        "Forbidden",
        f'{what}{named} is forbidden: User "{USER}" cannot {asked.verb} resource "{asked.plural}" in API group '
        f'"{group}"{where}',
    )


def _status_object(refused: Refused) -> Object:
    answer: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    answer |= {"message": refused.message, "reason": refused.reason, "code": refused.code}
    return {**answer, "details": refused.details} if refused.details else answer


def _status(refused: Refused, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(_status_object(refused), status=refused.code, headers=headers)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _timed(text: bytes, at: datetime) -> bytes:
    prefix = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode()
    return b"".join(prefix + line for line in text.splitlines(keepends=True))
