"""What the manager can do stands in its documentation, and nothing else does."""

import re
from pathlib import Path

import pytest
import yaml

from flyte_manager.cli import COMMANDS
from flyte_manager.config import KEYS, Key, load
from flyte_manager.rpc.not_served import NOT_SERVED, feature_of
from tests import rpcs

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def row(key: Key) -> str:
    default = {"": "empty", "[]": "empty", "{}": "empty", "True": "`true`", "False": "`false`"}.get(
        str(key.default), f"`{key.default}`"
    )
    return f"| `{key.name}` | {key.kind.name} | {default} | {key.meaning} | `{key.variable}` |"


def test_the_table_of_settings_is_the_table_of_keys() -> None:
    table = CONFIGURATION.partition("## Keys")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [row(key) for key in KEYS]


@pytest.mark.parametrize("document", ["README.md", "docs/configuration.md"])
def test_every_key_and_variable_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    names = {key.name for key in KEYS}
    sections = {name.rpartition(".")[0] for name in names}
    told = set(re.findall(r"`(?:--)?((?:manager|database|logger|server|embedded|tasks|storage)\.[\w.-]+)", text))
    assert told - names - sections == set()
    variables = set(re.findall(r"FLYTE_MANAGER__\w+", text))
    assert variables - {key.variable for key in KEYS} == set()


def test_examples_of_configuration_load(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert examples
    for example in examples:
        assert yaml.safe_load(example)
        file = tmp_path / "config.yaml"
        file.write_text(example)
        load({}, {}, file)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"`flyte-manager {command}`" in CONFIGURATION


def test_the_tables_of_rpcs_are_up_to_date() -> None:
    text = rpcs.DOCUMENT.read_text()
    assert text == rpcs.document(text), "run `make docs`"


def test_every_rpc_is_either_served_or_has_a_feature_that_says_what_to_use_instead() -> None:
    missing = {name for name in rpcs.every_method() if feature_of(*name.split("/"))}
    assert missing | rpcs.served() == set(rpcs.every_method())
    assert missing & rpcs.served() == set()
    services = {name.partition("/")[0] for name in rpcs.every_method()}
    assert set(NOT_SERVED) <= services | set(rpcs.every_method())
    assert len(rpcs.served()) > 40


def test_every_test_that_the_comparison_with_upstream_names_exists() -> None:
    table = (ROOT / "docs" / "upstream.md").read_text().partition("\n## ")[0]
    cells = [line.split("|")[-2] for line in table.splitlines() if line.startswith("| ")]
    names = re.findall(r"`([\w.]+)`", " ".join(cells[1:]))
    files, functions = names_of_tests()
    assert len(names) > 25
    assert [name for name in names if name not in files and name not in " ".join(functions)] == []


def test_every_test_that_the_page_on_security_names_exists() -> None:
    names = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(names) > 25
    assert set(names) - names_of_tests()[1] == set()


def names_of_tests() -> tuple[set[str], set[str]]:
    """Names of files and of functions."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    return {path.name for path in files}, {
        name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())
    }


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if f"(docs/{page.name})" not in readme] == []


def test_every_link_leads_to_a_file_and_its_heading() -> None:
    for page in [ROOT / "README.md", *PAGES, *RECORDS]:
        for target, heading in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name} links to {target}"
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if heading else []
            assert not heading or heading in {name.lower().replace(" ", "-") for name in headings}


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [int(record.name[:4]) for record in RECORDS]
    assert numbers == list(range(1, len(RECORDS) + 1))
    assert [record.name for n, record in enumerate(RECORDS, 1) if not record.read_text().startswith(f"# {n}. ")] == []
