"""Inputs become files."""

import json
from pathlib import Path

import pytest
import yaml
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.core.literals_pb2 import Literal, Primitive, Scalar
from flyteidl2.task import common_pb2
from google.protobuf import struct_pb2

from flyte_manager.copilot.download import Download
from flyte_manager.copilot.reports import DataProblem
from tests.unit.copilot.folder_files import FolderFiles


def integer(value: int) -> Literal:
    return Literal(scalar=Scalar(primitive=Primitive(integer=value)))


def text(value: str) -> Literal:
    return Literal(scalar=Scalar(primitive=Primitive(string_value=value)))


def blob(uri: str, *, folder: bool = False) -> Literal:
    kind = types_pb2.BlobType(dimensionality=types_pb2.BlobType.MULTIPART if folder else types_pb2.BlobType.SINGLE)
    return Literal(scalar=Scalar(blob=literals_pb2.Blob(uri=uri, metadata=literals_pb2.BlobMetadata(type=kind))))


def items(*literals: Literal) -> Literal:
    return Literal(collection=literals_pb2.LiteralCollection(literals=literals))


def inputs(**literals: Literal) -> common_pb2.Inputs:
    named = common_pb2.NamedLiteral
    return common_pb2.Inputs(literals=[named(name=name, value=value) for name, value in literals.items()])


@pytest.fixture
def files(tmp_path: Path) -> FolderFiles:
    found = FolderFiles(tmp_path / "store")
    for uri in ("s3://b/one.csv", "s3://b/x/one.csv", "s3://b/dir/a", "s3://b/dir/deep/b"):
        found.write(uri, uri.encode())
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "inputs"


def tree(folder: Path) -> dict[str, str]:
    every = (each for each in folder.rglob("*") if each.is_file() and each.name != "inputs.pb")
    return {each.relative_to(folder).as_posix(): each.read_text() for each in every}


def test_each_input_is_a_file(files: FolderFiles, folder: Path) -> None:
    struct = struct_pb2.Struct()
    struct.update({"a": "b"})
    given = inputs(
        n=integer(7),
        s=text("a\r\nb"),
        none=Literal(scalar=Scalar(none_type=literals_pb2.Void())),
        binary=Literal(scalar=Scalar(binary=literals_pb2.Binary(value=b"xyz"))),
        d=Literal(scalar=Scalar(generic=struct)),
        u=Literal(scalar=Scalar(union=literals_pb2.Union(value=integer(8)))),
        l=items(integer(1), items(text("deep"))),
        m=Literal(map=literals_pb2.LiteralMap(literals={"k": integer(2)})),
        f=blob("s3://b/one.csv"),
        dir=blob("s3://b/dir/", folder=True),
        sd=Literal(scalar=Scalar(structured_dataset=literals_pb2.StructuredDataset(uri="s3://b/dir"))),
    )
    Download(files, named=False).write(given, folder, form="PROTO")
    assert (folder / "s").read_bytes() == b"a\r\nb"
    (folder / "s").unlink()
    assert tree(folder) == {
        "n": "7",
        "none": "null",
        "binary": "xyz",
        "d": '{"a": "b"}',
        "u": "8",
        "l/0": "1",
        "l/1/0": "deep",
        "m/k": "2",
        "f": "s3://b/one.csv",
        "dir/a": "s3://b/dir/a",
        "dir/deep/b": "s3://b/dir/deep/b",
        "sd/a": "s3://b/dir/a",
        "sd/deep/b": "s3://b/dir/deep/b",
    }


@pytest.mark.parametrize(("form", "load"), [("JSON", json.loads), ("YAML", yaml.safe_load)])
def test_all_values_are_told_once_more(files: FolderFiles, folder: Path, form: str, load: object) -> None:
    given = inputs(n=integer(7), l=items(blob("s3://b/one.csv")), s=text("ü: x"))
    Download(files, named=False).write(given, folder, form=form)
    assert callable(load)
    found = load((folder / f"inputs.{form.lower()}").read_text())
    assert found == {"n": 7, "l": [str(folder / "l/0")], "s": "ü: x"}
    told = common_pb2.Inputs.FromString((folder / "inputs.pb").read_bytes())
    assert told.literals[1].value.collection.literals[0].scalar.blob.uri == str(folder / "l/0")
    assert given.literals[1].value.collection.literals[0].scalar.blob.uri == "s3://b/one.csv"


def test_files_keep_their_names_in_the_named_layout(files: FolderFiles, folder: Path) -> None:
    three = items(blob("s3://b/one.csv"), blob("s3://b/x/one.csv"), blob("s3://b/one.csv"))
    given = inputs(f=blob("s3://b/one.csv"), l=three, mixed=items(blob("s3://b/one.csv"), integer(1)))
    Download(files, named=True).write(given, folder, form="PROTO")
    assert sorted(tree(folder)) == ["f/one.csv", "l/1_one.csv", "l/2_one.csv", "l/one.csv", "mixed/0", "mixed/1"]
    assert (folder / "l/1_one.csv").read_text() == "s3://b/x/one.csv"


def test_an_input_that_is_gone_is_named(files: FolderFiles, folder: Path) -> None:
    with pytest.raises(DataProblem, match="input 'f' is not there any more: nothing lies at s3://b/gone"):
        Download(files, named=False).write(inputs(f=blob("s3://b/gone")), folder, form="JSON")


@pytest.mark.parametrize("key", ["..", "a/b", "", ".", "x" * 256])
def test_keys_that_are_no_names_of_files_are_refused(files: FolderFiles, folder: Path, key: str) -> None:
    given = inputs(m=Literal(map=literals_pb2.LiteralMap(literals={key: integer(1)})))
    with pytest.raises(DataProblem, match="input 'm' has the key"):
        Download(files, named=False).write(given, folder, form="JSON")
    assert tree(folder.parent / "store") != {}
    assert tree(folder) == {}


def test_objects_never_leave_the_folder(files: FolderFiles, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "names", lambda _: ["../../escaped"])
    with pytest.raises(DataProblem, match="can't be a file's path"):
        Download(files, named=False).write(inputs(d=blob("s3://b/dir", folder=True)), folder, form="JSON")


def test_a_second_try_writes_over_the_first(files: FolderFiles, folder: Path) -> None:
    given = inputs(l=items(integer(1)), f=blob("s3://b/one.csv"), d=blob("s3://b/dir", folder=True))
    for _ in range(2):
        Download(files, named=True).write(given, folder, form="JSON")
    assert (folder / "l/0").read_text() == "1"
