"""Lays pod templates over each other. What lies above counts; what it does not say, it takes from below.

Maps are merged key by key. Lists of things with names (containers, variables, volumes …) are merged by name, as the
strategic merge of Kubernetes does: containers field by field; of the others the upper one replaces the lower, because
the parts of two volumes or two variables make none together. Tolerations and the like are put together. All other lists
are replaced.

Nothing here knows what a pod means; who wrote a template that is no template gets Misshapen.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


class Misshapen(ValueError):  # noqa: N818 - it says what a template is
    """A template holds something else than Kubernetes has there."""


@dataclass(frozen=True, slots=True)
class _Entries:
    """How a list is merged: by the values of `key`; without a key all that differ are put together."""

    key: tuple[str, ...] = ()
    shape: "_Shape | None" = None
    """of entries that are merged with each other"""
    repeats: bool = False
    """one list may hold the same key twice; the last one counts"""


@dataclass(frozen=True, slots=True)
class _Shape:
    lists: Mapping[str, _Entries] = field(default_factory=dict)
    maps: "Mapping[str, _Shape]" = field(default_factory=dict)
    """that are read here"""
    whole: frozenset[str] = frozenset()
    """maps that make sense only as they are"""


_NAMED = _Entries(("name",))
_CONTAINER = _Shape(
    lists={
        "env": _Entries(("name",), repeats=True),
        "envFrom": _Entries(),
        "ports": _Entries(("containerPort", "protocol")),
        "volumeMounts": _Entries(("mountPath",)),
        "volumeDevices": _Entries(("devicePath",)),
    },
    maps={"resources": _Shape(maps={"requests": _Shape(), "limits": _Shape()})},
    whole=frozenset({"livenessProbe", "readinessProbe", "startupProbe", "lifecycle"}),
)
_SPEC = _Shape(
    lists={
        "containers": _Entries(("name",), _CONTAINER),
        "initContainers": _Entries(("name",), _CONTAINER),
        "volumes": _NAMED,
        "imagePullSecrets": _NAMED,
        "resourceClaims": _NAMED,
        "schedulingGates": _NAMED,
        "hostAliases": _Entries(("ip",)),
        "topologySpreadConstraints": _Entries(("topologyKey", "whenUnsatisfiable")),
        "tolerations": _Entries(),
    }
)


def merge_specs(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """A PodSpec. Raises Misshapen."""
    return _merge(base, over, _SPEC, "spec")


def merge_containers(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """Raises Misshapen."""
    return _merge(base, over, _CONTAINER, "container")


def merge_maps(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """Something of which no list is merged. Raises Misshapen."""
    return _merge(base, over, _Shape(), "metadata")


def plain(value: Any) -> Any:
    """The same with sorted keys, and whole numbers as such: a protobuf Struct knows only floats."""
    match value:
        case Mapping():
            return {str(key): plain(each) for key, each in sorted(value.items(), key=lambda item: str(item[0]))}
        case list() | tuple():
            return [plain(each) for each in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _merge(base: Any, over: Any, shape: _Shape, path: str) -> Json:
    for each in (base, over):
        if not isinstance(each, Mapping):
            raise Misshapen(f"{path} must be an object, not {_kind(each)}")
    merged: Json = {}
    for name in (*base, *(name for name in over if name not in base)):
        below, above = base.get(name), over.get(name)
        where = f"{path}.{name}"
        if name in shape.lists:
            merged[name] = _merge_lists(below, above, shape.lists[name], where) or None
        elif name in shape.maps:
            merged[name] = _merge(below or {}, above or {}, shape.maps[name], where) or None
        elif above is None:
            merged[name] = deepcopy(below)
        elif isinstance(below, Mapping) and isinstance(above, Mapping) and name not in shape.whole:
            merged[name] = _merge(below, above, _Shape(), where)
        elif isinstance(below, Mapping) and not isinstance(above, Mapping):
            raise Misshapen(f"{where} must be an object, not {_kind(above)}")
        else:
            merged[name] = deepcopy(above)
    return {name: value for name, value in merged.items() if value is not None}


def _merge_lists(base: Any, over: Any, entries: _Entries, path: str) -> list[Any]:
    merged: dict[object, Any] = {}
    for given in (base, over):
        met: set[object] = set()
        for key, entry in _keyed(given, entries, path):
            if key in met and entries.key and not entries.repeats:
                raise Misshapen(f"{path} holds {entries.key[0]} {entry[entries.key[0]]!r} twice")
            met.add(key)
            below = merged.get(key, {}) if entries.shape else {}
            merged[key] = _merge(below, entry, entries.shape or _Shape(), path)
    return list(merged.values())


def _keyed(given: Any, entries: _Entries, path: str) -> Iterator[tuple[object, Mapping[str, Any]]]:
    if given is None:
        return
    if not isinstance(given, (list, tuple)):
        raise Misshapen(f"{path} must be a list, not {_kind(given)}")
    for place, entry in enumerate(given):
        if not isinstance(entry, Mapping):
            raise Misshapen(f"{path}[{place}] must be an object, not {_kind(entry)}")
        if entries.key and not isinstance(entry.get(entries.key[0]), (str, int, float)):
            raise Misshapen(f"{path}[{place}] has no {entries.key[0]}")
        yield tuple(entry.get(name) for name in entries.key) or repr(plain(entry)), entry


def _kind(value: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else "null")
