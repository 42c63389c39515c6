"""The cache of actions over the fake world: what is taken, waited for, kept, and what happens where that fails."""

from dataclasses import replace
from pathlib import Path

import pytest
from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from flyte_manager.blobs.directory import Directory
from flyte_manager.domain.attempts import Attempt
from flyte_manager.domain.caching import CacheEntry, CacheKey, CacheStatus
from flyte_manager.domain.errors import Unavailable
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.lifecycle import NO_RETRIES
from flyte_manager.domain.phases import Phase
from flyte_manager.domain.ports import Launch
from flyte_manager.executor.controller import Done, Requeue
from flyte_manager.ledger.cache import Cache
from flyte_manager.ledger.retention import Retained
from flyte_manager.store import cache
from tests.fakes.clock import FakeClock
from tests.fakes.middle import Middle, told
from tests.fakes.middle import middle as open_middle
from tests.fakes.orders import action_id, new_run, new_task, task_spec

SCOPE = ("flytesnacks", "development")
KEY = CacheKey("call", *SCOPE)
Spec = task_definition_pb2.TaskSpec


def cached(*, serialize: bool = False, max_age: int = 0, outputs: bool = True, retries: int = 0) -> Spec:
    spec = task_spec("hello.cached", outputs=outputs, retries=retries)
    spec.task_template.metadata.discoverable = True
    spec.task_template.metadata.cache_serializable = serialize
    spec.task_template.metadata.cache_max_age.seconds = max_age
    return spec


def content(value: int = 1) -> bytes:
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))
    named = common_pb2.NamedLiteral(name="o0", value=literal)
    return common_pb2.Outputs(literals=[named]).SerializeToString()


async def create(middle: Middle, name: str, spec: Spec, *, overwrite: bool = False, key: str = "call") -> ActionId:
    """A run of a cached task, not looked at yet."""
    run_spec = run_pb2.RunSpec(cache_config=run_pb2.CacheConfig(overwrite_cache=overwrite))
    order = new_run(name, spec=spec, base=middle.blobs.join(*SCOPE))
    await middle.ledger.create_run(replace(order, cache_key=key, run_spec=run_spec.SerializeToString()))
    return action_id(run=name)


async def enqueue(middle: Middle, name: str, spec: Spec, *, parent: str = "a0", key: str = "call") -> ActionId:
    order = new_task(name, spec=spec, parent=parent, base=middle.blobs.join(*SCOPE))
    await middle.ledger.enqueue(replace(order, cache_key=key))
    return action_id(name)


async def turn(middle: Middle, action: ActionId) -> Done | Requeue:
    return await middle.reconciler.reconcile(action)


async def succeed(middle: Middle, action: ActionId, outputs: bytes = content()) -> None:
    """Its process writes its outputs and ends."""
    row = await middle.action(action)
    await middle.blobs.write(f"{row.output_prefix(row.attempt)}/outputs.pb", outputs)
    middle.runtime.finish(row.attempt_id)
    await turn(middle, action)


async def fill(middle: Middle, name: str = "first", spec: Spec | None = None, value: int = 1) -> ActionId:
    """A run whose outputs are kept."""
    action = await create(middle, name, spec or cached())
    await turn(middle, action)
    await succeed(middle, action, content(value))
    assert (await middle.action(action)).cache_status is CacheStatus.POPULATED
    return action


async def last(middle: Middle, action: ActionId) -> Attempt:
    return (await middle.attempts(action))[-1]


async def outputs_of(middle: Middle, action: ActionId) -> bytes | None:
    row = await middle.action(action)
    return await middle.blobs.read(f"{row.output_uri}/outputs.pb")


async def entry(middle: Middle) -> CacheEntry | None:
    return await middle.database.read(lambda connection: cache.get(connection, KEY))


async def is_reserved(middle: Middle) -> bool:
    return await middle.database.read(lambda connection: cache.reservation(connection, KEY)) is not None


def launched(middle: Middle) -> list[str]:
    return [launch.attempt.action.run.name for launch in middle.runtime.launched]


