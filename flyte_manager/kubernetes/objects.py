"""What is kept in memory of a TaskAction: enough to know whose it is and whether its status tells the truth.

There may be tens of thousands, so that all but the order of somebody else that is not recorded yet is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from sys import intern
from typing import Any

from flyte_manager.domain.actions import Resource
from flyte_manager.domain.ids import ActionId, RunId
from flyte_manager.kubernetes import orders, status
from flyte_manager.kubernetes.bodies import RECORDED_BY
from flyte_manager.kubernetes.crd import KIND

_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Kept:
    """One TaskAction."""

    name: str
    uid: str
    version: str = field(compare=False)
    """its resourceVersion"""
    id: ActionId
    """as its spec says; the names in it may be illegal"""
    parent: str
    created_at: datetime
    owner: str = ""
    """uid of the TaskAction that owns it"""
    ours: bool = False
    """made by this manager"""
    leaving: bool = False
    """deleted, and still there for a finalizer or its dependents"""
    final: bool = False
    succeeded: bool = False
    ended_at: datetime | None = None
    row: str = ""
    """digest of the row that its status was made from; empty when that was never written, or changed by others"""
    order: Mapping[str, Any] | None = None
    """spec and metadata of one that somebody else made, until its status says that it was recorded"""

    @property
    def resource(self) -> Resource:
        return Resource(self.name, self.uid)


def kept(found: Mapping[str, Any]) -> Kept:
    """The object in short."""
    metadata, spec = found["metadata"], _mapping(found, "spec")
    told = _mapping(found, "status")
    ours = RECORDED_BY in _mapping(metadata, "annotations")
    final = status.is_final(told)
    recorded = ours or final or status.is_ours(told)
    return Kept(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata.get("resourceVersion", ""),
        id=_shared(orders.action_id(spec)),
        parent=intern(orders.parent_name(spec)),
        created_at=_moment(metadata.get("creationTimestamp")) or _BEGINNING,
        owner=_owner(metadata),
        ours=ours,
        leaving=bool(metadata.get("deletionTimestamp")),
        final=final,
        succeeded=final and status.is_success(told),
        ended_at=status.ended_at(told) if final else None,
        row=status.mirrored(told),
        order=None if recorded else {"spec": spec, "metadata": _about(metadata)},
    )


def _about(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: metadata[name] for name in ("labels", "annotations") if name in metadata}


def _shared(action: ActionId) -> ActionId:
    """With the texts that many have in common kept once."""
    run = action.run
    return ActionId(RunId(intern(run.project), intern(run.domain), intern(run.name)), intern(action.name))


def _owner(metadata: Mapping[str, Any]) -> str:
    for each in metadata.get("ownerReferences") or ():
        if each.get("kind") == KIND:
            return intern(each.get("uid", ""))
    return ""


def _mapping(found: Mapping[str, Any], field_name: str) -> Mapping[str, Any]:
    value = found.get(field_name)
    return value if isinstance(value, Mapping) else {}


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
