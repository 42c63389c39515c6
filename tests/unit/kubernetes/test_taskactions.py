"""TaskActions on a made-up API server: made once, adopted, mirrored, found, and never taken for gone by mistake."""

import asyncio
import tracemalloc
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from flyte_manager.domain.actions import Action, ActionHistory, Resource, Run, TaskSummary
from flyte_manager.domain.attempts import Attempt, ErrorKind, Failure, Transition
from flyte_manager.domain.ids import ActionId, AttemptId
from flyte_manager.domain.phases import Kind, Phase
from flyte_manager.domain.ports import LaunchRefused, Standing
from flyte_manager.kubernetes import bodies, status
from flyte_manager.kubernetes.api_errors import Throttled, Unreachable
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.collector import Collector, Limits
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.objects import kept
from flyte_manager.kubernetes.taskactions import KindMissing, NamespaceMissing, NoRoom, StillLeaving, TaskActionObjects
from tests.fakes.clock import NOW, FakeClock
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.orders import BASE, action_id, run_id, task_spec
from tests.unit.kubernetes.test_orders import foreign_spec

FLYTE = "flyte"
SPEC = task_spec().SerializeToString()
API = {"apiVersion": "flyte.org/v1", "kind": "TaskAction"}


def row(name: str = "a0", *, run: str = "r1", phase: Phase = Phase.QUEUED, **changed: Any) -> Action:
    action = Action(
        id=action_id(name, run),
        kind=Kind.TASK,
        phase=phase,
        created_at=NOW,
        parent="" if name == "a0" else "a0",
        task=TaskSummary(type="python", short_name="main"),
        input_uri=f"{BASE}/{run}/inputs.pb",
        base_uri=f"{BASE}/{run}",
        ended_at=NOW if phase.final else None,
    )
    return replace(action, **changed)


def history(action: Action) -> ActionHistory:
    transitions = (Transition(Phase.QUEUED, NOW), Transition(action.phase, NOW))
    attempt = Attempt(AttemptId(action.id, action.attempt), action.phase, NOW, transitions)
    return ActionHistory(action, (attempt,), SPEC)


class World:
    """A cluster with a manager's TaskActions."""

    def __init__(self, api: FakeKubernetes, client: Client) -> None:
        self.api = api
        self.client = client
        self.woken: Counter[ActionId] = Counter()
        self.recorder = Recorder(client, namespace=FLYTE, clock=FakeClock())
        self.objects = TaskActionObjects(
            client=client, namespace=FLYTE, wake=self._wake, recorder=self.recorder, clock=FakeClock()
        )

    def _wake(self, action: ActionId) -> None:
        self.woken[action] += 1

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.objects.run()), asyncio.create_task(self.recorder.run())]
        try:
            async with asyncio.timeout(5):
                await self.objects.synced()
                await self.api.until(lambda: self.api.watching["taskactions"])
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def make(self, action: Action, *, parent: Resource | None = None) -> Resource:
        run = Run(action.id.run, Phase.RUNNING, action.task.name, "", action.base_uri, NOW)
        return await self.objects.make(action, run, spec=SPEC, parent=parent)

    async def made(self, action: Action, *, parent: Resource | None = None) -> Action:
        return replace(action, resource=await self.make(action, parent=parent))

    async def shown(self, action: Action) -> None:
        await self.objects.show(history(action))

    def document(self, name: str = "r1-a0") -> dict[str, Any]:
        return self.api.get("taskactions", name, namespace=FLYTE)

    def foreign(self, name: str = "theirs", **spec: Any) -> Resource:
        """As somebody applies one."""
        document = {**API, "metadata": {"name": name}, "spec": foreign_spec(**spec)}
        made = self.api.put("taskactions", document, namespace=FLYTE)
        return Resource(name, made["metadata"]["uid"])

    def change_status(self, name: str, new: dict[str, Any]) -> None:
        self.api.put("taskactions", {**self.document(name), "status": new}, namespace=FLYTE)

    async def settled(self) -> None:
        """Once all events until now have come: a later object's event has."""
        marker = self.foreign(f"marker-{uuid.uuid4().hex[:8]}", runName=uuid.uuid4().hex[:8])
        await self.api.until(lambda: any(each.uid == marker.uid for each in self.objects.all()))
        self.woken = Counter({key: count for key, count in self.woken.items() if key.run.name.startswith("r")})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with FakeKubernetes() as api, Client(api.access(), qps=0) as client:
        made = World(api, client)
        async with made.following():
            yield made