async def test_an_equal_call_takes_the_outputs_and_starts_nothing(middle: Middle, clock: FakeClock) -> None:
    first = await fill(middle)
    second = await create(middle, "second", cached())
    clock.advance(1)
    for _ in range(2):
        assert await turn(middle, second) == Done()
    assert launched(middle) == ["first"]
    row, attempt = await middle.action(second), await last(middle, second)
    assert (row.phase, row.cache_status, row.ended_at) == (Phase.SUCCEEDED, CacheStatus.HIT, clock())
    assert [each.phase for each in attempt.transitions] == [Phase.QUEUED, Phase.SUCCEEDED]
    assert attempt.cache_source == (await middle.action(first)).attempt_id
    assert [event.reason for event in attempt.events] == ["CacheHit"]
    assert not attempt.logs_available
    assert row.output_uri == row.output_prefix(1)
    assert await outputs_of(middle, second) == content()


async def test_outputs_that_are_deleted_while_they_are_taken_are_made_anew(
    middle: Middle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await fill(middle)
    second = await create(middle, "second", cached())
    write = Directory.write

    async def then_delete(self: Directory, uri: str, content: bytes) -> None:
        await write(self, uri, content)
        await Retained(middle.database).begin(first.run, cached=True)

    monkeypatch.setattr(Directory, "write", then_delete)
    with pytest.raises(Unavailable, match="are being deleted, with their run 'first'"):
        await turn(middle, second)
    monkeypatch.undo()
    assert await middle.phase(second) is Phase.QUEUED
    await turn(middle, second)
    assert launched(middle) == ["first", "second"]


async def test_other_keys_other_projects_and_tasks_that_are_not_cached_run(middle: Middle) -> None:
    await fill(middle)
    other = await create(middle, "other", cached(), key="another")
    plain = await create(middle, "plain", cached(), key="")
    for action in (other, plain):
        await turn(middle, action)
    assert launched(middle) == ["first", "other", "plain"]
    assert (await middle.action(other)).cache_status is CacheStatus.MISS
    assert (await middle.action(plain)).cache_status is CacheStatus.DISABLED
    await succeed(middle, plain)
    assert (await middle.action(plain)).cache_status is CacheStatus.DISABLED


async def test_a_failure_is_not_kept_and_its_next_attempt_is(middle: Middle) -> None:
    action = await create(middle, "r", cached(retries=1))
    await turn(middle, action)
    middle.runtime.finish((await middle.action(action)).attempt_id, 1)
    await turn(middle, action)
    assert await entry(middle) is None
    assert (await middle.action(action)).cache_status is CacheStatus.DISABLED
    await turn(middle, action)
    await succeed(middle, action)
    found = await entry(middle)
    assert found is not None
    assert found.source == (await middle.action(action)).attempt_id
    assert [each.cache_status for each in await middle.attempts(action)] == [CacheStatus.MISS, CacheStatus.POPULATED]


async def test_a_crash_after_the_start_does_not_hide_that_it_was_looked_up(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock) as before:
        action = await create(before, "r", cached())
        await before.runtime.launch(Launch((await before.action(action)).attempt_id, args=[], env={}))
        lives = before.runtime._lives
    async with open_middle(tmp_path, clock) as after:
        after.runtime._lives.update(lives)
        after.runtime.finish((await after.action(action)).attempt_id, 1)
        await turn(after, action)
        row = await after.action(action)
        assert (row.phase, row.cache_status) == (Phase.FAILED, CacheStatus.MISS)


async def test_outputs_stay_with_who_took_them(middle: Middle) -> None:
    first = await fill(middle)
    second = await create(middle, "second", cached())
    await turn(middle, second)
    await middle.blobs.delete(f"{(await middle.action(first)).output_uri}/outputs.pb")
    assert await outputs_of(middle, second) == content()


@pytest.mark.parametrize("found", [None, b"", content()[:-1]])
async def test_outputs_that_are_gone_or_damaged_are_a_miss(middle: Middle, found: bytes | None) -> None:
    first = await fill(middle)
    uri = f"{(await middle.action(first)).output_uri}/outputs.pb"
    await middle.blobs.delete(uri)
    if found is not None:
        await middle.blobs.write(uri, found)
    second = await create(middle, "second", cached())
    await turn(middle, second)
    assert await entry(middle) is None
    assert (await middle.action(second)).cache_status is CacheStatus.MISS
    await succeed(middle, second)
    third = await create(middle, "third", cached())
    await turn(middle, third)
    assert launched(middle) == ["first", "second"]
    assert (await middle.action(third)).cache_status is CacheStatus.HIT


async def test_a_task_without_outputs_needs_none(middle: Middle) -> None:
    action = await create(middle, "first", cached(outputs=False))
    await turn(middle, action)
    middle.runtime.finish((await middle.action(action)).attempt_id)
    await turn(middle, action)
    second = await create(middle, "second", cached(outputs=False))
    await turn(middle, second)
    assert (await middle.action(second)).cache_status is CacheStatus.HIT


async def test_a_report_is_copied_too(middle: Middle) -> None:
    spec = cached()
    spec.task_template.metadata.generates_deck.value = True
    action = await create(middle, "first", spec)
    await turn(middle, action)
    await middle.blobs.write(f"{(await middle.action(action)).output_prefix(1)}/report.html", b"<html>")
    await succeed(middle, action)
    second = await create(middle, "second", spec)
    await turn(middle, second)
    report = (await last(middle, second)).report_uri
    assert report.startswith((await middle.action(second)).output_prefix(1))
    assert await middle.blobs.read(report) == b"<html>"


async def test_a_run_that_overwrites_takes_only_what_it_made_itself(middle: Middle) -> None:
    await fill(middle)
    run = await create(middle, "r1", task_spec(), overwrite=True, key="")
    await turn(middle, run)
    one = await enqueue(middle, "one", cached())
    await turn(middle, one)
    assert (await middle.action(one)).cache_status is CacheStatus.SKIPPED
    await succeed(middle, one, content(2))
    assert (await middle.action(one)).cache_status is CacheStatus.POPULATED
    two = await enqueue(middle, "two", cached())
    await turn(middle, two)
    assert (await middle.action(two)).cache_status is CacheStatus.HIT
    assert await outputs_of(middle, two) == content(2)


async def test_the_older_field_of_a_run_spec_overwrites_too(middle: Middle) -> None:
    await fill(middle)
    spec = run_pb2.RunSpec(overwrite_cache=True).SerializeToString()
    order = new_run("again", spec=cached(), base=middle.blobs.join(*SCOPE))
    await middle.ledger.create_run(replace(order, cache_key="call", run_spec=spec))
    await turn(middle, action_id(run="again"))
    assert launched(middle) == ["first", "again"]


async def test_what_is_too_old_is_made_anew_and_then_counts_as_young(middle: Middle, clock: FakeClock) -> None:
    spec = cached(max_age=60)
    await fill(middle, spec=spec)
    for name, seconds, status in (("young", 60, CacheStatus.HIT), ("old", 1, CacheStatus.MISS)):
        clock.advance(seconds)
        action = await create(middle, name, spec)
        await turn(middle, action)
        assert (await middle.action(action)).cache_status is status
    await succeed(middle, action)
    third = await create(middle, "third", spec)
    await turn(middle, third)
    assert (await middle.action(third)).cache_status is CacheStatus.HIT
    clock.advance(10_000_000)
    for name, seconds in (("ageless", 0), ("patient", 2**63 - 1)):
        action = await create(middle, name, cached(max_age=seconds))
        await turn(middle, action)
        assert (await middle.action(action)).cache_status is CacheStatus.HIT


async def test_outputs_that_a_client_put_are_taken(middle: Middle, clock: FakeClock) -> None:
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=1)))
    literals = literals_pb2.LiteralMap(literals={"o0": literal}).SerializeToString()
    put = CacheEntry(KEY, clock(), clock(), literals=literals)
    await Cache(middle.database, clock).put(put, overwrite=False, max_age=None)
    action = await create(middle, "r", cached())
    await turn(middle, action)
    assert await outputs_of(middle, action) == content()
    assert (await last(middle, action)).cache_source is None


