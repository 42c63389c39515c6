"""The manager of pods is killed at every step that it makes outside itself, and all ends as if it never was.

Each test runs its story again and again, the manager dying at the first step, at the second one … until one run comes
to its end before that step. Cluster, files, and whoever asks outlive the manager: they ask again.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flyte_manager.domain.ids import ROOT, AttemptId
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import NAMESPACE, Cluster, Fate, Manager, cluster, fresh_database
from tests.fakes.kubelet import PodRun
from tests.fakes.orders import action_id, new_run, new_task, run_id, task_spec
from tests.unit.kubernetes.test_orders import foreign_spec

pytestmark = pytest.mark.chaos

CHILDREN = ("b1", "b2")
DOUBLE_KILLS = 8
TOGETHER = 6
"""stories that are played at the same time: most of it is waiting"""

Story = Callable[[Cluster], Awaitable[None]]
Attempts = dict[str, list[Phase]]
"""action -> the phases in which its attempts ended"""


class Watcher:
    """A client that follows the run, and comes again when it is cut off."""

    def __init__(self) -> None:
        self.phases: dict[str, list[Phase]] = {}

    async def follow(self, made: Manager) -> None:
        async for page in made.reader.follow_run(run_id()):
            for action in page or ():
                seen = self.phases.setdefault(action.id.name, [])
                if seen[-1:] != [action.phase]:
                    seen.append(action.phase)


async def played(story: Story, folder: Path, *kills: int) -> Fate:
    """The story on new files, with the manager dying at these steps."""
    fresh_database(folder)
    fate = Fate(frozenset(kills))
    async with cluster(folder, fate=fate) as made:
        try:
            async with asyncio.timeout(20):
                await story(made)
        except BaseException as error:
            error.add_note(f"killed at {kills}: {fate.deaths}")
            raise
    return fate


async def at_every_step(story: Story, tmp_path: Path) -> int:
    for first in itertools.count(1, TOGETHER):
        turns = range(first, first + TOGETHER)
        fates = await asyncio.gather(*(played(story, tmp_path / str(step), step) for step in turns))
        if ended := [step for step, fate in zip(turns, fates, strict=True) if not fate.deaths]:
            return ended[0]
    raise AssertionError("unreachable")


async def at_two_steps(story: Story, tmp_path: Path, *, steps: int, seed: int) -> None:
    chance = random.Random(seed)
    pairs = [(first := chance.randint(1, steps), first + chance.randint(1, 12)) for _ in range(DOUBLE_KILLS)]
    for at in range(0, DOUBLE_KILLS, TOGETHER):
        plays = (played(story, tmp_path / f"{one} {two}", one, two) for one, two in set(pairs[at : at + TOGETHER]))
        await asyncio.gather(*plays)


async def check(
    made: Cluster, watcher: Watcher, expected: Attempts, *, logs: Callable[[], bool] = lambda: True
) -> None:
    """All that must be true in the end, however often the manager died."""
    rows = {name: await made.until_phase(action_id(name)) for name in expected}
    for name, row in rows.items():
        history = await made.call(lambda manager, row=row: manager.history(row.id))  # type: ignore[misc]
        assert [each.phase for each in history.attempts] == expected[name], name
        assert row.phase is expected[name][-1]
        status = await made.until_shown(row.id)
        assert status["phase"].upper() == row.phase.name
        assert status["attempts"] == len(history.attempts)
    await made.api.until(lambda: not made.kubelet.running())
    assert len(made.api.names("taskactions")) == len(expected)
    attempts = [AttemptId(action_id(name), number) for name in expected for number in range(1, len(expected[name]) + 1)]
    assert set(made.kubelet.pods) <= set(attempts)
    assert set(made.kubelet.pods.values()) <= {1}, made.kubelet.pods
    await made.api.until(lambda: not logs() or all(log_of(made, attempt) for attempt in made.kubelet.pods))
    await made.api.until(lambda: all(watcher.phases.get(name, [None])[-1] is row.phase for name, row in rows.items()))
    for name, phases in watcher.phases.items():
        assert [phase for phase in phases if phase.final] == [rows[name].phase], name


def log_of(made: Cluster, attempt: AttemptId) -> str:
    """What is kept of it, when it tells what the program said."""
    kept = Path(made.base, run_id().name, attempt.action.name, str(attempt.number), "task.log")
    content = kept.read_text() if kept.exists() else ""
    assert "outside this manager" not in content
    return content if f"{attempt.action.name} attempt {attempt.number}" in content else ""


async def family(made: Cluster) -> None:
    """A root with two children; one of them fails once."""

    async def program(pod: PodRun) -> int:
        pod.say(f"{pod.action} attempt {pod.attempt.number}")
        if pod.action == "b2" and pod.attempt.number == 1:
            return pod.fail("not yet")
        if pod.action == ROOT:
            for name in CHILDREN:
                order = new_task(name, spec=task_spec("hello.child", retries=1), base=made.base)
                await made.call(lambda manager, order=order: manager.ledger.enqueue(order))  # type: ignore[misc]
            for name in CHILDREN:
                await made.until_phase(action_id(name))
        return 0

    made.kubelet.program = program
    await made.call(lambda manager: manager.ledger.create_run(new_run(base=made.base)))
    async with watched(made) as watcher:
        await check(
            made,
            watcher,
            {ROOT: [Phase.SUCCEEDED], "b1": [Phase.SUCCEEDED], "b2": [Phase.FAILED, Phase.SUCCEEDED]},
        )
    assert set(made.kubelet.pods.values()) == {1}
    assert len(made.kubelet.pods) == 4


class watched:  # noqa: N801
    """A watcher as long as it is needed."""

    def __init__(self, made: Cluster) -> None:
        self._made = made

    async def __aenter__(self) -> Watcher:
        watcher = Watcher()
        self._task = asyncio.create_task(self._made.call(watcher.follow))
        return watcher

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


async def aborted(made: Cluster) -> None:
    """A root and its child run for ever, until the run is aborted."""

    async def program(pod: PodRun) -> int:
        pod.say(f"{pod.action} attempt {pod.attempt.number}")
        if pod.action == ROOT:
            await made.call(lambda manager: manager.ledger.enqueue(new_task("b1", base=made.base)))
        await asyncio.Event().wait()
        return 0

    made.fate.armed = False  # the way to here is the family's
    made.kubelet.program = program
    made.kubelet.deleted_may_end.clear()
    await made.call(lambda manager: manager.ledger.create_run(new_run(base=made.base)))
    async with watched(made) as watcher:
        await made.until_phase(action_id("b1"), Phase.RUNNING)
        await made.until_shown(action_id("b1"))
        made.fate.armed = True
        await made.call(lambda manager: manager.ledger.abort_run(run_id(), "enough"))
        deaths = []

        async def let_pods_end(manager: Manager) -> bool:
            """Once the present manager follows the logs of all that are to be gone."""
            if {f"r1-{attempt.action.name}-0" for attempt in manager.pods.alive()} <= made.followed():
                deaths.append(len(made.fate.deaths))
                made.kubelet.deleted_may_end.set()
            return bool(deaths)

        await made.until(let_pods_end)
        expected = {ROOT: [Phase.ABORTED], "b1": [Phase.ABORTED]}
        # a manager that dies after the pod was gone, and before it kept its log, can't get it any more
        await check(made, watcher, expected, logs=lambda: deaths == [len(made.fate.deaths)])
    assert (await made.until_phase(action_id())).reason == "enough"


async def aborted_at_once(made: Cluster) -> None:
    """While its TaskAction and its pod are being made; there may never be one."""
    made.kubelet.program = endless
    await made.call(lambda manager: manager.ledger.create_run(new_run(base=made.base)))
    await made.call(lambda manager: manager.ledger.abort_run(run_id(), "enough"))
    assert (await made.until_phase(action_id())).reason == "enough"

    def nothing_is_left() -> bool:
        shown = [(each.get("status") or {}).get("phase") for each in made.api.objects("taskactions")]
        return not made.kubelet.running() and shown in ([], ["Aborted"])

    await made.api.until(nothing_is_left)
    assert set(made.kubelet.pods.values()) <= {1}


async def deleted(made: Cluster) -> None:
    """The root's TaskAction is deleted while it and its child run."""

    async def program(pod: PodRun) -> int:
        if pod.action == ROOT:
            await made.call(lambda manager: manager.ledger.enqueue(new_task("b1", base=made.base)))
        return await endless(pod)

    made.fate.armed = False
    made.kubelet.program = program
    await made.call(lambda manager: manager.ledger.create_run(new_run(base=made.base)))
    await made.until_phase(action_id("b1"), Phase.RUNNING)
    await made.until_shown(action_id("b1"))
    made.fate.armed = True
    made.api.delete("taskactions", "r1-a0", namespace=NAMESPACE)
    root, child = [await made.until_phase(action_id(name)) for name in (ROOT, "b1")]
    assert (root.phase, root.reason) == (Phase.ABORTED, "its TaskAction r1-a0 was deleted")
    assert child.phase is Phase.ABORTED
    await made.api.until(lambda: not made.kubelet.running() and not made.api.names("taskactions"))
    assert set(made.kubelet.pods.values()) == {1}


