"""Projects, and who may write into one.

In embedded mode the first write that names a legal project makes it; a read never does. The ids of active projects are
remembered, so that only a project's first write looks into the database: this object is the only writer of its table.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flyte_manager.domain.catalog import Project
from flyte_manager.domain.errors import Exists, Invalid, UnknownDomain, UnknownProject, Unready
from flyte_manager.domain.filters import Query
from flyte_manager.domain.ids import DOMAINS, ProjectId, check_domain, check_project, check_scope
from flyte_manager.domain.ports import Clock
from flyte_manager.store import projects
from flyte_manager.store.engine import Database, Transaction

FIRST = "flytesnacks"
"""The project that is there from the start."""

ACTIVE, ARCHIVED = 0, 1

log = logging.getLogger(__name__)


class ProjectExists(Exists):
    """project {name!r} exists already: update it, or choose another id."""


class ProjectArchived(Unready):
    """project {name!r} is archived and takes nothing new: `flyte update project {name} --unarchive` activates it."""


class TooLong(Invalid):
    """the {what} has {found} characters: it may have {most}."""


class BadState(Invalid):
    """state {state} is not one that a project can be given: it is active (0) or archived (1)."""


class Projects:
    """`create_on_write`: whether a write makes the project that it names. `domains`: id -> name, the same for all."""

    def __init__(
        self, database: Database, clock: Clock, *, create_on_write: bool, domains: Mapping[str, str] = DOMAINS
    ) -> None:
        self.domains = domains
        self._database = database
        self._clock = clock
        self._create_on_write = create_on_write
        self._active: set[str] = set()

    async def seed(self) -> None:
        """Makes the first project unless it is there."""

        def write(tx: Transaction) -> None:
            if projects.get(tx.connection, FIRST) is None:
                projects.insert(tx, self._new(FIRST))

        await self._database.write(write)

    async def admit_write(self, scope: ProjectId) -> None:
        """Lets a write into the project pass, and makes the project if need be. Raises NotGiven, IllegalName,
        UnknownDomain, UnknownProject and ProjectArchived."""
        check_scope(scope.project, scope.domain)
        self.check_domain(scope.domain)
        if scope.project in self._active:
            return

        def write(tx: Transaction) -> bool:
            found = projects.get(tx.connection, scope.project)
            if found is not None and found.state != ACTIVE:
                raise ProjectArchived(name=scope.project)
            if found is not None:
                return False
            if not self._create_on_write:
                raise UnknownProject(name=scope.project)
            projects.insert(tx, replace(self._new(scope.project), org=scope.org))
            return True

        if await self._database.write(write):
            log.info("project %s created", scope.project)
        self._active.add(scope.project)

    async def check_read(self, scope: ProjectId) -> None:
        """Raises NotGiven, IllegalName, UnknownDomain and UnknownProject."""
        check_scope(scope.project, scope.domain)
        self.check_domain(scope.domain)
        if scope.project not in self._active:
            await self.get(scope.project)

    def check_domain(self, domain: str) -> None:
        """Raises NotGiven, IllegalName, UnknownDomain."""
        check_domain(domain)
        if domain not in self.domains:
            raise UnknownDomain(name=domain, known=", ".join(self.domains))

    async def create(self, project: Project) -> None:
        """Raises ProjectExists, BadState, TooLong. The times are set here."""
        _check(project)
        now = self._clock()
        new = replace(project, name=project.name or project.id, created_at=now, updated_at=now)

        def write(tx: Transaction) -> None:
            if projects.get(tx.connection, project.id) is not None:
                raise ProjectExists(name=project.id)
            projects.insert(tx, new)

        await self._database.write(write)

    async def update(self, project: Project) -> None:
        """Replaces name, description, labels and state. Raises UnknownProject, BadState, TooLong."""
        _check(project)
        now = self._clock()

        def write(tx: Transaction) -> None:
            found = _known(projects.get(tx.connection, project.id), project.id)
            projects.update(
                tx,
                replace(
                    project,
                    name=project.name or found.name,
                    org=found.org,
                    created_at=found.created_at,
                    updated_at=now,
                ),
            )

        await self._database.write(write)
        if project.state != ACTIVE:
            self._active.discard(project.id)

    async def get(self, project_id: str) -> Project:
        """Raises UnknownProject."""
        check_project(project_id)
        return _known(await self._database.read(lambda connection: projects.get(connection, project_id)), project_id)

    async def page(self, query: Query) -> Sequence[Project]:
        """One more than the page holds."""
        return await self._database.read(lambda connection: projects.page(connection, query))

    def _new(self, project_id: str) -> Project:
        now = self._clock()
        return Project(id=project_id, name=project_id, created_at=now, updated_at=now)


def _check(project: Project) -> None:
    check_project(project.id)
    for what, text, most in (("name", project.name, 255), ("description", project.description, 300)):
        if len(text) > most:
            raise TooLong(what=what, found=len(text), most=most)
    if project.state not in (ACTIVE, ARCHIVED):
        raise BadState(state=project.state)


def _known(found: Project | None, project_id: str) -> Project:
    if found is None:
        raise UnknownProject(name=project_id)
    return found
