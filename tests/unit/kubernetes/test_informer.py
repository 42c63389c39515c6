"""The cache that list and watch keep, over all that may happen to them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from flyte_manager.kubernetes import client as client_module
from flyte_manager.kubernetes import informer as module
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.credentials import NoKubernetes, Pair
from flyte_manager.kubernetes.informer import Informer
from flyte_manager.kubernetes.resources import PODS, Resource
from tests.fakes.kubernetes_api import FakeKubernetes

NAMESPACE = "flyte"
Told = tuple[str, str | None, str | None]


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.02, 0.05))
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.05)
    monkeypatch.setattr(client_module, "LONGEST_WAIT_SECONDS", 0.01)


def pod(name: str, value: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": NAMESPACE, **more}, "spec": {"value": value}}


class World:
    """An informer that keeps a pod's value; pods of the value `none` are none of ours."""

    def __init__(self, client: Client, **given: Any) -> None:
        self.client = client
        self.told: list[Told] = []
        self.informer = Informer(
            client,
            PODS,
            namespace=NAMESPACE,
            keep=self.keep,
            changed=lambda *told: self.told.append(told),
            **given,
        )

    def keep(self, found: Mapping[str, Any]) -> str | None:
        value: str = found["spec"]["value"]
        return None if value == "none" else value

    @property
    def pods(self) -> dict[str, str]:
        return {name: self.informer.get(name) or "" for name in self.informer._entries}


@asynccontextmanager
async def following(api: FakeKubernetes, **given: Any) -> AsyncIterator[World]:
    async with Client(api.access()) as client:
        world = World(client, **given)
        task = asyncio.create_task(world.informer.run())
        try:
            async with asyncio.timeout(5):
                await world.informer.synced.wait()
            await api.until(lambda: api.watching["pods"])
            yield world
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_what_is_there_and_what_happens_is_known(api: FakeKubernetes) -> None:
    api.put("pods", pod("a", "1"))
    api.put("pods", pod("other", "none"))
    async with following(api) as world:
        assert world.pods == {"a": "1"}
        assert list(world.informer.values()) == ["1"]
        assert len(world.informer) == 1
        api.put("pods", pod("b", "1"))
        api.put("pods", pod("a", "2"))
        api.delete("pods", "b")
        await api.until(lambda: len(world.told) == 4)
        assert world.told == [("a", None, "1"), ("b", None, "1"), ("a", "1", "2"), ("b", "1", None)]
        assert world.pods == {"a": "2"}


async def test_one_that_becomes_none_of_ours_is_gone_for_us(api: FakeKubernetes) -> None:
    api.put("pods", pod("a", "1"))
    async with following(api) as world:
        api.put("pods", pod("a", "none"))
        await api.until(lambda: world.told[1:] == [("a", "1", None)])
        assert world.informer.get("a") is None


async def test_selectors_choose(api: FakeKubernetes) -> None:
    api.put("pods", pod("a", "1", labels={"x": "y"}))
    api.put("pods", pod("b", "1"))
    async with following(api, selector="x=y") as world:
        assert world.pods == {"a": "1"}
        api.put("pods", pod("a", "2", labels={"x": "z"}))
        await api.until(lambda: not world.pods)


async def test_many_objects_are_listed_by_pages(api: FakeKubernetes) -> None:
    for number in range(client_module.PAGE + 1):
        api.put("pods", pod(f"p{number:04}", "1"))
    async with following(api) as world:
        assert len(world.informer) == client_module.PAGE + 1
        assert api.counts["list", "pods"] == 2


async def test_a_clean_end_goes_on_where_it_ended(api: FakeKubernetes, caplog: pytest.LogCaptureFixture) -> None:
    api.end_watches_after(1)
    async with following(api) as world:
        for number in range(10):
            api.put("pods", pod("a", str(number)))
        await api.until(lambda: world.pods.get("a") == "9")
        assert [new for _, _, new in world.told] == [str(number) for number in range(10)]
        assert api.counts["list", "pods"] == 1
        assert api.counts["watch", "pods"] >= 10
        assert world.informer.cut_since is None
    assert not caplog.records


