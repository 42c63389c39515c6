"""Where the value of a secret must not be found: in the database, the log, an answer; and what protects its row."""

import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flyteidl2.secret import definition_pb2
from flyteidl2.secret import payload_pb2 as pb

from flyte_manager.blobs.keys import load_key
from flyte_manager.domain.catalog import SecretName
from flyte_manager.domain.ids import ProjectId
from flyte_manager.store.vault import SecretUnreadable, Vault
from tests.unit.services.running import Manager, running

CANARY = b"canary-7d1f0c52a9"
SCOPE = ProjectId("flytesnacks", "development")


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    async with running(tmp_path) as started:
        yield started


def alter(manager: Manager, statement: str) -> None:
    """Changes rows behind the manager's back; `flipped(bytes, place)` turns one bit."""
    connection = sqlite3.connect(manager.folder / "flyte.db")
    connection.create_function("flipped", 2, flipped)
    with connection:
        connection.execute(statement)
    connection.close()


def flipped(content: bytes, place: int) -> bytes:
    turned = bytearray(content)
    turned[place] ^= 1
    return bytes(turned)


def files_below(folder: Path) -> list[tuple[str, bytes]]:
    return [(str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


async def test_a_value_is_nowhere_but_with_the_task(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    name = definition_pb2.SecretIdentifier(name="KEY", project="flytesnacks", domain="development")
    spec = definition_pb2.SecretSpec(binary_value=CANARY)
    with caplog.at_level(logging.DEBUG):
        client = manager.secrets
        answers = [
            await client.create_secret(pb.CreateSecretRequest(id=name, secret_spec=spec)),
            await client.update_secret(pb.UpdateSecretRequest(id=name, secret_spec=spec)),
            await client.get_secret(pb.GetSecretRequest(id=name, include_system_secrets=True)),
            await client.list_secrets(pb.ListSecretsRequest(project="flytesnacks", domain="development")),
        ]
        with pytest.raises(Exception, match="exists already") as refusal:
            await client.create_secret(pb.CreateSecretRequest(id=name, secret_spec=spec))
    assert await manager.vault.give(SCOPE, "KEY") == CANARY
    assert not any(CANARY in answer.SerializeToString() for answer in answers)
    assert CANARY.decode() not in str(refusal.value)
    assert CANARY.decode() not in caplog.text
    await manager.secrets.delete_secret(pb.DeleteSecretRequest(id=name))
    assert [name for name, content in files_below(manager.folder) if CANARY in content] == []


async def test_the_same_value_is_never_sealed_alike(manager: Manager) -> None:
    one, other = SecretName("A"), SecretName("B")
    await manager.vault.create(one, CANARY)
    await manager.vault.create(other, CANARY)
    sealed = {(await manager.vault.get(name)).sealed for name in (one, other)}
    await manager.vault.update(one, CANARY)
    sealed.add((await manager.vault.get(one)).sealed)
    assert len(sealed) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE secrets SET name = 'B'",
        "UPDATE secrets SET domain = ''",
        "UPDATE secrets SET project = '', domain = ''",
        "UPDATE secrets SET sealed = substr(sealed, 1, length(sealed) - 1)",
        "UPDATE secrets SET sealed = x''",
        "UPDATE secrets SET sealed = flipped(sealed, 0)",
        "UPDATE secrets SET sealed = flipped(sealed, 20)",
        "UPDATE secrets SET sealed = flipped(sealed, -1)",
    ],
)
async def test_a_row_that_was_moved_or_altered_is_not_opened(manager: Manager, statement: str) -> None:
    name = SecretName("A", domain="development") if "domain" in statement else SecretName("A")
    await manager.vault.create(name, CANARY)
    alter(manager, statement)
    with pytest.raises(SecretUnreadable) as caught:
        await manager.vault.give(SCOPE, "B" if "name" in statement else "A")
    assert CANARY.decode() not in str(caught.value)


async def test_with_another_key_nothing_is_opened(manager: Manager) -> None:
    await manager.vault.create(SecretName("A"), CANARY)
    other = Vault(manager.database, b"o" * 32, manager.clock)
    with pytest.raises(SecretUnreadable, match="old key file"):
        await other.give(SCOPE, "A")


async def test_a_secret_is_shown_to_its_own_scope_only(manager: Manager) -> None:
    await manager.vault.create(SecretName("A", "flytesnacks", "development"), CANARY)
    assert await manager.vault.give(SCOPE, "A") == CANARY
    for project, domain in (("flytesnacks", "staging"), ("other", "development"), ("", "development"), ("", "")):
        assert await manager.vault.give(ProjectId(project, domain), "A") is None


def test_the_key_file_is_for_the_managers_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_key(tmp_path / "secrets.key")
    finally:
        os.umask(before)
    assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600
