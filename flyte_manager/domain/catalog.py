"""What users keep beside runs: projects, deployed tasks, secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flyte_manager.domain.actions import TaskName


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    state: int = 0
    """flyteidl2.project.ProjectState; 0 = active"""
    org: str = ""


@dataclass(frozen=True, slots=True)
class DeployedTask:
    name: TaskName
    spec_digest: str
    created_at: datetime
    short_name: str = ""
    environment: str = ""
    description: str = ""
    entrypoint: bool = False


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret's name and scope: an empty project means the whole domain, an empty domain as well means everywhere."""

    name: str
    project: str = ""
    domain: str = ""
    org: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as it is stored: encrypted."""

    id: SecretName
    type: int
    sealed: bytes
    created_at: datetime
    updated_at: datetime