async def test_the_normal_road_is_one_create_and_a_patch_for_each_phase(world: World) -> None:
    action = await world.made(row())
    for phase in (Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED):
        action = replace(action, phase=phase, ended_at=NOW if phase.final else None)
        assert not world.objects.shows(action)
        await world.shown(action)
        assert world.objects.shows(action)
        await world.shown(action)
    await world.settled()
    assert world.document()["status"]["phase"] == "Succeeded"
    asked = {key: count for key, count in world.api.counts.items() if key[0] not in ("list", "watch")}
    assert asked == {("create", "taskactions"): 1, ("patch", "taskactions/status"): 4}
    assert world.woken == {}


async def test_a_child_is_owned_by_its_parent_and_goes_with_it(world: World) -> None:
    root = await world.made(row())
    child = await world.made(row("b1"), parent=root.resource)
    assert await world.objects.standing(child) is Standing.STANDS
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    await world.api.until(lambda: world.woken[root.id] and world.woken[child.id])
    assert await world.objects.standing(root) is Standing.DELETED
    assert await world.objects.standing(child) is Standing.DELETED


async def test_making_again_after_a_lost_answer_takes_the_one_that_is_there(world: World) -> None:
    world.api.lose_answers("create", "taskactions")
    with pytest.raises(Unreachable):
        await world.make(row())
    first = world.document()["metadata"]["uid"]
    assert await world.make(row()) == Resource("r1-a0", first)
    assert world.api.names("taskactions") == ["r1-a0"]


async def test_one_that_was_made_before_a_crash_is_known_and_adopted(world: World) -> None:
    resource = await world.make(row())
    assert await world.objects.standing(row()) is Standing.NEVER_MADE
    assert world.objects.known(row().id) == resource
    other = World(world.api, world.client)
    assert other.objects.known(row().id) is None
    assert await other.make(row()) == resource


async def test_the_same_run_name_in_another_project_gets_a_second_name(world: World) -> None:
    await world.make(row())
    elsewhere = replace(row(), id=ActionId(replace(run_id(), project="other"), "a0"))
    resource = await world.make(elsewhere)
    assert resource.name == bodies.other_name(elsewhere.id)
    assert world.document(resource.name)["spec"]["project"] == "other"
    assert await world.make(elsewhere) == resource


async def test_one_left_over_from_an_older_database_is_not_taken(world: World) -> None:
    await world.shown(await world.made(row(phase=Phase.SUCCEEDED)))
    assert world.objects.known(row().id) is None
    resource = await world.make(row())
    assert resource.name == bodies.other_name(row().id)


async def test_when_both_names_are_taken_the_action_is_refused_with_the_cure(world: World) -> None:
    for name in (bodies.object_name(row().id), bodies.other_name(row().id)):
        world.foreign(name, runName="r2")
    with pytest.raises(LaunchRefused, match="kubectl delete taskaction r1-a0"):
        await world.make(row())


async def test_one_that_is_being_deleted_is_waited_for(world: World) -> None:
    document = {**API, "metadata": {"name": "r1-a0", "finalizers": ["x/y"]}, "spec": foreign_spec()}
    world.api.put("taskactions", document, namespace=FLYTE)
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    with pytest.raises(StillLeaving, match="r1-a0 is being deleted"):
        await world.make(row())
    assert world.objects.known(row().id) is None


