"""One manager at a time, on a made-up API server and in made-up time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.lease import NAME, Holder, LeaseLost, ManagerLease, Unleasable
from tests.fakes.clock import NOW
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.passing_time import PassingTime

ONE, OTHER = Holder("one", "1111", "aaaa"), Holder("other", "2222", "bbbb")


class World:
    """An API server, time, and managers."""

    def __init__(self, api: FakeKubernetes, client: Client) -> None:
        self.api = api
        self.client = client
        self.time = PassingTime()

    def manager(self, holder: Holder, *, clock_is_off_by: float = 0.0) -> ManagerLease:
        return ManagerLease(
            self.client,
            namespace="flyte",
            holder=holder,
            clock=lambda: NOW + timedelta(seconds=self.time.now + clock_is_off_by),
            elapsed=self.time,
            sleep=self.time.sleep,
        )

    @asynccontextmanager
    async def running(self, work: Coroutine[Any, Any, None]) -> "AsyncIterator[asyncio.Task[None]]":
        """The work as a task, once it sleeps or has ended; it is cancelled at the end."""
        task = asyncio.create_task(work)
        await self.time.idle(task)
        yield task
        task.cancel()
        await asyncio.wait([task])

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.api.get("leases", NAME, namespace="flyte")["spec"]
        return spec

    def hand_over(self, holder: str) -> None:
        """As if somebody else had written it."""
        lease = self.api.get("leases", NAME, namespace="flyte")
        self.api.put("leases", lease | {"spec": lease["spec"] | {"holderIdentity": holder}}, namespace="flyte")


def held(lease: ManagerLease) -> bool:
    """Read anew each time, which mypy can't know of a property."""
    return lease.held


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with FakeKubernetes() as api, Client(api.access(), qps=0) as client:
        yield World(api, client)


