"""DomainService."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.org import domain_service_pb2 as pb

from tests.unit.services.running import Manager, refused, running


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    async with running(tmp_path, domains={"qa": "Quality", "live": "live"}) as started:
        yield started


async def test_domains_are_listed_in_the_order_of_the_configuration_and_told_one_by_one(manager: Manager) -> None:
    found = (await manager.domains.list_domains(pb.ListDomainsRequest(org="acme"))).domains
    assert [(each.id, each.friendly_name, each.org) for each in found] == [
        ("qa", "Quality", "acme"),
        ("live", "live", "acme"),
    ]
    assert (await manager.domains.get_domain(pb.GetDomainRequest(id="qa"))).domain.friendly_name == "Quality"
    message = await refused(manager.domains.get_domain(pb.GetDomainRequest(id="moon")), Code.NOT_FOUND)
    assert "use one of qa, live" in message
    await refused(manager.domains.get_domain(pb.GetDomainRequest()), Code.INVALID_ARGUMENT)
    await refused(manager.domains.get_domain(pb.GetDomainRequest(id="a/b")), Code.INVALID_ARGUMENT)


async def test_a_change_is_refused_and_says_where_domains_are_changed(manager: Manager) -> None:
    calls = (
        manager.domains.create_domain(pb.CreateDomainRequest(id="moon")),
        manager.domains.update_domain(pb.UpdateDomainRequest(id="qa", friendly_name="Other")),
        manager.domains.delete_domain(pb.DeleteDomainRequest(id="qa")),
    )
    for call in calls:
        assert "`runs.domains`" in await refused(call, Code.FAILED_PRECONDITION)
    assert len((await manager.domains.list_domains(pb.ListDomainsRequest())).domains) == 2


async def test_what_is_so_already_can_be_asked_for(manager: Manager) -> None:
    call = manager.domains.create_domain(pb.CreateDomainRequest(id="qa", friendly_name="Quality"))
    await refused(call, Code.ALREADY_EXISTS)
    for name in ("", "Quality"):
        updated = await manager.domains.update_domain(pb.UpdateDomainRequest(id="qa", friendly_name=name))
        assert updated.domain.friendly_name == "Quality"


async def test_a_domain_that_is_not_there_is_not_changed(manager: Manager) -> None:
    await refused(manager.domains.update_domain(pb.UpdateDomainRequest(id="moon")), Code.NOT_FOUND)
    await refused(manager.domains.delete_domain(pb.DeleteDomainRequest(id="moon")), Code.NOT_FOUND)
    await refused(manager.domains.create_domain(pb.CreateDomainRequest(id="Moon")), Code.INVALID_ARGUMENT)
