"""Writes a task's inputs as files, one for each: a text for what is simple, the bytes of a File, the folder of a Dir.

A list is a folder with the files 0, 1, 2 …; a dict one with a file for each key. In the layout NAMED_DIR a File, or a
list of them, is a folder with files under their own names. `inputs.pb` and `inputs.json` or `inputs.yaml` tell all
values once more, with the files' paths for uris. Everybody in the pod may read and change all of it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from google.protobuf.json_format import MessageToDict

from flyte_manager.blobs.files import Files, ObjectMissing
from flyte_manager.copilot.reports import DataProblem
from flyte_manager.copilot.texts import text_of

_SINGLE = types_pb2.BlobType.SINGLE


class Download:
    """Of one task's inputs. `named`: the layout NAMED_DIR."""

    def __init__(self, files: Files, *, named: bool) -> None:
        self._files = files
        self._named = named

    def write(self, inputs: common_pb2.Inputs, folder: Path, *, form: str) -> None:
        """`form`: JSON, YAML or PROTO. Raises DataProblem, TransferFailed."""
        folder.mkdir(parents=True, exist_ok=True)
        told = common_pb2.Inputs(context=inputs.context)
        values = {}
        for literal in inputs.literals:
            local = literals_pb2.Literal()
            local.CopyFrom(literal.value)
            path = folder / _file_name(literal.name, literal.name)
            values[literal.name] = self._literal(local, path, literal.name, top=True)
            told.literals.add(name=literal.name, value=local)
        (folder / "inputs.pb").write_bytes(told.SerializeToString(deterministic=True))
        if form == "JSON":
            (folder / "inputs.json").write_text(json.dumps(values), encoding="utf-8")
        elif form == "YAML":
            (folder / "inputs.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def _literal(self, literal: literals_pb2.Literal, path: Path, name: str, *, top: bool = False) -> Any:
        """Writes it, makes its uris paths, and gives the value as JSON has it."""
        match literal.WhichOneof("value"):
            case "scalar":
                if self._named and top and _is_file(literal):
                    path.mkdir(exist_ok=True)
                    path /= _base_name(literal, "0")
                return self._scalar(literal.scalar, path, name)
            case "collection":
                items = literal.collection.literals
                return self._folder(path, dict(zip(self._item_names(items, top), items, strict=True)), name, list)
            case "map":
                items_of = {_file_name(key, name): literal.map.literals[key] for key in sorted(literal.map.literals)}
                return self._folder(path, items_of, name, dict)
        raise DataProblem(
            "InputUnsupported", f"input {name!r} is of a kind that can't be given to a container as a file"
        )

    def _folder(
        self, path: Path, items: Mapping[str, literals_pb2.Literal], name: str, kind: type[list[Any] | dict[str, Any]]
    ) -> Any:
        path.mkdir(exist_ok=True)
        values = {key: self._literal(each, path / key, f"{name}.{key}") for key, each in items.items()}
        return list(values.values()) if kind is list else values

    def _item_names(self, items: Sequence[literals_pb2.Literal], top: bool) -> list[str]:
        if not (self._named and top and all(_is_file(each) for each in items)):
            return [str(place) for place in range(len(items))]
        names: list[str] = []
        for place, each in enumerate(items):
            base = name = _base_name(each, str(place))
            number = 1
            while name in names:
                name, number = f"{number}_{base}", number + 1
            names.append(name)
        return names

    def _scalar(self, scalar: literals_pb2.Scalar, path: Path, name: str) -> Any:
        match scalar.WhichOneof("value"):
            case "primitive":
                path.write_text(text_of(scalar.primitive), encoding="utf-8", newline="")
                return _native(scalar.primitive)
            case "none_type":
                path.write_text("null", encoding="utf-8")
                return None
            case "generic":
                value = MessageToDict(scalar.generic)
                path.write_text(json.dumps(value), encoding="utf-8")
                return value
            case "binary":
                path.write_bytes(scalar.binary.value)
                return base64.b64encode(scalar.binary.value).decode()
            case "union":
                return self._literal(scalar.union.value, path, name)
            case "blob":
                whole = scalar.blob.metadata.type.dimensionality == _SINGLE
                return self._object(scalar.blob, path, name, whole=whole)
            case "structured_dataset":
                return self._object(scalar.structured_dataset, path, name, whole=False)
            case "schema":
                return self._object(scalar.schema, path, name, whole=False)
        raise DataProblem(
            "InputUnsupported", f"input {name!r} is of a kind that can't be given to a container as a file"
        )

    def _object(
        self,
        holder: literals_pb2.Blob | literals_pb2.StructuredDataset | literals_pb2.Schema,
        path: Path,
        name: str,
        *,
        whole: bool,
    ) -> str:
        uri = holder.uri
        try:
            names = [] if whole else self._files.names(uri)
            if not names:  # a dataset may be one object
                self._files.download(uri, path)
            for each in names:
                target = path / each
                if ".." in PurePosixPath(each).parts or not target.is_relative_to(path):
                    raise DataProblem(
                        "InputUnsupported", f"input {name!r} holds {each!r}, which can't be a file's path"
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.download(f"{uri.rstrip('/')}/{each}", target)
        except ObjectMissing:
            raise DataProblem("InputMissing", f"input {name!r} is not there any more: nothing lies at {uri}") from None
        holder.uri = str(path)
        return str(path)


def _place(folder: Path, relative: str, name: str) -> Path:
    target = folder / relative
    if ".." in PurePosixPath(relative).parts or not target.is_relative_to(folder):
        raise DataProblem("InputUnsupported", f"input {name!r} holds {relative[:80]!r}, which can't be a file's path")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _is_file(literal: literals_pb2.Literal) -> bool:
    scalar = literal.scalar
    return scalar.HasField("blob") and scalar.blob.metadata.type.dimensionality == _SINGLE


def _base_name(literal: literals_pb2.Literal, otherwise: str) -> str:
    name = literal.scalar.blob.uri.rstrip("/").rpartition("/")[2]
    return otherwise if name in ("", ".", "..") else name


def _native(primitive: literals_pb2.Primitive) -> Any:
    kind = primitive.WhichOneof("value")
    if kind in ("datetime", "duration", None):
        return text_of(primitive)
    return getattr(primitive, kind)


def _file_name(key: str, name: str) -> str:
    if key in ("", ".", "..") or "/" in key or "\0" in key or len(key.encode()) > 255:
        raise DataProblem("InputUnsupported", f"input {name!r} has the key {key[:80]!r}, which can't be a file's name")
    return key