@contextmanager
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged within, as it comes."""
    caplog.clear()
    lines: list[str] = []
    with caplog.at_level(logging.INFO):
        yield lines
    lines += [record.getMessage() for record in caplog.records]


async def test_a_free_lease_is_taken_at_once(world: World) -> None:
    lease = world.manager(ONE)
    assert not held(lease)
    await lease.acquire()
    assert held(lease)
    assert world.spec() | {"renewTime": "", "acquireTime": ""} == {
        "holderIdentity": "one_1111_aaaa",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 0,
        "renewTime": "",
        "acquireTime": "",
    }
    assert world.spec()["renewTime"] == "2026-11-23T09:00:00.000000Z"


async def test_who_comes_second_waits_until_the_first_gives_it_back(world: World) -> None:
    first, second = world.manager(ONE), world.manager(OTHER)
    await first.acquire()
    async with world.running(first.hold()), world.running(second.acquire()) as waiting:
        await world.time.pass_by(120)
        assert (held(first), held(second), waiting.done()) == (True, False, False)
    await first.release()
    assert not held(first)
    assert world.spec()["holderIdentity"] == ""
    await second.acquire()
    assert held(second)
    assert world.spec()["leaseTransitions"] == 1


@pytest.mark.parametrize("hours", [-5, 0, 5])
async def test_the_lease_of_a_dead_holder_is_taken_when_it_has_stood_still_whatever_the_clocks_say(
    world: World, hours: int
) -> None:
    dead, next_one = world.manager(ONE, clock_is_off_by=3600.0 * hours), world.manager(OTHER)
    await dead.acquire()
    async with world.running(next_one.acquire()) as waiting:
        await world.time.pass_by(14)
        assert not waiting.done()
        assert not held(dead)
        await world.time.pass_by(2)
        assert waiting.done()
    assert held(next_one)
    assert world.spec()["holderIdentity"] == "other_2222_bbbb"


async def test_a_waiting_manager_starts_to_count_anew_with_each_renewal(world: World) -> None:
    first, second = world.manager(ONE), world.manager(OTHER)
    await first.acquire()
    async with world.running(second.acquire()) as waiting:
        await world.time.pass_by(10)
        async with world.running(first.hold()):
            await world.time.pass_by(5)
        await world.time.pass_by(13)
        assert not waiting.done()
        await world.time.pass_by(3)
        assert waiting.done()


async def test_after_a_crash_the_same_database_takes_it_at_once_and_its_copy_waits(world: World) -> None:
    await world.manager(ONE).acquire()
    copy = world.manager(Holder("one", "1111", "cccc"))
    async with world.running(copy.acquire()) as waiting:
        await world.time.pass_by(5)
        assert not waiting.done()
    restarted = world.manager(Holder("new-pod", "1111", "aaaa"))
    await restarted.acquire()
    assert held(restarted)
    assert world.spec()["holderIdentity"] == "new-pod_1111_aaaa"


@pytest.mark.parametrize("before", ["never made", "given back"])
async def test_of_many_that_start_together_one_has_it(world: World, before: str) -> None:
    if before == "given back":
        earlier = world.manager(ONE)
        await earlier.acquire()
        await earlier.release()
    managers = [world.manager(Holder(f"m{number}", f"{number}", "x")) for number in range(10)]
    tasks = [asyncio.create_task(manager.acquire()) for manager in managers]
    for task in tasks:
        await world.time.idle(task)
    assert sum(held(manager) for manager in managers) == sum(task.done() for task in tasks) == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_without_an_answer_work_stops_before_others_may_begin_and_goes_on_after_the_next_renewal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    with said(caplog) as lines:
        async with world.running(lease.hold()) as holding:
            await world.time.pass_by(5)
            await world.api.refuse()
            await world.time.pass_by(11.9)
            assert held(lease)
            await world.time.pass_by(0.2)
            assert not held(lease)
            await world.time.pass_by(40)
            assert not holding.done()
            await world.api.listen()
            await world.time.pass_by(1)
            assert held(lease)
            assert not holding.done()
    assert [line for line in lines if "could not be renewed" in line and "can't be reached" in line]
    assert "nothing is started or stopped" in lines[-2]
    assert lines[-1] == "the Lease flyte/flyte-manager is renewed: work goes on"
    assert len(lines) == 3


@pytest.mark.parametrize("holder", ["thief_3333_dddd", ""])
async def test_a_lease_that_another_took_is_lost_for_good(world: World, holder: str) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    async with world.running(lease.hold()) as holding:
        world.hand_over(holder)
        await world.time.pass_by(5)
        assert holding.done()
        with pytest.raises(LeaseLost, match=r"held by another manager now \((thief_3333_dddd|nobody)\)"):
            await holding
    assert not held(lease)
    await lease.release()
    assert world.spec()["holderIdentity"] == holder


async def test_a_renewal_whose_answer_was_lost_is_found_again(world: World) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    async with world.running(lease.hold()) as holding:
        world.api.lose_answers("update", "leases")
        await world.time.pass_by(7)
        await world.time.pass_by(60)
        assert (held(lease), holding.done()) == (True, False)


async def test_a_lease_that_somebody_changed_or_deleted_is_kept(world: World) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    async with world.running(lease.hold()) as holding:
        found = world.api.get("leases", NAME, namespace="flyte")
        world.api.put("leases", found | {"metadata": found["metadata"] | {"labels": {"a": "b"}}}, namespace="flyte")
        await world.time.pass_by(20)
        world.api.delete("leases", NAME, namespace="flyte")
        await world.time.pass_by(20)
        assert (held(lease), holding.done()) == (True, False)
    assert world.spec()["holderIdentity"] == "one_1111_aaaa"


async def test_a_renewal_counts_from_before_it_was_sent(world: World) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    async with world.running(lease.hold()):
        world.api.delay(0.2)
        renewing = asyncio.create_task(world.time.pass_by(5))
        await world.api.until(lambda: world.api.counts["update", "leases"] == 1)
        world.time.now += 3  # while the answer is under way
        await renewing
        assert held(lease)
        world.time.now = 16.9
        assert held(lease)
        world.time.now = 17.1
        assert not held(lease)


async def test_who_waits_says_for_whom_at_first_and_every_half_minute(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = world.manager(ONE), world.manager(OTHER)
    await first.acquire()
    with said(caplog) as lines:
        async with world.running(first.hold()), world.running(second.acquire()):
            await world.time.pass_by(65)
    assert len(lines) == 3
    assert all("flyte/flyte-manager is held by one_1111_aaaa" in line for line in lines)


async def test_a_lease_is_given_back_even_when_its_last_renewal_was_cut_off(world: World) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    world.hand_over("one_1111_aaaa")  # a newer version, which the manager never saw
    found = world.api.get("leases", NAME, namespace="flyte")
    world.api.put("leases", found | {"metadata": found["metadata"] | {"labels": {"a": "b"}}}, namespace="flyte")
    await lease.release()
    assert world.spec()["holderIdentity"] == ""


async def test_a_lease_that_cannot_be_given_back_is_told_and_no_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lease = world.manager(ONE)
    await lease.acquire()
    world.api.fail("get", "leases", status=403, reason="Forbidden", message="no")
    with said(caplog) as lines:
        await lease.release()
        await lease.release()
    assert lines == ["the Lease flyte/flyte-manager was not given back: no"]


async def test_without_permission_the_rule_is_told(world: World) -> None:
    world.api.denied.add("get leases")
    with pytest.raises(Unleasable, match=r"resources: \[leases\], verbs: \[get, create, update\]"):
        await world.manager(ONE).acquire()


async def test_without_the_namespace_the_way_to_make_it_is_told(world: World) -> None:
    world.api.fail("create", "leases", status=404, reason="NotFound", message='namespaces "flyte" not found')
    with pytest.raises(Unleasable, match=r"`kubectl create namespace flyte`"):
        await world.manager(ONE).acquire()


def test_the_same_lock_file_is_the_same_proof_and_another_is_not(tmp_path: Path) -> None:
    one, other = tmp_path / "flyte.db.lock", tmp_path / "copy.db.lock"
    one.touch()
    other.touch()
    ours = Holder.here("1111", one)
    assert ours.had(Holder.here("1111", one).identity)
    assert not ours.had(Holder.here("1111", other).identity)
    assert not ours.had(Holder.here("2222", one).identity)
    assert not ours.had("")
