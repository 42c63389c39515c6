"""What users keep beside runs: projects, deployed tasks, secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flyte_manager.domain.actions import TaskName
from flyte_manager.domain.ids import ProjectId, RunId
from flyte_manager.domain.phases import Phase


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
    environment_description: str = ""
    entrypoint: bool = False
    deployed_by: bytes = b""
    """flyteidl2.common.EnrichedIdentity; empty = not known"""
    deployed_by_subject: str = ""


@dataclass(frozen=True, slots=True)
class LatestRun:
    """The newest run of a task."""

    id: RunId
    created_at: datetime
    phase: Phase


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret's name and scope: an empty project means the whole domain, an empty domain as well means everywhere."""

    name: str
    project: str = ""
    domain: str = ""
    org: str = field(default="", compare=False)

    @property
    def scope(self) -> str:
        """In words: which tasks can see it."""
        if self.project:
            return f"{self.project}/{self.domain}"
        return f"domain {self.domain}" if self.domain else "the scope of all projects"


def secret_scopes(scope: ProjectId, key: str) -> Sequence[SecretName]:
    """The names under which a task of that scope finds a secret; the first that exists is its own."""
    return SecretName(key, scope.project, scope.domain), SecretName(key, domain=scope.domain), SecretName(key)


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """What may be told of a secret: all but its value."""

    id: SecretName
    type: int
    """flyteidl2.secret.SecretType"""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SealedSecret(KnownSecret):
    """A secret as it is stored: encrypted."""

    sealed: bytes
