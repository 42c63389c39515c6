"""Bounds of tasks that are pods, over a made-up API server: as with processes, and the pod goes."""

import asyncio

from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import Cluster
from tests.fakes.kubelet import PodRun
from tests.fakes.orders import action_id, bounded
from tests.unit.executor.stories import create, endless, kept_log, no_pods_run, phases

ROOT = action_id()


async def test_a_pod_that_runs_too_long_is_deleted_and_keeps_its_log(made: Cluster) -> None:
    made.kubelet.program = endless
    await create(made, spec=bounded(runtime=0.5))
    root = await made.until_phase(ROOT, Phase.TIMED_OUT)
    assert root.failure is not None
    assert root.failure.code == "MAX_RUNTIME_EXCEEDED"
    assert root.failure.message == "the task ran longer than its max_runtime of 0.5 s"
    await no_pods_run(made)
    assert (await made.until_shown(ROOT))["phase"] == "TimedOut"
    await made.api.until(lambda: "a0 attempt 1" in kept_log(made))


async def test_the_next_attempt_has_a_pod_of_its_own_when_the_last_one_is_gone(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        return await endless(pod) if pod.attempt.number == 1 else 0

    made.kubelet.program = program
    await create(made, spec=bounded(runtime=0.5, retries=1))
    await made.until_phase(ROOT, Phase.SUCCEEDED)
    assert await phases(made) == [Phase.TIMED_OUT, Phase.SUCCEEDED]
    assert made.kubelet.pods == {AttemptId(ROOT, 1): 1, AttemptId(ROOT, 2): 1}


async def test_a_pod_that_finds_no_node_in_time_is_given_up_with_the_schedulers_words(made: Cluster) -> None:
    made.kubelet.full = "0/3 nodes are available: 3 Insufficient cpu."
    await create(made, spec=bounded(queued=0.5))
    root = await made.until_phase(ROOT, Phase.TIMED_OUT)
    assert root.failure is not None
    assert root.failure.code == "QUEUED_TIMEOUT_EXCEEDED"
    assert "0/3 nodes are available" in root.failure.message
    await no_pods_run(made)


async def test_a_deadline_counts_over_pods(made: Cluster) -> None:
    async def program(pod: PodRun) -> int:
        await asyncio.sleep(0.2)
        return pod.fail("not yet")

    made.kubelet.program = program
    await create(made, spec=bounded(deadline=1, retries=99))
    root = await made.until_phase(ROOT, Phase.TIMED_OUT)
    assert root.failure is not None
    assert root.failure.code == "DEADLINE_EXCEEDED"
    assert (await phases(made))[-2:] == [Phase.FAILED, Phase.TIMED_OUT]
    await no_pods_run(made)
