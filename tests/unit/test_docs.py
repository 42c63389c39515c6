"""What the manager can do stands in its documentation, and nothing else does."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flyte_manager import services
from flyte_manager.cli import COMMANDS
from flyte_manager.config import KEYS, Key, load

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
RPC = (ROOT / "docs" / "rpc.md").read_text()


def row(key: Key) -> str:
    default = {"": "empty", "[]": "empty", "{}": "empty", "True": "`true`", "False": "`false`"}.get(
        str(key.default), f"`{key.default}`"
    )
    return f"| `{key.name}` | {key.kind.name} | {default} | {key.meaning} | `{key.variable}` |"


def served() -> Iterator[tuple[str, str, bool]]:
    """(service with its package, method, whether our class has it) of each service that has an implementation."""
    for module in pkgutil.iter_modules(services.__path__, f"{services.__name__}."):
        for _, ours in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            for generated in ours.__bases__:
                if ours.__module__ == module.name and generated.__module__.endswith("_connect"):
                    messages = importlib.import_module(generated.__module__.removesuffix("_connect") + "_pb2")
                    service = messages.DESCRIPTOR.services_by_name[generated.__name__]
                    own = {name.replace("_", "") for name in vars(ours)}
                    for method in service.methods_by_name:
                        yield service.full_name, method, method.lower() in own


SERVED = sorted(served())


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


@pytest.mark.parametrize(("service", "method", "ours"), SERVED)
def test_every_method_is_documented_as_served_or_as_not_yet(service: str, method: str, ours: bool) -> None:
    served_row = next(line for line in RPC.splitlines() if line.startswith(f"| `{service}`"))
    listed = method in re.findall(r"\w+", served_row)
    name = service.rpartition(".")[2]
    not_yet = bool(re.search(rf"\b{name}[:.][^|]*\b{method}\b", RPC.partition("## Not yet")[2]))
    assert listed != not_yet
    assert ours or not_yet


@pytest.mark.parametrize("service", sorted({service for service, _, _ in SERVED}))
def test_no_method_is_documented_that_does_not_exist(service: str) -> None:
    methods = {method for name, method, _ in SERVED if name == service}
    served_row = next(line for line in RPC.splitlines() if line.startswith(f"| `{service}`"))
    named = set(re.findall(r"[A-Z]\w+", re.sub(r"\(.*?\)", "", served_row.split("|")[2])))
    assert named <= methods


def test_services_are_found() -> None:
    assert len({service for service, _, _ in SERVED}) >= 12
