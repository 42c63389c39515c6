"""One frozen tree of settings, made of four sources: flags > environment > file > defaults.

`KEYS` is the table of all settings; reading, `--help`, `config show` and docs/configuration.md follow from it. Each key
has one name in each source:

    manager.runsService.port: 9090                       in the file, nested; case does not count
    FLYTE_MANAGER__MANAGER__RUNSSERVICE__PORT=9090       in the environment: prefix, `__` for the dot, `_` for the dash
    --manager.runsService.port=9090                      on the command line

A value that was given is checked even where a stronger source overrides it. The first mistake ends the reading with a
ConfigError that says where it stands (file, line, column; variable; flag) and what would be right.
"""

import difflib
import ipaddress
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENT_PREFIX = "FLYTE_MANAGER__"
SYSTEM_FILE = Path("/etc/flyte/config/config.yaml")

_MEMORY_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MEMORY_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class ConfigError(Exception):
    """A setting is wrong; the text says which, where it was given, and what would be right."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens. Port 0 means any free port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    health_probe_port: int


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    namespace: str
    kubeconfig: str
    """empty: the current one"""


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    mode: str
    """auto, embedded or kubernetes"""
    runs_service: Address
    queue_service: Address
    executor: ExecutorSettings
    kubernetes: KubernetesSettings


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    file: Path


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    type: str
    sqlite: SqliteSettings


@dataclass(frozen=True, slots=True)
class LoggerSettings:
    level: int
    """0 panic, 1 fatal, 2 error, 3 warning, 4 info, 5 debug"""
    show_source: bool


@dataclass(frozen=True, slots=True)
class ServerSettings:
    allowed_hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    python: str
    """empty: found by itself"""
    pass_env: tuple[str, ...]
    warm: bool
    cpu: float
    """cores; 0 = all of the machine"""
    memory: int
    """bytes; 0 = all of the machine"""


@dataclass(frozen=True, slots=True)
class Settings:
    manager: ManagerSettings
    database: DatabaseSettings
    logger: LoggerSettings
    data_dir: Path
    server: ServerSettings
    embedded: EmbeddedSettings
    origins: Mapping[str, str]
    """key -> "default", "config.yaml:12", "environment FLYTE_MANAGER__…" or "flag --…" """

    def value(self, key: str) -> object:
        """The value of the key with this name."""
        found: Any = self
        for part in key.split("."):
            found = getattr(found, re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", part).lower())
        return found


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key's value may be. Both functions raise ValueError when it isn't that."""

    name: str
    needs: str
    """completes the sentence "KEY needs …" """
    read: Callable[[object], object]
    """what the YAML file gave -> value"""
    parse: Callable[[str], object]
    """text of a flag or a variable -> what the YAML file would have given"""


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    kind: Kind
    default: object
    """as it would stand in the file"""
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "__").replace("-", "_").upper()

    @property
    def flag(self) -> str:
        """The command line flag that sets it."""
        return f"--{self.name}"


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _read_path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return Path(os.path.expanduser(value))


def _read_optional_path(value: object) -> str:
    return "" if value == "" else str(_read_path(value))


