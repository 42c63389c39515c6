"""DomainService: every project has the domains that the configuration names, and clients can't change them."""

from flyteidl2.org import domain_definition_pb2, domain_service_connect
from flyteidl2.org import domain_service_pb2 as pb

from flyte_manager.domain.errors import Exists, Unready
from flyte_manager.domain.ids import check_domain
from flyte_manager.ledger.projects import Projects
from flyte_manager.services.context import Context


class DomainExists(Exists):
    """domain {name!r} exists already."""


class FromConfiguration(Unready):
    """domain {name!r} can't be {done} here: the domains stand in the manager's configuration. Change `runs.domains` in
    config.yaml and start the manager again; what lies in a domain stays there while it is not listed."""


class DomainService(domain_service_connect.DomainService):
    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def list_domains(self, request: pb.ListDomainsRequest, _ctx: Context) -> pb.ListDomainsResponse:
        return pb.ListDomainsResponse(domains=[self._proto(each, request.org) for each in self._projects.domains])

    async def get_domain(self, request: pb.GetDomainRequest, _ctx: Context) -> pb.GetDomainResponse:
        self._projects.check_domain(request.id)
        return pb.GetDomainResponse(domain=self._proto(request.id, request.org))

    async def create_domain(self, request: pb.CreateDomainRequest, _ctx: Context) -> pb.CreateDomainResponse:
        check_domain(request.id)
        if request.id in self._projects.domains:
            raise DomainExists(name=request.id)
        raise FromConfiguration(name=request.id, done="created")

    async def update_domain(self, request: pb.UpdateDomainRequest, _ctx: Context) -> pb.UpdateDomainResponse:
        """Repeats what is so already."""
        self._projects.check_domain(request.id)
        if request.friendly_name not in ("", self._projects.domains[request.id]):
            raise FromConfiguration(name=request.id, done="renamed")
        return pb.UpdateDomainResponse(domain=self._proto(request.id, request.org))

    async def delete_domain(self, request: pb.DeleteDomainRequest, _ctx: Context) -> pb.DeleteDomainResponse:
        self._projects.check_domain(request.id)
        raise FromConfiguration(name=request.id, done="deleted")

    def _proto(self, domain: str, org: str) -> domain_definition_pb2.Domain:
        return domain_definition_pb2.Domain(id=domain, org=org, friendly_name=self._projects.domains[domain])
