"""Makes outputs.pb of the files that a container wrote, one for each declared output, named like it.

A simple output is a text, a dict or dataclass JSON, a File a file, a Dir a folder; a list is a folder whose files count
by number or name, a dict one whose files' names are the keys. Files and folders go below the raw data prefix.
outputs.pb is written last. Whether the container succeeded can't be seen from here: what it wrote is converted either
way, and the manager looks at the exit code first.

The container may be hostile: links that lead out of the folder, and what is neither file nor folder, are refused.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict, ParseError

from flyte_manager.blobs.files import Files
from flyte_manager.copilot.reports import DataProblem
from flyte_manager.copilot.texts import NotThatType, Simple, primitive_of

LONGEST_TEXT = 10 << 20
"""Bytes: such values lie in outputs.pb itself."""

_MULTIPART = types_pb2.BlobType.MULTIPART


@dataclass(frozen=True, slots=True)
class Upload:
    """Of one attempt's outputs."""

    files: Files
    folder: Path
    raw: str
    """the prefix below which files are put"""

    def outputs(self, declared: interface_pb2.VariableMap) -> common_pb2.Outputs:
        """Raises DataProblem, TransferFailed."""
        made = common_pb2.Outputs()
        for entry in declared.variables:
            value = self._literal(entry.value.type, self.folder / entry.key, entry.key)
            made.literals.add(name=entry.key, value=value)
        return made

    def _literal(self, kind: types_pb2.LiteralType, path: Path, name: str) -> literals_pb2.Literal:
        match kind.WhichOneof("type"):
            case "simple":
                return _scalar(self._simple(kind.simple, path, name))
            case "enum_type":
                return _scalar(self._enum(kind.enum_type, path, name))
            case "blob":
                return _scalar(literals_pb2.Scalar(blob=self._blob(kind.blob, path, name)))
            case "union_type":
                return self._union(kind.union_type, path, name)
            case "collection_type":
                items = [
                    self._literal(kind.collection_type, each, f"{name}/{each.name}")
                    for each in sorted(self._entries(path, name), key=lambda each: _in_order(each.name))
                ]
                return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=items))
            case "map_value_type":
                found = {
                    each.name: self._literal(kind.map_value_type, each, f"{name}/{each.name}")
                    for each in sorted(self._entries(path, name))
                }
                return literals_pb2.Literal(map=literals_pb2.LiteralMap(literals=found))
        raise DataProblem(
            "OutputUnsupported",
            f"output {name!r} is of a type that a container can't write as a file: declare it as File, Dir, dict or "
            "one of the simple types",
        )

    def _simple(self, simple: int, path: Path, name: str) -> literals_pb2.Scalar:
        if simple == Simple.NONE:
            return literals_pb2.Scalar(none_type=literals_pb2.Void())
        content = self._content(path, name)
        if simple == Simple.BINARY:
            return literals_pb2.Scalar(binary=literals_pb2.Binary(value=content))
        text = _decoded(content, name)
        if simple == Simple.STRUCT:
            return literals_pb2.Scalar(generic=_struct(text, name))
        try:
            return literals_pb2.Scalar(primitive=primitive_of(text, simple))
        except NotThatType as error:
            raise _invalid(name, str(error)) from None

    def _enum(self, enum: types_pb2.EnumType, path: Path, name: str) -> literals_pb2.Scalar:
        word = _decoded(self._content(path, name), name).strip()
        if word not in enum.values:
            raise _invalid(name, f"{word[:80]!r} is none of {', '.join(enum.values)}")
        return literals_pb2.Scalar(primitive=literals_pb2.Primitive(string_value=word))

    def _blob(self, blob: types_pb2.BlobType, path: Path, name: str) -> literals_pb2.Blob:
        found = self._found(path, name)
        uri = f"{self.raw}/{name}"
        folder = blob.dimensionality == _MULTIPART
        if folder != stat.S_ISDIR(found.stat().st_mode):
            expected = "folder" if folder else "file"
            raise _invalid(name, f"it is declared as a {expected}, and {path} is none")
        if not folder:
            self.files.upload(self._readable(path, name), uri)
        else:
            parts = [
                (self._readable(each, name), each.relative_to(path).as_posix())
                for each in sorted(self._below(path, name))
            ]
            self.files.upload_all([(each, f"{uri}/{relative}") for each, relative in parts])
        return literals_pb2.Blob(metadata=literals_pb2.BlobMetadata(type=blob), uri=uri)

    def _union(self, union: types_pb2.UnionType, path: Path, name: str) -> literals_pb2.Literal:
        """The first variant that fits; nothing written is None, where that is a variant."""
        variants = list(union.variants)
        nothing = [each for each in variants if each.WhichOneof("type") == "simple" and each.simple == Simple.NONE]
        others = [each for each in variants if each not in nothing]
        if nothing and not os.path.lexists(path):
            others = nothing
        problem: DataProblem | None = None
        for variant in others:
            try:
                value = self._literal(variant, path, name)
            except DataProblem as error:
                problem = problem or error
            else:
                return _scalar(literals_pb2.Scalar(union=literals_pb2.Union(value=value, type=variant)))
        raise problem or _invalid(name, "its type has no variants")

    def _entries(self, path: Path, name: str) -> list[Path]:
        if not self._found(path, name).is_dir():
            raise _invalid(name, f"it is declared as a list or dict, and {path} is no folder")
        return list(path.iterdir())

    def _below(self, path: Path, name: str) -> Iterator[Path]:
        for root, folders, files in os.walk(path, onerror=_raise):
            for each in folders:
                self._found(Path(root, each), name)
            yield from (Path(root, each) for each in files)

    def _content(self, path: Path, name: str) -> bytes:
        found = self._found(path, name)
        if found.is_dir():
            raise _invalid(name, f"{path} is a folder")
        size = found.stat().st_size
        if size > LONGEST_TEXT:
            raise _invalid(name, f"its {size} bytes are more than the {LONGEST_TEXT} of a value: declare it as a File")
        try:
            return found.read_bytes()
        except OSError as error:
            raise _unreadable(name, error) from None

    def _readable(self, path: Path, name: str) -> Path:
        found = self._found(path, name)
        if not os.access(found, os.R_OK):
            raise _unreadable(name, PermissionError(13, f"{path}: Permission denied"))
        return found

    def _found(self, path: Path, name: str) -> Path:
        """The file or folder behind the path."""
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except FileNotFoundError:
            raise DataProblem(
                "OutputMissing",
                f"output {name!r} is missing: the container ended without writing {path}. Write it there, or remove "
                "it from the task's outputs; if the container failed, its log says why",
            ) from None
        except (OSError, RuntimeError) as error:
            raise _unreadable(name, error) from None
        if not real.is_relative_to(self.folder.resolve()):
            raise _invalid(name, f"{path} is a link that leads out of {self.folder}")
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise _invalid(name, f"{path} is neither a file nor a folder")
        return real


def _scalar(scalar: literals_pb2.Scalar) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=scalar)


def _struct(text: str, name: str) -> struct_pb2.Struct:
    try:
        made = struct_pb2.Struct()
        ParseDict(json.loads(text), made)
    except (ValueError, ParseError, RecursionError) as error:
        raise _invalid(name, f"it is no JSON object ({str(error)[:200]})") from None
    return made


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _invalid(name, "it is no UTF-8 text: declare it as a File, or write text") from None


def _invalid(name: str, problem: str) -> DataProblem:
    return DataProblem("OutputInvalid", f"output {name!r} can't be read: {problem}")


def _unreadable(name: str, error: Exception) -> DataProblem:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return DataProblem(
        "OutputUnreadable", f"output {name!r} can't be read: {reason}. Let the container make it readable for everybody"
    )


def _in_order(name: str) -> list[tuple[int, int, str]]:
    """2 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _raise(error: OSError) -> None:
    raise error
