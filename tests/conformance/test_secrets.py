"""What every ports.SecretKeeper does: secrets in the database, and as Kubernetes Secrets."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from flyte_manager.domain.catalog import SecretName
from flyte_manager.domain.errors import Exists, Missing
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import SecretKeeper
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.secrets import KubernetesSecrets
from flyte_manager.store.engine import Database
from flyte_manager.store.vault import Vault
from tests.fakes.clock import NOW, FakeClock
from tests.fakes.kubernetes_api import FakeKubernetes

SCOPE = ProjectId("flytesnacks", "development")
EVERYWHERE = SecretName("")
NAMES = (
    SecretName("KEY"),
    SecretName("KEY", domain="development"),
    SecretName("KEY", "flytesnacks", "development"),
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["database", "kubernetes"])
async def keeper(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[SecretKeeper]:
    if request.param == "database":
        database = Database.open(tmp_path / "flyte.db", clock=clock)
        yield Vault(database, b"k" * 32, clock)
        database.close()
    else:
        async with FakeKubernetes(now=clock) as api, Client(api.access()) as client:
            yield KubernetesSecrets(client, "flyte", clock)


async def listed(keeper: SecretKeeper, scope: SecretName, *, limit: int = 100, offset: int = 0) -> list[SecretName]:
    return [known.id for known in await keeper.page(scope, limit=limit, offset=offset)]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.scope)
async def test_a_secret_is_made_known_changed_and_deleted(
    keeper: SecretKeeper, clock: FakeClock, name: SecretName
) -> None:
    await keeper.create(name, b"one", kind=1)
    known = await keeper.get(name)
    assert (known.id, known.type, known.created_at, known.updated_at) == (name, 1, NOW, NOW)
    clock.advance(60)
    await keeper.update(name, b"two", kind=0)
    known = await keeper.get(name)
    assert (known.id, known.type, known.created_at, known.updated_at) == (name, 0, NOW, clock.now)
    await keeper.delete(name)
    with pytest.raises(Missing, match="'KEY' was not found in"):
        await keeper.get(name)


async def test_a_secret_is_made_once_in_each_scope(keeper: SecretKeeper) -> None:
    for name in NAMES:
        await keeper.create(name, b"one")
        with pytest.raises(Exists, match="'KEY' exists already in"):
            await keeper.create(name, b"two")
    assert sorted(await listed(keeper, EVERYWHERE), key=lambda name: (name.domain, name.project)) == list(NAMES)


async def test_what_is_not_there_is_neither_changed_nor_deleted_nor_told_of(keeper: SecretKeeper) -> None:
    await keeper.create(NAMES[0], b"one")
    for name in (*NAMES[1:], SecretName("key"), SecretName("KEY", "flytesnacks", "staging")):
        for refused in (keeper.update(name, b"two"), keeper.delete(name), keeper.get(name)):
            with pytest.raises(Missing):
                await refused
    assert await listed(keeper, EVERYWHERE) == [NAMES[0]]


async def test_a_task_gets_the_secret_of_the_narrowest_scope(keeper: SecretKeeper) -> None:
    given = [await keeper.give(SCOPE, "KEY")]
    for number, name in enumerate(NAMES):
        await keeper.create(name, f"{number}".encode())
        given.append(await keeper.give(SCOPE, "KEY"))
    assert given[0] is None
    assert len(set(given)) == 4
    assert await keeper.give(ProjectId("other", "development"), "KEY") == given[2]
    assert await keeper.give(ProjectId("flytesnacks", "staging"), "KEY") == given[1]
    await keeper.delete(NAMES[2])
    assert await keeper.give(SCOPE, "KEY") == given[2]


async def test_secrets_are_listed_by_name_in_pages_with_one_more_than_asked_for(keeper: SecretKeeper) -> None:
    for name in "CABED":
        await keeper.create(SecretName(name), b"x")
    assert [name.name for name in await listed(keeper, EVERYWHERE, limit=2)] == ["A", "B", "C"]
    assert [name.name for name in await listed(keeper, EVERYWHERE, limit=2, offset=2)] == ["C", "D", "E"]
    assert [name.name for name in await listed(keeper, EVERYWHERE, limit=2, offset=4)] == ["E"]
    assert await listed(keeper, EVERYWHERE, limit=2, offset=6) == []


async def test_a_scope_lists_what_its_tasks_can_see(keeper: SecretKeeper) -> None:
    strangers = (SecretName("KEY", "other", "development"), SecretName("KEY", domain="staging"))
    for name in (*NAMES, *strangers):
        await keeper.create(name, b"x")
    scope = replace(NAMES[2], name="")
    assert await listed(keeper, scope) == list(NAMES)
    assert set(await listed(keeper, SecretName("", domain="development"))) == {*NAMES, strangers[0]}


@pytest.mark.parametrize("name", ["a", "A.b-C_d", "_x", "9", "x__key__y", "u__org__flyte", "n" * 180])
async def test_any_legal_name_comes_back_as_it_was(keeper: SecretKeeper, name: str) -> None:
    secret = SecretName(name, "flytesnacks", "development", "acme")
    await keeper.create(secret, b"\0\xff")
    for known in (await keeper.get(secret), *await keeper.page(EVERYWHERE, limit=9, offset=0)):
        assert (known.id, known.id.org) == (secret, "acme")
