"""Secrets by SecretService, and what tasks get of them."""

import pytest
from connectrpc.code import Code
from flyteidl2.secret import definition_pb2
from flyteidl2.secret import payload_pb2 as pb

from flyte_manager.domain.ids import ProjectId
from tests.unit.services.running import NOW, Manager, refused

SCOPE = ProjectId("flytesnacks", "development")


def named(name: str = "KEY", project: str = "", domain: str = "") -> definition_pb2.SecretIdentifier:
    return definition_pb2.SecretIdentifier(name=name, project=project, domain=domain)


async def create(manager: Manager, value: bytes, name: str = "KEY", project: str = "", domain: str = "") -> None:
    spec = definition_pb2.SecretSpec(binary_value=value)
    request = pb.CreateSecretRequest(id=named(name, project, domain), secret_spec=spec)
    await manager.secrets.create_secret(request)


async def listed(manager: Manager, **fields: object) -> pb.ListSecretsResponse:
    return await manager.secrets.list_secrets(pb.ListSecretsRequest(**fields))  # type: ignore[arg-type]


async def test_a_secret_is_created_told_of_updated_and_deleted(manager: Manager) -> None:
    await create(manager, b"one")
    told = (await manager.secrets.get_secret(pb.GetSecretRequest(id=named()))).secret
    assert told.id == named()
    assert told.secret_metadata.secret_status.overall_status == definition_pb2.FULLY_PRESENT
    assert told.secret_metadata.created_time.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    text = definition_pb2.SecretSpec(string_value="zwei")
    await manager.secrets.update_secret(pb.UpdateSecretRequest(id=named(), secret_spec=text))
    assert await manager.vault.give(SCOPE, "KEY") == b"zwei"
    await manager.secrets.delete_secret(pb.DeleteSecretRequest(id=named()))
    assert await manager.vault.give(SCOPE, "KEY") is None


async def test_the_narrowest_scope_wins(manager: Manager) -> None:
    await create(manager, b"all")
    assert await manager.vault.give(SCOPE, "KEY") == b"all"
    await create(manager, b"domain", domain="development")
    assert await manager.vault.give(SCOPE, "KEY") == b"domain"
    await create(manager, b"project", project="flytesnacks", domain="development")
    assert await manager.vault.give(SCOPE, "KEY") == b"project"
    assert await manager.vault.give(ProjectId("other", "development"), "KEY") == b"domain"
    assert await manager.vault.give(ProjectId("flytesnacks", "staging"), "KEY") == b"all"


async def test_a_secret_exists_once_and_what_does_not_exist_is_not_found(manager: Manager) -> None:
    await create(manager, b"one")
    assert "'KEY' exists already" in await refused(create(manager, b"two"), Code.ALREADY_EXISTS)
    spec = definition_pb2.SecretSpec(string_value="x")
    update = pb.UpdateSecretRequest(id=named("NONE"), secret_spec=spec)
    await refused(manager.secrets.update_secret(update), Code.NOT_FOUND)
    await refused(manager.secrets.get_secret(pb.GetSecretRequest(id=named("NONE"))), Code.NOT_FOUND)
    await refused(manager.secrets.delete_secret(pb.DeleteSecretRequest(id=named("NONE"))), Code.NOT_FOUND)
    assert await manager.vault.give(SCOPE, "KEY") == b"one"


@pytest.mark.parametrize(
    ("name", "project", "domain", "code"),
    [
        ("", "", "", Code.INVALID_ARGUMENT),
        ("a/b", "", "", Code.INVALID_ARGUMENT),
        ("../x", "", "", Code.INVALID_ARGUMENT),
        ("a\0b", "", "", Code.INVALID_ARGUMENT),
        ("KEY", "flytesnacks", "", Code.INVALID_ARGUMENT),
        ("KEY", "No", "development", Code.INVALID_ARGUMENT),
        ("KEY", "", "moon", Code.NOT_FOUND),
    ],
)
async def test_illegal_names_and_scopes_are_refused(
    manager: Manager, name: str, project: str, domain: str, code: Code
) -> None:
    await refused(create(manager, b"x", name, project, domain), code)
    assert not (await listed(manager)).secrets


async def test_a_secret_without_value_or_with_too_large_a_one_is_refused(manager: Manager) -> None:
    await refused(manager.secrets.create_secret(pb.CreateSecretRequest(id=named())), Code.INVALID_ARGUMENT)
    empty = pb.CreateSecretRequest(id=named(), secret_spec=definition_pb2.SecretSpec())
    assert "string_value" in await refused(manager.secrets.create_secret(empty), Code.INVALID_ARGUMENT)
    await refused(create(manager, b"x" * ((1 << 20) + 1)), Code.RESOURCE_EXHAUSTED)


async def test_secrets_are_listed_by_scope_in_pages(manager: Manager) -> None:
    for name in ("A", "B", "C"):
        await create(manager, b"x", name)
    await create(manager, b"x", "D", "flytesnacks", "development")
    await create(manager, b"x", "E", "other", "development")
    first = await listed(manager, project="flytesnacks", domain="development", limit=3)
    second = await listed(manager, project="flytesnacks", domain="development", limit=3, token=first.token)
    assert [secret.id.name for secret in [*first.secrets, *second.secrets]] == ["A", "B", "C", "D"]
    assert second.token == ""
    await refused(listed(manager, token="-1"), Code.INVALID_ARGUMENT)
    await refused(listed(manager, project="flytesnacks"), Code.INVALID_ARGUMENT)


async def test_a_secret_of_a_new_project_makes_that_project(manager: Manager) -> None:
    await create(manager, b"x", "KEY", "fresh", "staging")
    assert (await manager.projects.get("fresh")).id == "fresh"