async def test_who_can_not_look_it_up_runs(middle: Middle, clock: FakeClock) -> None:
    outside = CacheEntry(KEY, clock(), clock(), output_uri="/etc/passwd")
    await Cache(middle.database, clock).put(outside, overwrite=False, max_age=None)
    action = await create(middle, "r", cached())
    await turn(middle, action)
    attempt = await last(middle, action)
    assert (attempt.phase, attempt.cache_status) == (Phase.RUNNING, CacheStatus.LOOKUP_FAILURE)
    assert [(event.reason, event.warning) for event in attempt.events] == [("CacheLookupFailure", True)]
    await succeed(middle, action)
    assert (await middle.action(action)).cache_status is CacheStatus.POPULATED


async def test_an_attempt_with_damaged_outputs_fails_and_is_not_kept(middle: Middle) -> None:
    action = await create(middle, "r", cached())
    await turn(middle, action)
    await succeed(middle, action, content()[:-1])
    assert (await middle.attempts(action))[0].phase is Phase.FAILED
    assert await entry(middle) is None


async def test_an_end_that_came_too_late_keeps_nothing(middle: Middle, clock: FakeClock) -> None:
    action = await create(middle, "r", cached())
    await turn(middle, action)
    row = await middle.action(action)
    await middle.ledger.abort_run(action.run, "enough")
    kept = CacheEntry(KEY, clock(), clock(), output_uri="/x")
    late = replace(told(row, Phase.SUCCEEDED, clock), cache_status=CacheStatus.POPULATED, keep=kept)
    await middle.ledger.report(late, NO_RETRIES)
    assert await entry(middle) is None
    assert (await middle.action(action)).cache_status is CacheStatus.MISS


