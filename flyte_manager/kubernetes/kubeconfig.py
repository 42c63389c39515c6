"""Reads kubeconfig files and picks a context with its cluster and user, as kubectl does.

Of several files the first that has a name wins, and the first that has a current context. Paths in a file are relative
to that file's folder. Files of a list that don't exist are passed over.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flyte_manager.kubernetes.credentials import Content, FromFile, Inline, NoKubernetes

_SETTING = "manager.kubernetes.context"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says of one cluster, user or context."""

    what: str
    """for people, as `user "me" of /home/me/.kube/config`"""
    file: Path
    fields: Mapping[str, Any] = field(repr=False)

    def text(self, name: str) -> str:
        """Empty when it isn't there."""
        value = self.fields.get(name)
        if isinstance(value, Mapping | list):
            raise self.wrong(f"`{name}` must be a text")
        return "" if value is None else str(value)

    def flag(self, name: str) -> bool:
        value = self.fields.get(name) or False
        if not isinstance(value, bool):
            raise self.wrong(f"`{name}` must be true or false")
        return value

    def texts(self, name: str) -> Sequence[str]:
        value = self.fields.get(name) or []
        if not isinstance(value, list):
            raise self.wrong(f"`{name}` must be a list")
        return [str(each) for each in value]

    def part(self, name: str) -> "Entry | None":
        value = self.fields.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(f"`{name}` must be a mapping")
        return Entry(f"{name} of {self.what}", self.file, value)

    def content(self, name: str) -> Content | None:
        """What `name-data` holds, in base64; else the file that `name` names."""
        data = self.text(f"{name}-data")
        if data:
            try:
                return Inline(base64.b64decode("".join(data.split()), validate=True))
            except (binascii.Error, ValueError):
                raise self.wrong(f"`{name}-data` is not base64") from None
        path = self.text(name)
        return FromFile(self.path(path), f"the {name} of {self.what},") if path else None

    def path(self, text: str) -> Path:
        return self.file.parent / text

    def wrong(self, problem: str) -> NoKubernetes:
        return NoKubernetes(problem=f"{self.what}: {problem}: mend the file")


@dataclass(frozen=True, slots=True)
class Picked:
    """A context, and all that belongs to it."""

    name: str
    context: Entry
    cluster: Entry
    user: Entry | None


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Files, merged."""

    files: Sequence[Path]
    current: str
    contexts: Mapping[str, Entry]
    clusters: Mapping[str, Entry]
    users: Mapping[str, Entry]

    def pick(self, name: str = "") -> Picked:
        """That context, else the current one. Raises NoKubernetes."""
        known = ", ".join(sorted(self.contexts)) or "none"
        name = name or self.current
        if not name:
            problem = f"{self._where} has no current context: set {_SETTING} to one of its contexts ({known})"
            raise NoKubernetes(problem=problem)
        context = self.contexts.get(name)
        if context is None:
            raise NoKubernetes(problem=f"{self._where} has no context {name!r}: set {_SETTING} to one it has ({known})")
        cluster = self.clusters.get(context.text("cluster"))
        if cluster is None:
            raise context.wrong(f"its cluster {context.text('cluster')!r} is not defined")
        user = self.users.get(context.text("user"))
        if user is None and context.text("user"):
            raise context.wrong(f"its user {context.text('user')!r} is not defined")
        return Picked(name, context, cluster, user)

    @property
    def _where(self) -> str:
        return " and ".join(str(file) for file in self.files)


def read(files: Sequence[Path], *, optional: bool = False) -> Kubeconfig:
    """`optional`: those that don't exist are passed over, but not all. Raises NoKubernetes."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for file in files:
        try:
            found.append((file, _parse(file, file.read_bytes())))
        except FileNotFoundError:
            if not optional:
                raise NoKubernetes(problem=f"the kubeconfig {file} does not exist: mend the path") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            problem = f"the kubeconfig {file} can't be read ({why}): mend the path or its permissions"
            raise NoKubernetes(problem=problem) from None
    if not found:
        raise NoKubernetes(
            problem=f"{' and '.join(map(str, files))} does not exist: set manager.kubernetes.kubeconfig or KUBECONFIG"
        )
    current = next((text for file, each in found if (text := Entry(str(file), file, each).text("current-context"))), "")
    contexts, clusters, users = (_named(found, kind) for kind in ("context", "cluster", "user"))
    return Kubeconfig([file for file, _ in found], current, contexts, clusters, users)


def _parse(file: Path, content: bytes) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        # Not a word of the error itself: it quotes the file.
        raise NoKubernetes(problem=f"the kubeconfig {file} is no YAML{line}: mend it") from None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise NoKubernetes(problem=f"the kubeconfig {file} is no mapping: is it another file?")
    return found


def _named(found: Sequence[tuple[Path, Mapping[str, Any]]], kind: str) -> Mapping[str, Entry]:
    """All contexts, clusters or users, by name."""
    entries: dict[str, Entry] = {}
    for file, document in found:
        listed = document.get(f"{kind}s") or []
        if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
            raise NoKubernetes(problem=f"`{kind}s` of the kubeconfig {file} is no list of mappings: mend it")
        for each in listed:
            name, fields = str(each.get("name", "")), each.get(kind) or {}
            if not isinstance(fields, Mapping):
                raise NoKubernetes(problem=f"{kind} {name!r} of the kubeconfig {file} is no mapping: mend it")
            entries.setdefault(name, Entry(f"{kind} {name!r} of {file}", file, fields))
    return entries