async def test_one_that_is_only_not_in_the_cache_is_not_gone(world: World) -> None:
    resource = await world.make(row())
    blind = World(world.api, world.client)  # does not follow: its cache is empty
    action = row(resource=resource)
    assert await blind.objects.standing(action) is Standing.STANDS
    assert world.api.counts["get", "taskactions"] == 1
    assert await blind.objects.standing(action) is Standing.STANDS
    assert world.api.counts["get", "taskactions"] == 1
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    assert await World(world.api, world.client).objects.standing(action) is Standing.DELETED


async def test_a_server_that_does_not_know_the_kind_says_nothing_of_the_object(world: World) -> None:
    action = row(resource=await world.make(row()))
    world.api.missing.add("taskactions")  # as a server that just began, or a proxy in its place
    blind = World(world.api, world.client)
    with pytest.raises(KindMissing):
        await blind.objects.standing(action)
    world.api.missing.clear()
    assert await blind.objects.standing(action) is Standing.STANDS


async def test_another_object_of_that_name_is_not_the_one_that_was_made(world: World) -> None:
    action = await world.made(row())
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    world.foreign("r1-a0")
    await world.api.until(lambda: world.woken[action.id])
    assert await world.objects.standing(action) is Standing.DELETED
    await world.shown(action)
    assert action.resource is not None
    words = f"action {action.id} is recorded already, with TaskAction r1-a0 of uid {action.resource.uid}"
    assert world.document()["status"]["message"] == words


async def test_while_the_api_server_is_gone_nothing_is_taken_for_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyte_manager.kubernetes.client.TRIES", 1)
    action = await world.made(row())
    await world.api.refuse()
    assert await world.objects.standing(action) is Standing.STANDS
    with pytest.raises(Unreachable):
        await world.objects.standing(replace(action, resource=Resource("r1-a0", "another")))


async def test_one_that_leaves_slowly_counts_as_deleted(world: World) -> None:
    action = await world.made(row())
    document = world.document()
    document["metadata"]["finalizers"] = ["x/y"]
    world.api.put("taskactions", document, namespace=FLYTE)
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    await world.api.until(lambda: world.woken[action.id])
    assert await world.objects.standing(action) is Standing.DELETED


async def test_showing_one_that_is_gone_is_no_error(world: World) -> None:
    action = await world.made(row())
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    await world.shown(action)
    await world.api.until(lambda: world.woken[action.id])
    await world.shown(action)
    assert world.api.names("taskactions") == []


async def test_a_status_that_was_changed_by_others_meanwhile_is_written_over(world: World) -> None:
    action = await world.made(row())
    blind = World(world.api, world.client)
    assert await blind.objects.standing(action) is Standing.STANDS
    world.change_status("r1-a0", {"phase": "Succeeded", "pluginState": "AAEC"})
    await blind.shown(replace(action, phase=Phase.RUNNING))
    assert world.document()["status"]["phase"] == "Running"
    assert world.document()["status"]["pluginState"] == "AAEC"


async def test_a_status_that_somebody_changes_wakes_its_action_once(world: World) -> None:
    action = await world.made(row(phase=Phase.RUNNING))
    await world.shown(action)
    world.change_status("r1-a0", {**world.document()["status"], "phase": "Succeeded"})
    await world.api.until(lambda: world.woken[action.id])
    assert not world.objects.shows(action)
    await world.shown(action)
    assert world.document()["status"]["phase"] == "Running"
    await world.settled()
    assert world.woken == {action.id: 1}


async def test_what_is_shown_is_known_after_a_restart(world: World) -> None:
    action = await world.made(row(phase=Phase.FAILED, failure=Failure(ErrorKind.USER, "ValueError", "boom")))
    await world.shown(action)
    later = World(world.api, world.client)
    async with later.following():
        assert later.objects.shows(action)
        assert not later.objects.shows(replace(action, reason="other"))
        assert later.woken == {}


