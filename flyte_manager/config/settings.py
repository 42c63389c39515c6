"""The tree of settings, and what no single key can tell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from flyte_manager.config.keys import KEYS
from flyte_manager.config.kinds import PORT, ConfigError

_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):[0-9]{1,5}")
_STORAGE = re.compile(r"(s3|gs|az|abfss?)://[^/]+")


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
    context: str
    task_endpoint: str
    service_account: str
    image_pull_secrets: tuple[str, ...]
    default_cpu: str
    default_memory: str
    gpu_resource: str
    accelerator_label: str
    pod_defaults: Mapping[str, Any]
    """a PodTemplateSpec, or a part of one"""
    interruptible_defaults: Mapping[str, Any]
    pod_template: str
    helper_image: str
    log_links: tuple[tuple[str, str], ...]
    """(name, uri)"""
    image_pull_seconds: float
    pending_seconds: float
    node_lost_seconds: float
    keep_seconds: float
    keep_count: int
    qps: float
    burst: int


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    mode: str
    """auto, embedded or kubernetes"""
    runs_service: Address
    queue_service: Address
    executor: ExecutorSettings
    kubernetes: KubernetesSettings


@dataclass(frozen=True, slots=True)
class IdentityHeadersSettings:
    """Names of headers by which a proxy tells who calls; empty: none."""

    claims_jwt_header: str
    subject_header: str
    email_header: str


@dataclass(frozen=True, slots=True)
class RunsSettings:
    domains: tuple[tuple[str, str], ...]
    """(id, name)"""
    trust_forwarded_identity_headers: bool
    identity_headers: IdentityHeadersSettings


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
class TlsSettings:
    """Both or none; empty: plain HTTP."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class ServerSettings:
    allowed_hosts: tuple[str, ...]
    tls: TlsSettings


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
class LimitSettings:
    """Seconds; 0 = no bound."""

    default: float
    most: float


@dataclass(frozen=True, slots=True)
class TasksSettings:
    max_runtime: LimitSettings
    queued_timeout: LimitSettings
    deadline: LimitSettings


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    max_age: float
    """seconds; 0 = no bound"""
    max_size: int
    """bytes; 0 = no bound"""
    forget_cached: bool
    every: float


@dataclass(frozen=True, slots=True)
class S3Settings:
    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class GcsSettings:
    credentials_file: str


@dataclass(frozen=True, slots=True)
class AzureSettings:
    account: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StorageSettings:
    url: str
    """empty: none is configured"""
    signed_endpoint: str
    pod_secret: str
    s3: S3Settings
    gcs: GcsSettings
    azure: AzureSettings


