"""One frozen tree of settings, made of four sources: flags > environment > file > defaults.

kinds.py     what a value may be          keys.py      the table of all settings; everything else follows from it
settings.py  the tree, and what no single key can tell      sources.py   reads file, environment, flags
"""

from flyte_manager.config.keys import KEYS, Key
from flyte_manager.config.kinds import ConfigError, Kind
from flyte_manager.config.settings import (
    Address,
    EmbeddedSettings,
    KubernetesSettings,
    Settings,
    StorageSettings,
    TlsSettings,
)
from flyte_manager.config.sources import SYSTEM_FILE, find_file, load, unknown_key

__all__ = [
    "KEYS",
    "SYSTEM_FILE",
    "Address",
    "ConfigError",
    "EmbeddedSettings",
    "Key",
    "Kind",
    "KubernetesSettings",
    "Settings",
    "StorageSettings",
    "TlsSettings",
    "find_file",
    "load",
    "unknown_key",
]
