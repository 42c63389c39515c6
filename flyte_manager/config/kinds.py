"""What a setting's value may be. Each kind reads what the YAML file gave, and parses the text of a flag or variable."""

import ipaddress
import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_MEMORY_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MEMORY_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class ConfigError(Exception):
    """A setting is wrong; the text says which, where it was given, and what would be right."""


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
    nested: bool = False
    """whether it holds keys of its own"""
    secret: bool = False
    """whether `config show` hides it"""


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


def _read_texts(value: object) -> tuple[str, ...]:
    return tuple(_read_text(item) for item in _read_list(value))


def _read_mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError
    return value


def _read_links(value: object) -> tuple[tuple[str, str], ...]:
    """Name and address of each."""
    links = [_read_mapping(item) for item in _read_list(value)]
    if any(set(link) != {"name", "uri"} for link in links):
        raise ValueError
    return tuple((_read_text(link["name"]), _read_text(link["uri"])) for link in links)


def _read_domains(value: object) -> tuple[tuple[str, str], ...]:
    """Id and name of each, once; a text is both."""
    given = [item if isinstance(item, dict) else {"id": item, "name": item} for item in _read_list(value)]
    domains = {_read_text(item["id"]): _read_text(item.get("name", item["id"])) for item in given if "id" in item}
    if not domains or len(domains) < len(given) or any(set(item) - {"id", "name"} for item in given):
        raise ValueError
    if not all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", domain) for domain in domains):
        raise ValueError
    return tuple(domains.items())


def _parse_yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError from None


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


def _read_size(value: object) -> int:
    return _read_memory(value.removesuffix("B") if isinstance(value, str) else value)


def _read_time(value: object) -> float:
    if isinstance(value, bool):
        raise ValueError
    matched = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", str(value))
    if not matched or not isinstance(value, int | float | str):
        raise ValueError
    return float(matched[1]) * _TIME_UNITS[matched[2]]


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


TEXT = Kind("text", "a text (in quotes if it looks like a number)", _read_text, str)
HOST = Kind("host", "a host name or an address, without a port, such as localhost or 0.0.0.0", _read_host, str)
HOSTS = Kind(
    "list of hosts", "a list of host names, without ports, such as [manager.example.org]", _read_hosts, _parse_list
)
NAMES = Kind("list of names", "a list of names of variables, such as [EDITOR, AWS_*]", _read_names, _parse_list)
PATH = Kind("path", "a path (in quotes if it looks like a number)", _read_path, str)
OPTIONAL_PATH = Kind("path, may be empty", "a path (in quotes if it looks like a number)", _read_optional_path, str)
PORT = Kind("port", "a whole number from 0 to 65535, without quotes (0 = any free port)", _whole(0, 65535), int)
LEVEL = Kind("0 to 5", "a whole number from 0 (panic) to 5 (debug), without quotes", _whole(0, 5), int)
BOOL = Kind("true or false", "true or false, without quotes", _read_bool, _parse_bool)
CPU = Kind("number", "a number of cores, such as 2 or 0.5, without quotes (0 = all)", _read_number, float)
MEMORY = Kind("bytes", "an amount of memory such as 8Gi, 512Mi or a number of bytes (0 = all)", _read_memory, str)
SIZE = Kind("bytes", "an amount such as 10GiB, 500Mi or a number of bytes (0 = no bound)", _read_size, str)
MODE = _choice("auto", "embedded", "kubernetes")
TEXTS = Kind("list of texts", "a list of texts, such as [regcred]", _read_texts, _parse_list)
SECRET = Kind("secret text", "a text (in quotes if it looks like a number)", _read_text, str, secret=True)
COUNT = Kind("whole number", "a whole number, without quotes", _whole(0, 10**9), int)
SECONDS = Kind("seconds", "a number of seconds, such as 180 or 0.5, without quotes", _read_number, float)
RATE = Kind("number", "a number, such as 500, without quotes (0 = no limit)", _read_number, float)
TIME = Kind("time", "a time such as 90 (seconds), 30m, 8h or 7d (0 = no bound)", _read_time, str)
OBJECT = Kind(
    "object", "keys of its own, such as {spec: {nodeSelector: {disk: ssd}}}", _read_mapping, _parse_yaml, nested=True
)
DOMAINS = Kind(
    "list of domains",
    "a list of at least one domain, each once: its id in a-z, 0-9 and -, or {id: qa, name: Quality}",
    _read_domains,
    _parse_list,
)
LINKS = Kind("list of links", 'a list of {name: …, uri: "https://…"}, both of them texts', _read_links, _parse_yaml)
