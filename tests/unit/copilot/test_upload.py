"""Files become outputs."""

import os
from pathlib import Path

import pytest
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.core.types_pb2 import LiteralType as Type
from google.protobuf.json_format import MessageToDict

from flyte_manager.copilot.reports import DataProblem
from flyte_manager.copilot.texts import Simple
from flyte_manager.copilot.upload import LONGEST_TEXT, Upload
from tests.unit.copilot.folder_files import FolderFiles

INTEGER, STRING, NONE = (Type(simple=each) for each in (Simple.INTEGER, Simple.STRING, Simple.NONE))
FILE = Type(blob=types_pb2.BlobType(format="csv", dimensionality=types_pb2.BlobType.SINGLE))
DIR = Type(blob=types_pb2.BlobType(dimensionality=types_pb2.BlobType.MULTIPART))
ENUM = Type(enum_type=types_pb2.EnumType(values=["red", "blue"]))
OPTIONAL = Type(union_type=types_pb2.UnionType(variants=[INTEGER, NONE]))
EITHER = Type(union_type=types_pb2.UnionType(variants=[INTEGER, STRING]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "outputs"
    made.mkdir()
    return made


@pytest.fixture
def files(tmp_path: Path) -> FolderFiles:
    return FolderFiles(tmp_path / "store")


def output(files: FolderFiles, folder: Path, kind: Type) -> literals_pb2.Literal:
    """Of the only output, o."""
    entry = interface_pb2.VariableEntry(key="o", value=interface_pb2.Variable(type=kind))
    made = Upload(files, folder, "s3://b/raw").outputs(interface_pb2.VariableMap(variables=[entry]))
    assert [each.name for each in made.literals] == ["o"]
    return made.literals[0].value


def test_simple_outputs(files: FolderFiles, folder: Path) -> None:
    (folder / "o").write_text("42\n")
    assert output(files, folder, INTEGER).scalar.primitive.integer == 42
    assert output(files, folder, STRING).scalar.primitive.string_value == "42\n"
    assert output(files, folder, Type(simple=Simple.BINARY)).scalar.binary.value == b"42\n"
    (folder / "o").write_text('{"a": [1, {"b": null}]}')
    found = output(files, folder, Type(simple=Simple.STRUCT)).scalar.generic
    assert MessageToDict(found) == {"a": [1, {"b": None}]}
    (folder / "o").write_text("blue\n")
    assert output(files, folder, ENUM).scalar.primitive.string_value == "blue"


def test_an_output_of_none_needs_no_file(files: FolderFiles, folder: Path) -> None:
    assert output(files, folder, NONE).scalar.HasField("none_type")


def test_a_file_is_uploaded(files: FolderFiles, folder: Path) -> None:
    (folder / "o").write_text("a,b")
    blob = output(files, folder, FILE).scalar.blob
    assert blob.uri == "s3://b/raw/o"
    assert blob.metadata.type == FILE.blob
    assert files.read(blob.uri) == b"a,b"


def test_a_folder_is_uploaded_with_all_below_it(files: FolderFiles, folder: Path) -> None:
    (folder / "o/deep").mkdir(parents=True)
    (folder / "o/a").write_text("1")
    (folder / "o/deep/b").write_text("2")
    (folder / "o/link").symlink_to("a")
    blob = output(files, folder, DIR).scalar.blob
    assert blob.metadata.type.dimensionality == types_pb2.BlobType.MULTIPART
    assert {name: files.read(f"{blob.uri}/{name}") for name in files.names(blob.uri)} == {
        "a": b"1",
        "deep/b": b"2",
        "link": b"1",
    }


def test_an_empty_folder_is_one(files: FolderFiles, folder: Path) -> None:
    (folder / "o").mkdir()
    assert output(files, folder, DIR).scalar.blob.uri == "s3://b/raw/o"
    assert files.written == []


def test_lists_count_and_dicts_name(files: FolderFiles, folder: Path) -> None:
    (folder / "o").mkdir()
    for number in range(11):
        (folder / f"o/{number}").write_text(str(number))
    found = output(files, folder, Type(collection_type=INTEGER)).collection.literals
    assert [each.scalar.primitive.integer for each in found] == list(range(11))
    named = output(files, folder, Type(map_value_type=FILE)).map.literals
    assert named["3"].scalar.blob.uri == "s3://b/raw/o/3"
    assert files.read("s3://b/raw/o/10") == b"10"


def test_an_optional_output_may_be_left_out(files: FolderFiles, folder: Path) -> None:
    assert output(files, folder, OPTIONAL).scalar.union.value.scalar.HasField("none_type")
    (folder / "o").write_text("5")
    union = output(files, folder, OPTIONAL).scalar.union
    assert (union.value.scalar.primitive.integer, union.type) == (5, INTEGER)
    (folder / "o").write_text("five")
    assert output(files, folder, EITHER).scalar.union.value.scalar.primitive.string_value == "five"
    with pytest.raises(DataProblem, match="'five' is not an integer"):
        output(files, folder, OPTIONAL)


def test_a_missing_output_is_named_with_the_cure(files: FolderFiles, folder: Path) -> None:
    for kind in (INTEGER, FILE, DIR, Type(collection_type=INTEGER), ENUM):
        with pytest.raises(DataProblem, match=r"output 'o' is missing.*without writing .*/outputs/o") as caught:
            output(files, folder, kind)
        assert caught.value.code == "OutputMissing"


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        (INTEGER, b"x", "'x' is not an integer"),
        (STRING, b"\xff", "no UTF-8 text"),
        (Type(simple=Simple.STRUCT), b"[1]", "no JSON object"),
        (Type(simple=Simple.STRUCT), b"{", "no JSON object"),
        (ENUM, b"green", "'green' is none of red, blue"),
        (DIR, b"", "declared as a folder"),
        (Type(collection_type=INTEGER), b"", "declared as a list or dict"),
        (Type(schema=types_pb2.SchemaType()), b"", "declare it as File, Dir, dict"),
        (Type(structured_dataset_type=types_pb2.StructuredDatasetType()), b"", "declare it as File, Dir, dict"),
    ],
)
def test_what_is_not_of_the_type_is_told(
    files: FolderFiles, folder: Path, kind: Type, content: bytes, words: str
) -> None:
    (folder / "o").write_bytes(content)
    with pytest.raises(DataProblem, match=f"output 'o'.*{words}"):
        output(files, folder, kind)