async def test_one_by_other_hands_is_found_and_wakes_its_action(world: World) -> None:
    resource = world.foreign(runName="r7")
    key = action_id("a0", "r7")
    await world.api.until(lambda: world.woken[key])
    found = world.objects.found(key)
    assert found is not None
    assert (found.resource, found.id, found.problem, found.envs) == (resource, key, "", {"A": "1"})
    recorded = row(run="r7", resource=resource)
    assert await world.objects.standing(recorded) is Standing.STANDS
    await world.shown(recorded)
    assert world.document("theirs")["status"]["phase"] == "Queued"
    await world.settled()
    assert world.woken == {key: 1}


async def test_one_with_damage_is_refused_in_its_status_and_by_an_event(world: World) -> None:
    world.foreign(taskTemplate="%%%")
    await world.api.until(lambda: world.woken[row().id])
    found = world.objects.found(row().id)
    assert found is not None
    assert found.problem.startswith("taskTemplate is not base64")
    await world.objects.refuse(found, "it can't have a row")
    shown = world.document("theirs")["status"]
    assert shown["phase"] == "Failed"
    assert shown["errorState"]["message"] == found.problem
    assert {each["reason"] for each in shown["conditions"]} == {"InvalidSpec"}
    assert world.objects.found(row().id) is None
    await world.api.until(lambda: world.api.objects("events"))
    assert world.api.objects("events")[0]["involvedObject"]["name"] == "theirs"


async def test_a_spec_that_is_mended_before_it_was_read_wakes_again(world: World) -> None:
    world.foreign(taskTemplate="%%%")
    await world.api.until(lambda: world.woken[row().id] == 1)
    world.foreign()
    await world.api.until(lambda: world.woken[row().id] == 2)
    found = world.objects.found(row().id)
    assert found is not None
    assert found.problem == ""


async def test_a_second_one_for_the_same_action_is_refused(world: World) -> None:
    action = await world.made(row())
    world.foreign("copy")
    await world.api.until(lambda: world.woken[action.id])
    assert await world.objects.standing(action) is Standing.STANDS
    assert world.document("copy")["status"]["message"].startswith(
        f"action {action.id} is recorded already, with TaskAct"
    )
    assert "status" not in world.document("r1-a0")


async def test_one_of_ours_without_a_record_tells_so(world: World) -> None:
    await world.make(row(phase=Phase.RUNNING))
    later = World(world.api, world.client)
    async with later.following():
        assert later.woken == {row().id: 1}
        found = later.objects.found(row().id)
    assert found is not None
    assert found.problem.startswith("the record of this action is gone")


async def test_those_that_have_ended_are_found_by_nobody(world: World) -> None:
    resource = world.foreign("old")
    ended = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    world.change_status("old", ended)
    later = World(world.api, world.client)
    async with later.following():
        assert later.woken == {}
        assert later.objects.found(row().id) is None
        assert [each.resource for each in later.objects.all()] == [resource]


async def test_a_missing_definition_is_told_with_the_line_that_installs_it(world: World) -> None:
    world.api.missing.add("taskactions")
    with pytest.raises(KindMissing) as missing:
        await world.make(row())
    assert "`flyte-manager crd | kubectl apply -f -`" in str(missing.value)


async def test_a_missing_namespace_is_told_with_the_line_that_makes_it(world: World) -> None:
    message = 'namespaces "flyte" not found'
    world.api.fail("create", "taskactions", status=404, reason="NotFound", message=message)
    with pytest.raises(NamespaceMissing, match="kubectl create namespace flyte"):
        await world.make(row())


async def test_without_permission_the_action_is_refused_with_the_rule(world: World) -> None:
    world.api.denied.add("create taskactions")
    with pytest.raises(LaunchRefused) as refused:
        await world.make(row())
    rule = '{apiGroups: ["flyte.org"], resources: [taskactions], verbs: [get, list, watch, create, patch, delete]}'
    assert rule in str(refused.value)


