"""Reads the sources of settings: file, environment, flags.

The first mistake ends the reading with a ConfigError that says where it stands (file, line, column; variable; flag) and
what would be right. A value that was given is checked even where a stronger source overrides it.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flyte_manager.config.keys import ENVIRONMENT_PREFIX, KEYS, Key
from flyte_manager.config.kinds import ConfigError
from flyte_manager.config.settings import Settings, check, settings_of

SYSTEM_FILE = Path("/etc/flyte/config/config.yaml")
SDK_SECTIONS = ("admin", "image", "task", "local")
"""of the file with which the SDK finds a manager, which may be called config.yaml, too"""
_INDENTED = {"'\\t'", "block", "mapping"}
"""words of what YAML says when lines are not indented as it wants"""
SERVICE = "flyte-manager"
"""The Service in front of a manager that runs in a pod."""


@dataclass(frozen=True, slots=True)
class _Given:
    key: Key
    value: object
    origin: str


def find_file(chosen: str | None, folder: Path) -> Path | None:
    """The configuration file: the chosen one, else config.yaml in the folder, else the system's, else none.

    Raises ConfigError when the chosen file isn't there.
    """
    if chosen is not None:
        if not Path(chosen).is_file():
            problem = "is not a file" if Path(chosen).exists() else "was not found"
            raise ConfigError(f"configuration file {chosen} {problem}: give --config the path of a file that exists")
        return Path(chosen)
    for path in (folder / "config.yaml", SYSTEM_FILE):
        if path.is_file():
            return path
    return None


def load(argv_flags: Mapping[str, str], environ: Mapping[str, str], config_file: Path | None) -> Settings:
    """Reads and checks all settings. `argv_flags` maps names of keys to the text given on the command line.

    Raises ConfigError.
    """
    values: dict[str, Any] = {key.name: key.kind.read(key.default) for key in KEYS}
    origins = {key.name: "default" for key in KEYS}
    sources = [_from_environment(environ), _from_flags(argv_flags)]
    if config_file is not None:
        sources.insert(0, _from_file(config_file))
    for source in sources:
        for given in source:
            values[given.key.name] = given.value
            origins[given.key.name] = given.origin
    if "KUBERNETES_SERVICE_HOST" in environ:
        _fill_in_service(values, origins)
    settings = settings_of(values, origins)
    check(settings)
    return settings


def unknown_key(name: str) -> str:
    """The sentence that refuses a key that doesn't exist, with the nearest one that does."""
    by_name = {key.name.lower(): key.name for key in KEYS}
    near = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.6)
    if not near:
        last = name.lower().rpartition(".")[2]
        endings = {known.rpartition(".")[2]: known for known in reversed(by_name)}
        near = [endings[ending] for ending in difflib.get_close_matches(last, endings, n=1, cutoff=0.75)]
    if near:
        return f"unknown key {name!r}: did you mean {by_name[near[0]]}?"
    return f"unknown key {name!r}: `flyte-manager config show` lists all keys"


def _fill_in_service(values: dict[str, Any], origins: dict[str, str]) -> None:
    """In a pod, other pods find the manager at its Service, unless a setting says otherwise."""
    elsewhere = values["manager.kubernetes.kubeconfig"] or values["manager.kubernetes.context"]
    port = values["manager.runsService.port"]
    if port and not elsewhere and not values["manager.kubernetes.taskEndpoint"]:
        values["manager.kubernetes.taskEndpoint"] = f"{SERVICE}.{values['manager.kubernetes.namespace']}.svc:{port}"
        origins["manager.kubernetes.taskEndpoint"] = "the Service of this pod"


def _from_flags(flags: Mapping[str, str]) -> Iterator[_Given]:
    by_name = {key.name: key for key in KEYS}
    for name, text in flags.items():
        if name not in by_name:
            raise ConfigError(f"flag --{name}: {unknown_key(name)}")
        yield _given_text(by_name[name], text, f"flag --{name}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    by_variable = {key.variable: key for key in KEYS}
    short = {variable.replace("__", "_"): variable for variable in by_variable}
    for name, text in environ.items():
        if name in short:
            raise ConfigError(f"environment variable {name} belongs to no key: did you mean {short[name]}?")
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        if name not in by_variable:
            near = difflib.get_close_matches(name, by_variable, n=1)
            cure = f"did you mean {near[0]}?" if near else "docs/configuration.md lists all variables"
            raise ConfigError(f"environment variable {name} belongs to no key: {cure}")
        yield _given_text(by_variable[name], text, f"environment {name}")


def _given_text(key: Key, text: str, origin: str) -> _Given:
    try:
        return _Given(key, key.kind.read(key.kind.parse(text)), origin)
    except ValueError:
        if key.kind.secret:
            raise ConfigError(f"{origin}: {key.name} needs {key.kind.needs}") from None
        raise ConfigError(f"{origin}: {key.name} needs {key.kind.needs}, not {text!r}") from None


def _from_file(path: Path) -> Iterator[_Given]:
    try:
        text = path.read_bytes().decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        where = _place(path, error.problem_mark or error.context_mark)
        raise ConfigError(f"{where}: this is not YAML: {_problem(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return iter(()) if root is None else _walk(path, root, ())


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it can't be read"
    if problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    return (
        f"{problem}; indent with spaces, all keys of a section alike" if _INDENTED & set(problem.split()) else problem
    )


def _walk(path: Path, node: yaml.Node, parents: tuple[str, ...]) -> Iterator[_Given]:
    """The values below a section, depth first."""
    if node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        what = (
            f"{'.'.join(parents)} is a section: its keys stand"
            if parents
            else "the file is a list of sections that stand"
        )
        raise ConfigError(f"{_place(path, node.start_mark)}: {what} below it, indented, as `key: value`")
    lines: dict[str, int] = {}
    for name_node, value_node in node.value:
        where = _place(path, name_node.start_mark)
        name = ".".join((*parents, str(name_node.value)))
        if name.lower() in lines:
            raise ConfigError(f"{where}: {name} was given before, on line {lines[name.lower()]}: keep one of the two")
        lines[name.lower()] = name_node.start_mark.line + 1
        if any(key.name.lower().startswith(f"{name.lower()}.") for key in KEYS):
            yield from _walk(path, value_node, (*parents, str(name_node.value)))
            continue
        key = next((key for key in KEYS if key.name.lower() == name.lower()), None)
        if key is None and name in SDK_SECTIONS:
            raise ConfigError(
                f"{where}: {name!r} is a section of the SDK's configuration, this would be the manager's: start it in "
                "another folder, or name its own file by --config"
            )
        if key is None:
            raise ConfigError(f"{where}: {unknown_key(name)}")
        if "." in str(name_node.value):
            raise ConfigError(
                f"{where}: {name} must be nested: `{name.partition('.')[0]}:`, the rest below it, indented"
            )
        if value_node.tag != "tag:yaml.org,2002:null":
            yield _Given(key, _value(path, value_node, key), f"{path}:{value_node.start_mark.line + 1}")


def _value(path: Path, node: yaml.Node, key: Key) -> object:
    where = _place(path, node.start_mark)
    if isinstance(node, yaml.MappingNode) and not key.kind.nested:
        raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}, not keys of its own")
    try:
        plain = yaml.constructor.SafeConstructor().construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}") from None
    try:
        return key.kind.read(plain)
    except ValueError:
        if key.kind.secret:
            raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}") from None
        raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}, not {plain!r}") from None


def _place(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