def _read_host(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    if re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        return value.lower()
    return str(ipaddress.ip_address(value))


def _read_hosts(value: object) -> tuple[str, ...]:
    return tuple(_read_host(item) for item in _read_list(value))


def _read_names(value: object) -> tuple[str, ...]:
    names = tuple(_read_text(item) for item in _read_list(value))
    if not all(re.fullmatch(r"[A-Za-z_*?][A-Za-z0-9_*?]*", name) for name in names):
        raise ValueError
    return names


def _read_list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError
    return value


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _parse_bool(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _read_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError
    return float(value)


def _read_memory(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError
    matched = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([KMGT]i|[kMGT]|)", str(value))
    if not matched or not isinstance(value, int | str):
        raise ValueError
    return int(float(matched[1]) * _MEMORY_UNITS[matched[2]])


def _parse_list(text: str) -> list[object]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return read


def _choice(*words: str) -> Kind:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(" or ".join(words), f"one of {', '.join(words)}", read, str)


_TEXT = Kind("text", "a text (in quotes if it looks like a number)", _read_text, str)
_HOST = Kind("host", "a host name or an address, without a port, such as localhost or 0.0.0.0", _read_host, str)
_HOSTS = Kind(
    "list of hosts", "a list of host names, without ports, such as [manager.example.org]", _read_hosts, _parse_list
)
_NAMES = Kind("list of names", "a list of names of variables, such as [EDITOR, AWS_*]", _read_names, _parse_list)
_PATH = Kind("path", "a path (in quotes if it looks like a number)", _read_path, str)
_OPTIONAL_PATH = Kind("path, may be empty", "a path (in quotes if it looks like a number)", _read_optional_path, str)
_PORT = Kind("port", "a whole number from 0 to 65535, without quotes (0 = any free port)", _whole(0, 65535), int)
_LEVEL = Kind("0 to 5", "a whole number from 0 (panic) to 5 (debug), without quotes", _whole(0, 5), int)
_BOOL = Kind("true or false", "true or false, without quotes", _read_bool, _parse_bool)
_CPU = Kind("number", "a number of cores, such as 2 or 0.5, without quotes (0 = all)", _read_number, float)
_MEMORY = Kind("bytes", "an amount of memory such as 8Gi, 512Mi or a number of bytes (0 = all)", _read_memory, str)
_MODE = _choice("auto", "embedded", "kubernetes")

KEYS: Sequence[Key] = (
    Key("manager.mode", _MODE, "auto", "Where tasks run; auto means embedded: as local processes."),
    Key("manager.runsService.host", _HOST, "localhost", "Where the API listens; 0.0.0.0 lets others run code here."),
    Key("manager.runsService.port", _PORT, 8090, "The API with all services: the address to give to the SDK."),
    Key("manager.queueService.host", _HOST, "localhost", "Where the queue service's port listens."),
    Key("manager.queueService.port", _PORT, 8089, "The same services once more, at the queue service's port."),
    Key("manager.executor.healthProbePort", _PORT, 8081, "The executor's /healthz and /readyz, at the API's host."),
    Key("manager.kubernetes.namespace", _TEXT, "flyte", "Namespace of the TaskActions; not used by local processes."),
    Key(
        "manager.kubernetes.kubeconfig", _OPTIONAL_PATH, "", "A kubeconfig file; refused until Kubernetes is supported."
    ),
    Key("database.type", _TEXT, "sqlite", "The kind of database; only sqlite."),
    Key("database.sqlite.file", _PATH, "flyte.db", "The database file, relative to the working directory."),
    Key(
        "logger.level",
        _LEVEL,
        4,
        "0 panic, 1 fatal, 2 error, 3 warning, 4 info, 5 debug: up to here is logged.",
    ),
    Key("logger.show-source", _BOOL, False, "Whether each log line names the source line that wrote it."),
    Key("dataDir", _PATH, "~/.flyte-manager", "Where inputs, outputs, code, logs and keys lie; a folder per database."),
    Key("server.allowedHosts", _HOSTS, [], "Names besides localhost and plain addresses by which clients may call."),
    Key(
        "embedded.python",
        _OPTIONAL_PATH,
        "",
        "The Python of the tasks; empty: the active virtual environment, else ours.",
    ),
    Key(
        "embedded.passEnv",
        _NAMES,
        [],
        "Variables of the manager's environment that tasks get too; * stands for anything.",
    ),
    Key("embedded.warm", _BOOL, True, "Whether tasks fork from a warm process; false starts a new Python for each."),
    Key("embedded.cpu", _CPU, 0, "Cores that running tasks may request together; 0 = all of the machine."),
    Key("embedded.memory", _MEMORY, 0, "Memory that running tasks may request together; 0 = all of the machine."),
)


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
            raise ConfigError(
                f"configuration file {chosen} was not found: give --config the path of a file that exists"
            )
        return Path(chosen)
    for path in (folder / "config.yaml", SYSTEM_FILE):
        if path.is_file():
            return path
    return None


def load(argv_flags: Mapping[str, str], environ: Mapping[str, str], config_file: Path | None) -> Settings:
    """Reads and checks all settings. `argv_flags` maps names of keys to the text given on the command line.

    Raises ConfigError.
    """
    values = {key.name: key.kind.read(key.default) for key in KEYS}
    origins = {key.name: "default" for key in KEYS}
    sources = [_from_environment(environ), _from_flags(argv_flags)]
    if config_file is not None:
        sources.insert(0, _from_file(config_file))
    for source in sources:
        for given in source:
            values[given.key.name] = given.value
            origins[given.key.name] = given.origin
    settings = _settings(values, origins)
    _check(settings)
    return settings


def unknown_key(name: str) -> str:
    """The sentence that refuses a key that doesn't exist, with the nearest one that does."""
    by_name = {key.name.lower(): key.name for key in KEYS}
    near = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.6)
    if not near:
        last = name.lower().rpartition(".")[2]
        endings = {known.rpartition(".")[2]: known for known in reversed(by_name)}
        near = [endings[ending] for ending in difflib.get_close_matches(last, endings, n=1, cutoff=0.6)]
    if near:
        return f"unknown key {name!r}: did you mean {by_name[near[0]]}?"
    return f"unknown key {name!r}: `flyte-manager config show` lists all keys"


def _from_flags(flags: Mapping[str, str]) -> Iterator[_Given]:
    by_name = {key.name: key for key in KEYS}
    for name, text in flags.items():
        if name not in by_name:
            raise ConfigError(f"flag --{name}: {unknown_key(name)}")
        yield _given_text(by_name[name], text, f"flag --{name}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    by_variable = {key.variable: key for key in KEYS}
    for name, text in environ.items():
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
        raise ConfigError(f"{where}: this is not YAML: {error.problem or error.context}; indent with spaces") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return iter(()) if root is None else _walk(path, root, ())


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
    if isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}, not keys of its own")
    try:
        plain = yaml.constructor.SafeConstructor().construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}") from None
    try:
        return key.kind.read(plain)
    except ValueError:
        raise ConfigError(f"{where}: {key.name} needs {key.kind.needs}, not {plain!r}") from None


def _place(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)


def _settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    return Settings(
        manager=ManagerSettings(
            mode=values["manager.mode"],
            runs_service=Address(values["manager.runsService.host"], values["manager.runsService.port"]),
            queue_service=Address(values["manager.queueService.host"], values["manager.queueService.port"]),
            executor=ExecutorSettings(values["manager.executor.healthProbePort"]),
            kubernetes=KubernetesSettings(
                namespace=values["manager.kubernetes.namespace"], kubeconfig=values["manager.kubernetes.kubeconfig"]
            ),
        ),
        database=DatabaseSettings(values["database.type"], SqliteSettings(values["database.sqlite.file"])),
        logger=LoggerSettings(level=values["logger.level"], show_source=values["logger.show-source"]),
        data_dir=values["dataDir"],
        server=ServerSettings(values["server.allowedHosts"]),
        embedded=EmbeddedSettings(
            python=values["embedded.python"],
            pass_env=values["embedded.passEnv"],
            warm=values["embedded.warm"],
            cpu=values["embedded.cpu"],
            memory=values["embedded.memory"],
        ),
        origins=origins,
    )


def _check(settings: Settings) -> None:
    """What no single key can tell."""
    origins = settings.origins
    later = (
        "Kubernetes comes with a later version; leave it out, with manager.mode auto, to run tasks as local processes"
    )
    for key, given in (
        ("manager.mode", settings.manager.mode == "kubernetes"),
        ("manager.kubernetes.kubeconfig", bool(settings.manager.kubernetes.kubeconfig)),
    ):
        if given:
            raise ConfigError(f"failed to get Kubernetes config: {origins[key]}: {key}: {later}")
    if settings.database.type != "sqlite":
        where, kind = origins["database.type"], settings.database.type
        raise ConfigError(f"{where}: database.type {kind!r} is not supported: the manager keeps its data in sqlite")
    ports: dict[int, str] = {}
    for key in (key.name for key in KEYS if key.kind is _PORT):
        port = settings.value(key)
        if isinstance(port, int) and port and ports.setdefault(port, key) != key:
            where = next(origins[name] for name in (key, ports[port]) if origins[name] != "default")
            raise ConfigError(f"{where}: {ports[port]} and {key} are both {port}: give each its own port")