@pytest.mark.parametrize("serialize", [False, True])
async def test_without_its_database_nothing_is_started(
    middle: Middle, monkeypatch: pytest.MonkeyPatch, serialize: bool
) -> None:
    """An equal call may run, for all that is known."""
    action = await create(middle, "r", cached(serialize=serialize))

    async def fails(*_: object, **__: object) -> None:
        raise Unavailable(problem="the disk is full")

    for name in ("find", "take"):
        monkeypatch.setattr(Cache, name, fails)
    with pytest.raises(Unavailable, match="the disk is full"):
        await turn(middle, action)
    assert not middle.runtime.launched


async def test_a_crash_between_success_and_its_report_loses_nothing(tmp_path: Path, clock: FakeClock) -> None:
    async with open_middle(tmp_path, clock) as before:
        action = await create(before, "r", cached())
        await turn(before, action)
        row = await before.action(action)
        await before.blobs.write(f"{row.output_prefix(1)}/outputs.pb", content())
        before.runtime.finish(row.attempt_id)
        assert await entry(before) is None
        lives = before.runtime._lives
    async with open_middle(tmp_path, clock) as after:
        after.runtime._lives.update(lives)
        await turn(after, action)
        assert (await after.action(action)).cache_status is CacheStatus.POPULATED
        second = await create(after, "second", cached())
        await turn(after, second)
        assert (await after.action(second)).cache_status is CacheStatus.HIT


async def test_an_action_without_cache_asks_nothing(middle: Middle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs no query and no write more than before there was a cache."""

    def never(*_: object) -> None:
        raise AssertionError("asked")

    for name in ("get", "put", "release", "reservation"):
        monkeypatch.setattr(cache, name, never)
    action = await create(middle, "r", cached(), key="")
    await turn(middle, action)
    await succeed(middle, action)
    assert (await middle.action(action)).phase is Phase.SUCCEEDED


async def test_what_was_kept_of_a_run_can_be_forgotten(middle: Middle) -> None:
    first = await fill(middle)
    await middle.database.write(lambda tx: cache.forget_run(tx, action_id(run="another").run))
    assert await entry(middle) is not None
    await middle.database.write(lambda tx: cache.forget_run(tx, first.run))
    assert await entry(middle) is None


async def test_a_disk_that_can_not_be_read_keeps_nobody_from_running(
    middle: Middle, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> bytes:
        raise OSError(5, "Input/output error")

    kept = CacheEntry(KEY, clock(), clock(), output_uri=middle.blobs.join("somewhere", "outputs.pb"))
    await Cache(middle.database, clock).put(kept, overwrite=False, max_age=None)
    action = await create(middle, "r", cached())
    with monkeypatch.context() as patched:
        patched.setattr(type(middle.blobs), "read", broken)
        await turn(middle, action)
    attempt = await last(middle, action)
    assert (attempt.phase, attempt.cache_status) == (Phase.RUNNING, CacheStatus.LOOKUP_FAILURE)
    assert "Input/output error" in attempt.events[-1].message


async def test_what_came_in_the_place_of_lost_outputs_is_not_dropped_with_them(
    middle: Middle, clock: FakeClock
) -> None:
    cache = Cache(middle.database, clock)
    lost = CacheEntry(KEY, clock(), clock(), output_uri="/lost/outputs.pb")
    await cache.put(lost, overwrite=False, max_age=None)
    await cache.put(replace(lost, output_uri="/new/outputs.pb"), overwrite=True, max_age=None)
    await cache.drop(lost)
    assert (await cache.get(KEY)).output_uri == "/new/outputs.pb"
    await cache.drop(await cache.get(KEY))
    assert await cache.find(KEY) is None
