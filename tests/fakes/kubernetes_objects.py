"""The objects of a made-up cluster and the history of their changes: what tests/fakes/kubernetes_api.py serves.

One counter gives every change its resourceVersion. Nothing here knows of HTTP: refusals are raised as Refused.
"""

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Object = dict[str, Any]
Matcher = Callable[[Object], bool]
_T = TypeVar("_T")

KINDS = {
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "secrets": ("v1", "Secret"),
    "configmaps": ("v1", "ConfigMap"),
    "namespaces": ("v1", "Namespace"),
    "nodes": ("v1", "Node"),
    "podtemplates": ("v1", "PodTemplate"),
    "serviceaccounts": ("v1", "ServiceAccount"),
    "resourcequotas": ("v1", "ResourceQuota"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "taskactions": ("flyte.org/v1", "TaskAction"),
    "customresourcedefinitions": ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
}
DEFAULT_GRACE = 30
_OF_THE_SERVER = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp")


class Refused(Exception):  # noqa: N818
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details


def copied(document: _T) -> _T:
    result: _T = json.loads(json.dumps(document))
    return result


def stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def full_name(plural: str) -> str:
    """As error texts have it: `taskactions.flyte.org`, `pods`."""
    group = KINDS[plural][0].rpartition("/")[0]
    return f"{plural}.{group}" if group else plural


@dataclass(frozen=True)
class Change:
    version: int
    plural: str
    before: Object | None
    after: Object | None
    """None: it is gone"""
    last: Object
    """as the event shows it"""


class Objects:
    """All objects, by (plural, namespace, name)."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.version = 1000
        self.oldest = 0
        """changes before this version are forgotten"""
        self.graceful = True
        self.collects_orphans = False
        self.collect_after = 0.02
        self.history: list[Change] = []
        self.listeners: set[asyncio.Event] = set()
        self._all: dict[tuple[str, str, str], Object] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def find(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """Without a namespace: in any."""
        if namespace:
            return self._all.get((plural, namespace, name))
        return next((each for each in self.of(plural) if each["metadata"]["name"] == name), None)

    def require(self, plural: str, name: str, namespace: str = "") -> Object:
        found = self.find(plural, name, namespace)
        if found is None:
            text = f'{full_name(plural)} "{name}" not found'
            raise Refused(404, "NotFound", text, name=name, kind=plural)
        return found

    def of(self, plural: str, namespace: str = "") -> Iterator[Object]:
        for (kind, where, _), each in sorted(self._all.items()):
            if kind == plural and namespace in ("", where):
                yield each

    def expire(self) -> None:
        """Every version that was given out until now is too old."""
        self.version += 1
        self.oldest = self.version

    def create(self, plural: str, document: Mapping[str, Any], namespace: str = "") -> Object:
        created: Object = copied(dict(document))
        api_version, kind = KINDS[plural]
        metadata = created.setdefault("metadata", {})
        if namespace and metadata.setdefault("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the provided object does not match the request")
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise Refused(422, "Invalid", f'{kind} "" is invalid: metadata.name: Required value')
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        name = metadata["name"]
        if (plural, namespace, name) in self._all:
            text = f'{full_name(plural)} "{name}" already exists'
            raise Refused(409, "AlreadyExists", text, name=name, kind=plural)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": stamp(self.now()), "generation": 1}
        stored = self.store(plural, {"apiVersion": api_version, "kind": kind, **created})
        owners = metadata.get("ownerReferences") or ()
        if owners and self.collects_orphans:
            self._later(lambda: self._collect({owner["uid"] for owner in owners}))
        return stored

    def replace(self, plural: str, name: str, document: Mapping[str, Any], namespace: str, *, status: bool) -> Object:
        """PUT. `status`: of the status alone, else of everything but the status."""
        before = self.require(plural, name, namespace)
        self._check(plural, before, document.get("metadata") or {})
        return self._change(plural, before, copied(dict(document)), status=status)

    def patch(self, plural: str, name: str, patch: Mapping[str, Any], namespace: str, *, status: bool) -> Object:
        before = self.require(plural, name, namespace)
        self._check(plural, before, patch.get("metadata") or {})
        return self._change(plural, before, merged(copied(before), patch), status=status)

    def delete(self, plural: str, name: str, namespace: str = "", options: Mapping[str, Any] | None = None) -> Object:
        """The object as it was left; it is still there when it leaves slowly."""
        options = options or {}
        before = self.require(plural, name, namespace)
        wanted = options.get("preconditions") or {}
        self._check(plural, before, {key: wanted[key] for key in ("uid", "resourceVersion") if wanted.get(key)})
        grace = self._grace(plural, before, options.get("gracePeriodSeconds"))
        after = copied(before)
        if grace or before["metadata"].get("finalizers"):
            left = before["metadata"].get("deletionGracePeriodSeconds")
            if left is None or grace < left:
                leaves_at = stamp(self.now() + timedelta(seconds=grace))
                after["metadata"] |= {"deletionTimestamp": leaves_at, "deletionGracePeriodSeconds": grace}
                after = self.store(plural, after)
            return after
        policy = options.get("propagationPolicy", "")
        self.remove(plural, before, policy=policy)
        return before

    def remove(self, plural: str, before: Object, *, policy: str = "") -> None:
        """It is gone at this moment; its dependents follow."""
        metadata = before["metadata"]
        del self._all[plural, metadata.get("namespace", ""), metadata["name"]]
        self.version += 1
        last = copied(before)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._tell(Change(self.version, plural, before, None, last))
        owners = {metadata["uid"]}
        if policy == "Orphan":
            self._orphan(metadata["uid"])
        elif policy in ("Background", "Foreground"):
            self._collect(owners)
        else:
            self._later(lambda: self._collect(owners))

    def store(self, plural: str, document: Object) -> Object:
        """As it is, with a new version."""
        metadata = document["metadata"]
        key = plural, metadata.get("namespace", ""), metadata["name"]
        before = self._all.get(key)
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self._all[key] = document
        self._tell(Change(self.version, plural, before, document, document))
        return document

    def _change(self, plural: str, before: Object, wanted: Object, *, status: bool) -> Object:
        after: Object = copied(before)
        if status:
            _take(after, wanted, "status")
        else:
            after = {**wanted, "apiVersion": before["apiVersion"], "kind": before["kind"]}
            _take(after, before, "status")
            metadata = after.setdefault("metadata", {})
            for key in _OF_THE_SERVER:
                _take(metadata, before["metadata"], key)
            if any(before.get(key) != after.get(key) for key in {*before, *after} - {"metadata", "status"}):
                metadata["generation"] = before["metadata"].get("generation", 1) + 1
        after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        if after == before:
            return before
        stored = self.store(plural, after)
        leaves = stored["metadata"].get("deletionTimestamp") and not stored["metadata"].get("finalizers")
        if leaves and before["metadata"].get("finalizers"):
            self.remove(plural, stored)
        return stored

    def _check(self, plural: str, before: Object, wanted: Mapping[str, Any]) -> None:
        name, metadata = before["metadata"]["name"], before["metadata"]
        prefix = f'Operation cannot be fulfilled on {full_name(plural)} "{name}": '
        if wanted.get("uid", metadata["uid"]) != metadata["uid"]:
            text = (
                f"the UID in the precondition ({wanted['uid']}) does not match the UID in record ({metadata['uid']}). "
            )
            text += "The object might have been deleted and then recreated"
            raise Refused(409, "Conflict", prefix + text, name=name, kind=plural)
        if (wanted.get("resourceVersion") or metadata["resourceVersion"]) != metadata["resourceVersion"]:
            text = "the object has been modified; please apply your changes to the latest version and try again"
            raise Refused(409, "Conflict", prefix + text, name=name, kind=plural)

    def _grace(self, plural: str, before: Object, asked: int | None) -> int:
        ended = (before.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if plural != "pods" or not self.graceful or ended:
            return 0
        given = (before.get("spec") or {}).get("terminationGracePeriodSeconds", DEFAULT_GRACE)
        return int(given if asked is None else asked)

    def _collect(self, owners: set[str]) -> None:
        present = {each["metadata"]["uid"] for each in self._all.values()}
        for (plural, namespace, name), each in sorted(self._all.items()):
            named = {owner["uid"] for owner in each["metadata"].get("ownerReferences") or ()}
            leaving = each["metadata"].get("deletionTimestamp")
            if named & owners and not named & present and not leaving:
                self.delete(plural, name, namespace, {"propagationPolicy": "Background"})

    def _orphan(self, owner: str) -> None:
        for (plural, _, _), each in sorted(self._all.items()):
            references = each["metadata"].get("ownerReferences") or []
            left = [reference for reference in references if reference["uid"] != owner]
            if left != references:
                after = copied(each)
                after["metadata"]["ownerReferences"] = left
                self.store(plural, after)

    def _later(self, act: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(self.collect_after, run)
        self._timers.add(timer)

    def _tell(self, change: Change) -> None:
        self.history.append(change)
        for listener in self.listeners:
            listener.set()


def _take(into: Object, source: Mapping[str, Any], key: str) -> None:
    into.pop(key, None)
    if key in source:
        into[key] = source[key]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


_TERM = re.compile(
    r"(?P<key>[^\s=!,()]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>.*)|\s(?P<set>in|notin)\s*\((?P<values>.*)\))?"
)


def label_matcher(selector: str) -> Matcher:
    tests = [_label_test(term.strip()) for term in re.split(r",(?![^(]*\))", selector) if term.strip()]
    return lambda each: all(test(each["metadata"].get("labels") or {}) for test in tests)


def _label_test(term: str) -> Callable[[Mapping[str, str]], bool]:
    if term.startswith("!"):
        return lambda labels: term[1:].strip() not in labels
    found = _TERM.fullmatch(term)
    if found is None:
        raise Refused(400, "BadRequest", f"unable to parse requirement: {term}")
    key = found["key"]
    if found["set"]:
        values = {value.strip() for value in found["values"].split(",")}
        return lambda labels: (labels.get(key) in values) == (found["set"] == "in")
    if found["op"]:
        return lambda labels: (labels.get(key) == found["value"].strip()) == (found["op"] != "!=")
    return lambda labels: key in labels


def field_matcher(selector: str) -> Matcher:
    tests = [_field_test(term.strip()) for term in selector.split(",") if term.strip()]
    return lambda each: all(test(each) for test in tests)


def _field_test(term: str) -> Matcher:
    found = _TERM.fullmatch(term)
    if found is None or not found["op"]:
        raise Refused(400, "BadRequest", f"invalid field selector: {term}")
    path, wanted, equal = found["key"].split("."), found["value"].strip(), found["op"] != "!="

    def test(each: Object) -> bool:
        value: Any = each
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        return (str(value or "") == wanted) == equal

    return test