async def test_a_watch_that_ends_at_once_again_and_again_is_no_busy_loop(api: FakeKubernetes) -> None:
    """As behind a proxy that answers for the server."""
    watches = 0

    async def empty(*_: Any, **__: Any) -> AsyncGenerator[dict[str, Any], None]:
        nonlocal watches
        watches += 1
        for _ in ():
            yield {}

    async with Client(api.access()) as client:
        world, watch = World(client), client.watch
        client.watch = empty  # type: ignore[method-assign]
        task = asyncio.create_task(world.informer.run())
        await asyncio.sleep(0.4)
        assert 2 <= watches <= 40
        client.watch = watch  # type: ignore[method-assign]
        api.put("pods", pod("a", "1"))
        await api.until(lambda: world.pods == {"a": "1"})
        task.cancel()
        await asyncio.wait([task])


async def test_bookmarks_carry_the_version_on(api: FakeKubernetes) -> None:
    async with following(api) as world:
        api.put("secrets", {"metadata": {"name": "s", "namespace": NAMESPACE}})
        api.bookmark()
        newest = api.objects("secrets")[0]["metadata"]["resourceVersion"]
        await api.until(lambda: world.informer._version == newest)
        assert world.told == []


@pytest.mark.parametrize("how", ["cut", "refuse"])
async def test_nothing_is_lost_while_the_server_is_away(
    api: FakeKubernetes, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a", "b", "c"):
        api.put("pods", pod(name, "1"))
    async with following(api) as world:
        await api.until(lambda: world.informer._worked)
        if how == "refuse":
            await api.refuse()
            await api.until(lambda: world.informer.cut_since is not None)
            assert api.url in world.informer.trouble
            await asyncio.sleep(0.2)
        else:
            api.cut_watches()
        api.put("pods", pod("a", "2"))
        api.delete("pods", "b")
        api.put("pods", pod("d", "1"))
        await api.listen()
        await api.until(lambda: world.pods == {"a": "2", "c": "1", "d": "1"})
        assert world.told[3:] == [("a", "1", "2"), ("b", "1", None), ("d", None, "1")]
        assert world.informer.cut_since is None
        assert world.informer.trouble == ""
        assert api.counts["list", "pods"] == 1
    levels = [(record.levelname, record.getMessage().partition(",")[0][:22]) for record in caplog.records]
    assert levels == [("WARNING", "following pods is cut "), ("INFO", "following pods again a")]


async def test_a_quiet_watch_that_stands_again_works(api: FakeKubernetes) -> None:
    async with following(api) as world:
        await api.refuse()
        await api.until(lambda: world.informer.cut_since is not None)
        await api.listen()
        await api.until(lambda: world.informer.cut_since is None)


async def test_a_version_that_is_too_old_means_to_list_and_tells_what_was_missed(
    api: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        api.put("pods", pod(name, "1"))
    async with following(api) as world:
        await api.refuse()
        await api.until(lambda: world.informer.cut_since is not None)
        api.delete("pods", "a")
        api.put("pods", pod("b", "2"))
        api.delete("pods", "c")
        api.put("pods", pod("c", "3"))
        api.expire()
        caplog.clear()
        await api.listen()
        await api.until(lambda: world.pods == {"b": "2", "c": "3"})
        missed = world.told[3:]
        assert sorted(missed, key=str) == sorted(
            [("b", "1", "2"), ("c", "1", None), ("c", None, "3"), ("a", "1", None)], key=str
        )
        assert api.counts["list", "pods"] == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_list_that_gets_too_old_between_pages_begins_anew(api: FakeKubernetes) -> None:
    api.put("pods", pod("a", "1"))
    api.fail("list", "pods", status=410, reason="Expired", times=2)
    async with following(api) as world:
        assert world.pods == {"a": "1"}
        assert api.counts["list", "pods"] == 3


async def test_the_answer_of_our_own_request_is_known_at_once(api: FakeKubernetes) -> None:
    api.delay(0.05)
    async with following(api) as world:
        world.informer.put(await world.client.create(PODS, pod("a", "1")))
        assert world.pods == {"a": "1"}
        patched = await world.client.patch(PODS, "a", {"spec": {"value": "2"}}, namespace=NAMESPACE)
        world.informer.put(patched)
        assert world.pods == {"a": "2"}
        api.bookmark()
        await api.until(lambda: world.informer._version == patched["metadata"]["resourceVersion"])
        assert world.told == [("a", None, "1"), ("a", "1", "2")]


async def test_an_older_event_takes_nothing_back(api: FakeKubernetes) -> None:
    async with Client(api.access()) as client:
        world = World(client)
        old = await client.create(PODS, pod("a", "1"))
        new = await client.patch(PODS, "a", {"spec": {"value": "2"}}, namespace=NAMESPACE)
        world.informer.put(new)
        for stale in (old, new):
            world.informer._hear({"type": "MODIFIED", "object": stale})
            world.informer.put(stale)
        assert world.told == [("a", None, "2")]


async def test_a_list_that_began_before_takes_nothing_back(api: FakeKubernetes) -> None:
    """W27: the list is of an earlier moment than the object that was made meanwhile."""
    for number in range(client_module.PAGE + 1):
        api.put("pods", pod(f"p{number:04}", "none"))
    async with Client(api.access()) as client:
        world = World(client)
        pages = client.pages

        async def late(resource: Resource, **given: Any) -> AsyncIterator[Any]:
            async for page in pages(resource, **given):
                if not world.informer.get("made"):
                    world.informer.put(await client.create(PODS, pod("made", "1")))
                yield page

        client.pages = late  # type: ignore[method-assign]
        await world.informer._list()
        assert world.pods == {"made": "1"}
        assert world.told == [("made", None, "1")]


async def test_what_was_put_and_is_gone_before_the_list_is_gone(api: FakeKubernetes) -> None:
    async with Client(api.access()) as client:
        world = World(client)
        world.informer.put(await client.create(PODS, pod("a", "1")))
        api.delete("pods", "a")
        await world.informer._list()
        assert world.told == [("a", None, "1"), ("a", "1", None)]


async def test_an_answer_after_the_event_of_its_deletion_makes_no_ghost(api: FakeKubernetes) -> None:
    async with following(api) as world:
        late = await world.client.create(PODS, pod("a", "1"))
        api.delete("pods", "a")
        await api.until(lambda: world.told == [("a", None, "1"), ("a", "1", None)])
        world.informer.put(late)
        assert world.pods == {}
        assert len(world.told) == 2


async def test_one_made_anew_under_the_same_name_is_another(api: FakeKubernetes) -> None:
    async with following(api) as world:
        first = await world.client.create(PODS, pod("a", "1"))
        api.delete("pods", "a")
        second = await world.client.create(PODS, pod("a", "2"))
        world.informer.put(second)
        await api.until(lambda: world.informer._version == second["metadata"]["resourceVersion"])
        assert world.pods == {"a": "2"}
        world.informer.put(first)
        assert world.pods == {"a": "2"}


async def test_the_last_state_of_what_is_deleted_is_told_first(api: FakeKubernetes) -> None:
    async with Client(api.access()) as client:
        world = World(client)
        made = await client.create(PODS, pod("a", "1"))
        world.informer.put(made)
        last = {**made, "spec": {"value": "2"}, "metadata": {**made["metadata"], "resourceVersion": "999999"}}
        world.informer._hear({"type": "DELETED", "object": last})
        assert world.told == [("a", None, "1"), ("a", "1", "2"), ("a", "2", None)]


async def test_a_missing_permission_is_logged_once_with_its_rule(
    api: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    api.put("pods", pod("a", "1"))
    api.denied.add("watch pods")
    async with Client(api.access()) as client:
        world = World(client)
        task = asyncio.create_task(world.informer.run())
        await api.until(lambda: api.counts["watch", "pods"] >= 4)
        assert "the manager needs permission to watch pods" in world.informer.trouble
        assert len(caplog.records) == 1
        assert world.informer.trouble in caplog.text
        assert api.counts["list", "pods"] == 1
        api.denied.clear()
        await api.until(lambda: world.informer.cut_since is None)
        task.cancel()
        await asyncio.wait([task])


async def test_an_object_that_cannot_be_read_ends_nothing_and_is_shown_with_its_trace(
    api: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(api) as world:
        api.put("pods", {"metadata": {"name": "odd", "namespace": NAMESPACE}})
        await api.until(lambda: world.informer.cut_since is not None)
        await api.until(lambda: api.counts["list", "pods"] >= 4)
        traced = [record for record in caplog.records if record.exc_info]
        assert len(traced) == len(caplog.records) == 1
        api.delete("pods", "odd")
        api.put("pods", pod("a", "1"))
        await api.until(lambda: world.pods == {"a": "1"} and world.informer.cut_since is None)


class Plugin:
    """Credentials that can't be had for a while."""

    broken = False

    async def header(self, *, refresh: bool = False) -> str | None:  # noqa: ARG002
        if self.broken:
            raise NoKubernetes(problem="the credential plugin aws ended with code 255")
        return None

    def pair(self) -> Pair | None:
        return None


async def test_credentials_that_cannot_be_had_for_a_while_are_an_outage(api: FakeKubernetes) -> None:
    plugin = Plugin()
    async with Client(replace(api.access(), credentials=plugin)) as client:
        world = World(client)
        task = asyncio.create_task(world.informer.run())
        await api.until(lambda: api.watching["pods"])
        plugin.broken = True
        api.cut_watches()
        await api.until(lambda: "aws ended with code 255" in world.informer.trouble)
        plugin.broken = False
        api.put("pods", pod("a", "1"))
        await api.until(lambda: world.pods == {"a": "1"})
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])


async def test_a_watch_that_says_nothing_is_begun_anew(api: FakeKubernetes) -> None:
    """As behind a proxy that holds the connection when the server is gone."""
    async with Client(api.access(), seconds=0.2) as client:
        world = World(client, watch_seconds=(1, 1))
        send = client._send

        def silent(verb: str, *args: Any, query: dict[str, str] | None = None, **given: Any) -> Any:
            if verb == "watch" and not api.counts["watch", "pods"]:
                query = {**(query or {}), "timeoutSeconds": "600", "fieldSelector": "metadata.name=nothing"}
            return send(verb, *args, query=query, **given)

        client._send = silent  # type: ignore[method-assign,assignment]
        task = asyncio.create_task(world.informer.run())
        await api.until(lambda: api.watching["pods"])
        api.put("pods", pod("a", "1"))
        await api.until(lambda: world.pods == {"a": "1"}, seconds=8)
        task.cancel()
        await asyncio.wait([task])


async def test_the_wait_is_short_again_after_a_watch_that_worked(api: FakeKubernetes) -> None:
    async with following(api) as world:
        await api.refuse()
        await api.until(lambda: world.informer._wait == module.BACKOFF_SECONDS[1])
        await api.listen()
        await api.until(lambda: world.informer.cut_since is None)
        assert world.informer._wait == module.BACKOFF_SECONDS[0]


async def test_a_server_that_is_back_is_listed_at_once(api: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began anew finds the version too old: the wait from when it was away has nothing to do with that."""
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.001, 600))
    waits: list[float] = []
    async with following(api) as world:
        pages = world.client.pages

        def noted(*given: Any, **more: Any) -> Any:
            waits.append(world.informer._wait)
            return pages(*given, **more)

        monkeypatch.setattr(world.client, "pages", noted)
        api.fail("watch", "pods", times=8)
        api.expire()
        api.cut_watches()
        await api.until(lambda: waits)
        assert waits == [0.002]