async def test_a_policy_refuses_in_its_own_words(world: World) -> None:
    message = 'admission webhook "x.y" denied the request: no runs on Fridays'
    world.api.fail("create", "taskactions", status=403, reason="Forbidden", message=message)
    with pytest.raises(LaunchRefused, match="no runs on Fridays") as refused:
        await world.make(row())
    assert "rule" not in str(refused.value)


async def test_a_quota_that_is_used_up_is_waited_for(world: World) -> None:
    message = 'taskactions.flyte.org "r1-a0" is forbidden: exceeded quota: q, requested: count/taskactions.flyte.org=1'
    world.api.fail("create", "taskactions", status=403, reason="Forbidden", message=message)
    with pytest.raises(NoRoom, match="exceeded quota"):
        await world.make(row())


@pytest.mark.parametrize(("status_code", "reason"), [(422, "Invalid"), (400, "BadRequest"), (413, "TooLarge")])
async def test_what_the_server_finds_wrong_is_told_in_its_words(world: World, status_code: int, reason: str) -> None:
    world.api.fail("create", "taskactions", status=status_code, reason=reason, message="spec.runName: too odd")
    with pytest.raises(LaunchRefused, match=r"refuses the TaskAction: spec\.runName: too odd"):
        await world.make(row())


async def test_trouble_of_the_server_is_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyte_manager.kubernetes.client.TRIES", 1)
    world.api.fail("create", "taskactions", status=503)
    with pytest.raises(Throttled):
        await world.make(row())


async def test_events_lost_by_a_cut_watch_are_made_up_for(world: World) -> None:
    action = await world.made(row())
    world.api.cut_watches()
    world.api.expire()
    world.api.delete("taskactions", "r1-a0", namespace=FLYTE)
    world.foreign(runName="r8")
    await world.api.until(lambda: world.woken[action.id] and world.woken[action_id("a0", "r8")])


async def test_a_finished_tree_is_collected_from_its_root(world: World) -> None:
    root = await world.made(row(phase=Phase.RUNNING))
    child = await world.made(row("b1", phase=Phase.SUCCEEDED), parent=root.resource)
    clock = FakeClock()
    clock.advance(7200)
    collector = Collector(world.objects.all, world.objects.delete, limits=Limits(age=3600), clock=clock)
    await world.shown(child)
    await world.shown(root)
    failed = await world.made(row("b2", phase=Phase.FAILED), parent=root.resource)
    await world.shown(failed)
    assert await collector.sweep() == 1
    assert world.api.names("taskactions") == ["r1-a0", "r1-b2"]
    await world.shown(replace(root, phase=Phase.SUCCEEDED, ended_at=NOW))
    assert await collector.sweep() == 1
    await world.api.until(lambda: not world.api.names("taskactions"))
    await world.settled()
    assert world.woken == {}


async def test_one_that_changed_since_it_was_seen_is_not_collected(world: World) -> None:
    action = await world.made(row(phase=Phase.FAILED))
    await world.shown(action)
    (seen,) = world.objects.all()
    await world.shown(replace(action, phase=Phase.QUEUED, attempt=2))
    await world.objects.delete(seen)
    assert world.api.names("taskactions") == ["r1-a0"]
    await world.objects.delete(replace(seen, name="no-such"))


async def test_a_finished_one_takes_little_memory() -> None:
    made = bodies.body(
        bodies.Making(row(), Run(run_id(), Phase.RUNNING, TaskSummary().name, "", "", NOW), SPEC, None), "x"
    )
    told = status.status(history(row(phase=Phase.SUCCEEDED)))
    count = 2000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        all_kept = []
        for number in range(count):
            metadata = {
                **made["metadata"],
                "name": f"r{number:025d}-a0",
                "uid": str(uuid.uuid4()),
                "resourceVersion": "1",
            }
            spec = {**made["spec"], "runName": f"r{number:025d}"}
            all_kept.append(kept({**API, "metadata": metadata, "spec": spec, "status": told}))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(each.final for each in all_kept)
    assert (after - before) / count < 2048