async def endless(pod: PodRun) -> int:
    await asyncio.Event().wait()
    return pod.attempt.number


async def by_hand(made: Cluster) -> None:
    """A run and a child of it that were applied with kubectl."""

    async def program(pod: PodRun) -> int:
        pod.say(f"{pod.action} attempt {pod.attempt.number}")
        if pod.action == ROOT:
            apply(made, "theirs-too", actionName="b1", parentActionName=ROOT)
            await made.until_phase(action_id("b1"))
        return 0

    made.kubelet.program = program
    apply(made, "theirs")
    await made.until_phase(action_id(), *Phase)
    async with watched(made) as watcher:
        await check(made, watcher, {ROOT: [Phase.SUCCEEDED], "b1": [Phase.SUCCEEDED]})
    assert made.api.names("taskactions") == ["theirs", "theirs-too"]


async def broken(made: Cluster) -> None:
    """One that was applied with kubectl and can't be run."""
    apply(made, "theirs", taskTemplate="%%%")
    await made.until_phase(action_id(), *Phase)
    async with watched(made) as watcher:
        await check(made, watcher, {ROOT: [Phase.FAILED]})
    failure = (await made.until_phase(action_id())).failure
    assert failure is not None
    assert failure.code == "InvalidSpec"
    assert failure.message.startswith("taskTemplate is not base64")
    assert not made.kubelet.pods