def test_a_folder_is_no_file(files: FolderFiles, folder: Path) -> None:
    (folder / "o").mkdir()
    for kind, words in ((FILE, "declared as a file"), (STRING, "is a folder")):
        with pytest.raises(DataProblem, match=words):
            output(files, folder, kind)


def test_a_value_that_is_too_long_should_be_a_file(files: FolderFiles, folder: Path) -> None:
    with (folder / "o").open("wb") as file:
        file.truncate(LONGEST_TEXT + 1)
    with pytest.raises(DataProblem, match="declare it as a File"):
        output(files, folder, STRING)


@pytest.mark.parametrize("kind", [STRING, FILE, DIR])
@pytest.mark.parametrize("target", ["/proc/self/environ", "/proc/self/fd", "../store/secret", "/etc"])
def test_links_that_lead_out_of_the_folder_are_refused(
    files: FolderFiles, folder: Path, kind: Type, target: str
) -> None:
    files.write("s3://secret", b"canary")
    files.written.clear()
    (folder / "o").symlink_to(target)
    with pytest.raises(DataProblem, match="leads out of"):
        output(files, folder, kind)
    assert files.written == []


def test_links_below_a_folder_are_refused_before_anything_is_uploaded(files: FolderFiles, folder: Path) -> None:
    (folder / "o").mkdir()
    (folder / "o/a").write_text("fine")
    for target in ("/proc/self/environ", "/etc"):
        (folder / "o/z").symlink_to(target)
        with pytest.raises(DataProblem, match="leads out of"):
            output(files, folder, DIR)
        (folder / "o/z").unlink()
    assert files.written == []


def test_pipes_and_endless_links_do_not_hold_it_up(files: FolderFiles, folder: Path) -> None:
    os.mkfifo(folder / "o")
    with pytest.raises(DataProblem, match="neither a file nor a folder"):
        output(files, folder, FILE)
    (folder / "o").unlink()
    (folder / "o").symlink_to("o")
    with pytest.raises(DataProblem, match="output 'o' can't be read"):
        output(files, folder, STRING)
