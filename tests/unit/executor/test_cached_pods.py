"""The cache where attempts are pods: what is kept makes no pod, and TaskActions tell of it."""

import asyncio
from dataclasses import replace
from pathlib import Path

from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2

from flyte_manager.domain.caching import CacheStatus
from flyte_manager.domain.phases import Phase
from tests.fakes.cluster import Cluster
from tests.fakes.kubelet import PodRun
from tests.fakes.orders import action_id, new_run, task_spec
from tests.unit.executor.stories import apply

ONE = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=1)))
OUTPUTS = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name="o0", value=ONE)]).SerializeToString()


async def writes(pod: PodRun) -> int:
    pod.write("outputs.pb", OUTPUTS)
    return 0


async def create(made: Cluster, name: str, *, serialize: bool = False) -> None:
    spec = task_spec("hello.cached", outputs=True)
    spec.task_template.metadata.discoverable = True
    spec.task_template.metadata.cache_serializable = serialize
    order = replace(new_run(name, spec=spec, base=made.base), cache_key="call")
    await made.call(lambda manager: manager.ledger.create_run(order))


def outputs(made: Cluster, run: str) -> bytes:
    return Path(made.base, run, "a0/1/outputs.pb").read_bytes()


async def test_a_hit_makes_no_pod_and_its_taskaction_says_so(made: Cluster) -> None:
    made.kubelet.program = writes
    for name, status in (("r1", CacheStatus.POPULATED), ("r2", CacheStatus.HIT)):
        await create(made, name)
        await made.until_phase(action_id(run=name), Phase.SUCCEEDED)
        shown = await made.until_shown(action_id(run=name))
        assert (shown["phase"], shown["cacheStatus"]) == ("Succeeded", status)
        assert outputs(made, name) == OUTPUTS
    assert made.api.counts["create", "pods"] == 1


async def test_what_was_looked_up_is_told_of_a_pod_that_waits_and_of_one_that_fails(made: Cluster) -> None:
    async def fails(pod: PodRun) -> int:
        return pod.fail("no")

    made.kubelet.program = fails
    await create(made, "r1")
    failed = await made.until_phase(action_id(run="r1"), Phase.FAILED)
    assert failed.cache_status is CacheStatus.MISS
    made.kubelet.full = "no node fits"
    await create(made, "r2")
    await made.until_phase(action_id(run="r2"), Phase.WAITING_FOR_RESOURCES)
    shown = await made.until_shown(action_id(run="r2"))
    assert shown["cacheStatus"] == CacheStatus.MISS


async def test_an_order_by_kubectl_is_cached_by_its_key(made: Cluster) -> None:
    made.kubelet.program = writes
    await create(made, "r1")
    await made.until_phase(action_id(run="r1"), Phase.SUCCEEDED)
    apply(made, runName="theirs", cacheKey="call")
    row = await made.until_phase(action_id(run="theirs"), Phase.SUCCEEDED)
    assert row.cache_status is CacheStatus.HIT
    assert made.api.counts["create", "pods"] == 1


async def test_who_waits_for_a_pod_goes_on_waiting_after_a_crash(made: Cluster) -> None:
    done = asyncio.Event()

    async def program(pod: PodRun) -> int:
        await done.wait()
        return await writes(pod)

    made.kubelet.program = program
    await create(made, "r1", serialize=True)
    await made.until_phase(action_id(run="r1"), Phase.RUNNING)
    await create(made, "r2", serialize=True)
    waiting = await made.until_phase(action_id(run="r2"), Phase.WAITING_FOR_RESOURCES)
    assert waiting.reason == "waits for the same call of run r1 to fill the cache: a0"
    await made.restart()
    done.set()
    row = await made.until_phase(action_id(run="r2"))
    assert (row.phase, row.cache_status) == (Phase.SUCCEEDED, CacheStatus.HIT)
    assert made.api.counts["create", "pods"] == 1