def apply(made: Cluster, name: str, **spec: str) -> None:
    base = f"{made.base}/r1"
    content = foreign_spec(inputUri=f"{base}/inputs.pb", runOutputBase=base, **spec)
    document = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": {"name": name}, "spec": content}
    made.api.put("taskactions", document, namespace=NAMESPACE)


@pytest.mark.parametrize("story", [family, aborted, aborted_at_once, deleted, by_hand, broken])
async def test_a_kill_at_any_step_changes_nothing(story: Story, tmp_path: Path) -> None:
    steps = await at_every_step(story, tmp_path)
    assert steps > 4
    await at_two_steps(story, tmp_path, steps=steps, seed=steps)


async def storm(made: Cluster, chance: random.Random) -> None:
    """Requests fail, answers are lost, watches end, versions get too old; never more than a few requests on end."""
    while True:
        match chance.randrange(8):
            case 0:
                made.api.cut_watches()
            case 1:
                made.api.expire()
            case 2:
                made.api.end_watches_after(chance.randint(1, 3))
            case 3 | 4:
                made.api.lose_answers(chance.choice(("create", "patch", "get")), "*")
            case 5:
                made.api.delay(chance.uniform(0, 0.01))
            case _:
                made.api.fail("*", "*", status=chance.choice((500, 503, 504, 429)))
        await asyncio.sleep(chance.uniform(0, 0.02))


@pytest.mark.parametrize("seed", range(4))
async def test_an_api_server_in_trouble_changes_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyte_manager.kubernetes.client.TRIES", 1)
    monkeypatch.setattr("flyte_manager.kubernetes.informer.BACKOFF_SECONDS", (0.01, 0.05))
    monkeypatch.setattr("flyte_manager.kubernetes.log_tail.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("flyte_manager.executor.controller.BACKOFF_FIRST_SECONDS", 0.01)
    monkeypatch.setattr("flyte_manager.executor.controller.BACKOFF_MOST_SECONDS", 0.05)

    async def story(made: Cluster) -> None:
        trouble = asyncio.create_task(storm(made, random.Random(seed)))
        try:
            await family(made)
        finally:
            trouble.cancel()
            await asyncio.wait([trouble])

    chance = random.Random(seed)
    await played(story, tmp_path / "files", *(chance.randint(1, 60) for _ in range(seed)))