@dataclass(frozen=True, slots=True)
class Settings:
    manager: ManagerSettings
    runs: RunsSettings
    database: DatabaseSettings
    logger: LoggerSettings
    data_dir: Path
    server: ServerSettings
    embedded: EmbeddedSettings
    tasks: TasksSettings
    retention: RetentionSettings
    storage: StorageSettings
    origins: Mapping[str, str]
    """key -> "default", "config.yaml:12", "environment FLYTE_MANAGER__…" or "flag --…" """

    def value(self, key: str) -> object:
        """The value of the key with this name."""
        found: Any = self
        for part in key.split("."):
            found = getattr(found, re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", part).lower())
        return found


def settings_of(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    return Settings(
        manager=ManagerSettings(
            mode=values["manager.mode"],
            runs_service=Address(values["manager.runsService.host"], values["manager.runsService.port"]),
            queue_service=Address(values["manager.queueService.host"], values["manager.queueService.port"]),
            executor=ExecutorSettings(values["manager.executor.healthProbePort"]),
            kubernetes=_kubernetes(values),
        ),
        runs=RunsSettings(
            domains=values["runs.domains"],
            trust_forwarded_identity_headers=values["runs.trustForwardedIdentityHeaders"],
            identity_headers=IdentityHeadersSettings(
                claims_jwt_header=values["runs.identityHeaders.claimsJwtHeader"],
                subject_header=values["runs.identityHeaders.subjectHeader"],
                email_header=values["runs.identityHeaders.emailHeader"],
            ),
        ),
        database=DatabaseSettings(values["database.type"], SqliteSettings(values["database.sqlite.file"])),
        logger=LoggerSettings(level=values["logger.level"], show_source=values["logger.show-source"]),
        data_dir=values["dataDir"],
        server=ServerSettings(
            values["server.allowedHosts"], TlsSettings(values["server.tls.certificate"], values["server.tls.key"])
        ),
        embedded=EmbeddedSettings(
            python=values["embedded.python"],
            pass_env=values["embedded.passEnv"],
            warm=values["embedded.warm"],
            cpu=values["embedded.cpu"],
            memory=values["embedded.memory"],
        ),
        tasks=TasksSettings(**{each.name: _limit(values, each.name) for each in fields(TasksSettings)}),
        retention=RetentionSettings(
            **{each.name: values[_key_of("retention", each.name)] for each in fields(RetentionSettings)}
        ),
        storage=_storage(values),
        origins=origins,
    )


def _kubernetes(values: Mapping[str, Any]) -> KubernetesSettings:
    return KubernetesSettings(
        **{each.name: values[_key_of("manager.kubernetes", each.name)] for each in fields(KubernetesSettings)}
    )


def _limit(values: Mapping[str, Any], name: str) -> LimitSettings:
    section = _key_of("tasks", name)
    return LimitSettings(values[f"{section}.default"], values[f"{section}.most"])


def _storage(values: Mapping[str, Any]) -> StorageSettings:
    return StorageSettings(
        url=values["storage.url"].rstrip("/"),
        signed_endpoint=values["storage.signedEndpoint"],
        pod_secret=values["storage.podSecret"],
        s3=S3Settings(**{each.name: values[_key_of("storage.s3", each.name)] for each in fields(S3Settings)}),
        gcs=GcsSettings(values["storage.gcs.credentialsFile"]),
        azure=AzureSettings(values["storage.azure.account"], values["storage.azure.key"]),
    )


def _key_of(section: str, name: str) -> str:
    """The key of a field: `section.camelCase`."""
    first, *rest = name.split("_")
    return f"{section}.{first}{''.join(part.capitalize() for part in rest)}"


def check(settings: Settings) -> None:
    """What no single key can tell."""
    origins = settings.origins
    kubernetes = settings.manager.kubernetes
    if kubernetes.task_endpoint and not _ENDPOINT.fullmatch(kubernetes.task_endpoint):
        where, key = origins["manager.kubernetes.taskEndpoint"], "manager.kubernetes.taskEndpoint"
        raise ConfigError(f"{where}: {key} needs host:port, not {kubernetes.task_endpoint!r}")
    if settings.storage.url and not _STORAGE.match(settings.storage.url):
        where = origins["storage.url"]
        raise ConfigError(
            f"{where}: storage.url needs s3://bucket/prefix, gs://… or abfss://…, not {settings.storage.url!r}"
        )
    if bool(settings.storage.s3.access_key_id) != bool(settings.storage.s3.secret_access_key):
        given = "accessKeyId" if settings.storage.s3.access_key_id else "secretAccessKey"
        raise ConfigError(
            f"{origins[f'storage.s3.{given}']}: storage.s3 needs both accessKeyId and secretAccessKey, or none"
        )
    for name in ("maxRuntime", "queuedTimeout", "deadline"):
        default, most = settings.value(f"tasks.{name}.default"), settings.value(f"tasks.{name}.most")
        if isinstance(default, float) and isinstance(most, float) and 0 < most < default:
            where = origins[f"tasks.{name}.default"]
            raise ConfigError(f"{where}: tasks.{name}.default is more than tasks.{name}.most: tasks never get it")
    if settings.database.type != "sqlite":
        where, kind = origins["database.type"], settings.database.type
        raise ConfigError(f"{where}: database.type {kind!r} is not supported: the manager keeps its data in sqlite")
    ports: dict[int, str] = {}
    for key in (key.name for key in KEYS if key.kind is PORT):
        port = settings.value(key)
        if isinstance(port, int) and port and ports.setdefault(port, key) != key:
            where = next(origins[name] for name in (key, ports[port]) if origins[name] != "default")
            raise ConfigError(f"{where}: {ports[port]} and {key} are both {port}: give each its own port")
